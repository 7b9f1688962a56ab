"""How a run ends."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Complete:
    """The run ended well: what it could do is done."""

    reason: str
    message: str


@dataclass(frozen=True)
class Failed:
    """The run failed: a person must change something."""

    reason: str
    message: str


Outcome = Complete | Failed
