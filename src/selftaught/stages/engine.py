"""What stages ask of a text engine. The real one is `vllm_engine.VllmEngine`."""

from dataclasses import dataclass
from typing import Protocol

from selftaught.api.references import Sampling


@dataclass(frozen=True)
class Request:
    """One text to sample: a user message, sent through the model's chat template."""

    id: str
    message: str
    sampling: Sampling
    seed: int
    """Seed of this request alone, so that its text does not depend on what else is in the batch."""
    pattern: str | None = None
    """A regular expression that the text must match (guided verdict, structured output)."""


@dataclass(frozen=True)
class Completion:
    """A finished request."""

    id: str
    text: str
    finish_reason: str
    """`stop`, or `length` when cut off."""
    input_tokens: int
    cached_tokens: int
    """Prompt tokens that came from the prefix cache."""
    output_tokens: int


class Engine(Protocol):
    """A running model that is fed continuously and hands each text over as soon as it is done."""

    @property
    def active(self) -> int:
        """Requests submitted and not yet handed over."""
        ...

    @property
    def capacity(self) -> int:
        """Sequences decoded at once; `feed` keeps a few more than that queued."""
        ...

    @property
    def max_model_len(self) -> int:
        """Longest prompt and answer together, in tokens."""
        ...

    @property
    def gpus(self) -> int:
        """GPUs it holds; 0 on a CPU."""
        ...

    def count_tokens(self, message: str) -> int:
        """Length of the prompt that `message` becomes, chat template included."""
        ...

    def submit(self, request: Request) -> None:
        """Queue a request. Raises DataError if its prompt leaves no room for an answer."""
        ...

    def step(self) -> list[Completion]:
        """Advance by one scheduler step; the requests that it finished, often none."""
        ...

    def abort_all(self) -> None:
        """Forget all active requests, so that the next stage finds the engine empty."""
        ...
