"""Names of attempts: deterministic, so that a stale view can only start again what exists already."""

import hashlib

from selftaught.api.results import Stage

MAX_NAME = 58
"""A DNS label has at most 63 characters, and the host name of a Job's last pod adds `-1023`."""


def attempt_name(run: str, stage: Stage, iteration: int, number: int) -> str:
    """`<run>-i<iteration>-<stage>-a<number>`; without the iteration for what happens once.

    A DNS label: what is longer than 58 characters is cut, with a hash of the whole.
    """
    middle = f"i{iteration}-{stage}" if iteration else str(stage)
    return shortened(f"{run}-{middle}-a{number}")


def shortened(name: str) -> str:
    """A name of at most 58 characters that still differs from all others."""
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name[: MAX_NAME - 11].rstrip('-')}-{digest}"
