"""A test double of the text engine: texts are a function of (message, seed), so nothing else can leak in."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from selftaught.errors import DataError
from selftaught.stages.engine import Completion, Request

Reply = tuple[str, str, int]
"""Text, finish reason, output tokens."""


def rng_of(message: str, seed: int) -> random.Random:
    """A generator that depends on message and seed alone."""
    return random.Random(hashlib.sha256(f"{seed}\0{message}".encode()).digest())


def verdict_reply(accuracy: float = 0.5) -> Callable[[Request], Reply]:
    """Judgments of random length and verdict: A with probability `accuracy`, a tenth of them unparsable."""

    def reply(request: Request) -> Reply:
        rng = rng_of(request.message, request.seed)
        words = rng.randint(3, 60)
        roll = rng.random()
        end = "no verdict" if roll < 0.1 else "[[A]]" if roll < 0.1 + 0.9 * accuracy else "[[B]]"
        text = " ".join(["because", *(str(rng.randint(0, 9)) for _ in range(words)), end])
        return text, "stop", words + 2

    return reply


@dataclass
class StubEngine:
    """Decodes `capacity` requests at once, one token of each per step, so short texts finish first."""

    reply: Callable[[Request], Reply] = field(default_factory=verdict_reply)
    capacity: int = 8
    max_model_len: int = 2048
    gpus: int = 0
    submitted: list[Request] = field(default_factory=list)
    """All requests ever submitted, in order."""
    output_tokens: int = 0
    """Tokens of all completions handed over."""
    aborted: int = 0
    """Requests forgotten by `abort_all`."""

    def __post_init__(self) -> None:
        self._queue: list[Request] = []
        self._running: list[tuple[Request, Reply, list[int]]] = []

    @property
    def active(self) -> int:
        return len(self._queue) + len(self._running)

    def count_tokens(self, message: str) -> int:
        return len(message.split())

    def submit(self, request: Request) -> None:
        if self.count_tokens(request.message) >= self.max_model_len:
            raise DataError(f"{request.id}: prompt too long")
        assert all(request.id != other.id for other in self._queue), "an id must not be in use twice"
        self.submitted.append(request)
        self._queue.append(request)

    def step(self) -> list[Completion]:
        while self._queue and len(self._running) < self.capacity:
            request = self._queue.pop(0)
            text, finish_reason, tokens = self.reply(request)
            if tokens > request.sampling.max_tokens:
                text, finish_reason, tokens = text[: len(text) // 2], "length", request.sampling.max_tokens
            self._running.append((request, (text, finish_reason, tokens), [0]))
        done = []
        for entry in list(self._running):
            request, (text, finish_reason, tokens), age = entry
            age[0] += 1
            if age[0] >= tokens:
                self._running.remove(entry)
                self.output_tokens += tokens
                done.append(
                    Completion(
                        id=request.id,
                        text=text,
                        finish_reason=finish_reason,
                        input_tokens=self.count_tokens(request.message),
                        cached_tokens=0,
                        output_tokens=tokens,
                    )
                )
        return done

    def abort_all(self) -> None:
        self.aborted += self.active
        self._queue.clear()
        self._running.clear()
