"""Which samples of an example are drawn next, and which judgment is kept: pure and by index only.

Samples of one prompt are independent and alike, so keeping the first correct one *by index* keeps exactly the pairs
that drawing all N would keep, and a trace with the same law as a random correct one. The order in which samples
finish must play no part: short traces finish first, and keeping them would shorten what the next judge learns from.

Samples are drawn in waves of consecutive indexes, and whether to stop is decided on whole waves. So the samples of
an example are a function of its verdicts alone, the same after a kill as without one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from selftaught.api.judging import Judging, JudgingStrategy

WAVES = (1, 1, 2, 4, 7)
"""Sizes of the waves; the last one is repeated. Small first: most examples are solved at once. Growing: a hard
example needs few rounds, so that the last ones do not leave the engine idle."""


@dataclass(frozen=True)
class Draws:
    """The rule of one run."""

    samples: int
    """N: most samples per example."""
    adaptive: bool
    min_agreement: float = 0.0
    waves: tuple[int, ...] = WAVES

    @classmethod
    def of(cls, judging: Judging) -> "Draws":
        """The rule that a spec asks for."""
        return cls(judging.samples_per_pair, judging.strategy is JudgingStrategy.ADAPTIVE, judging.min_agreement)

    @property
    def needed(self) -> int:
        """Correct samples of N that keep an example: one, or what the agreement asks for."""
        return next(count for count in range(1, self.samples + 1) if count / self.samples >= self.min_agreement)

    def next(self, correct: Mapping[int, bool]) -> tuple[int, ...]:
        """Indexes to draw now, given which samples (by index) were correct; none when it is decided.

        Indexes of a wave that are already there (from a process that was killed) are left out.
        """
        end = 0
        for size in self._sizes(correct):
            end += size
            missing = tuple(index for index in range(end) if index not in correct)
            if missing:
                return missing
        return ()

    def kept(self, correct: Mapping[int, bool]) -> int | None:
        """Index of the kept sample: the first correct one, or None if the example is dropped.

        `correct` must hold all that `next` asks for.
        """
        hits = sorted(index for index, hit in correct.items() if hit)
        return hits[0] if len(hits) >= self.needed else None

    def _sizes(self, correct: Mapping[int, bool]) -> Iterator[int]:
        """Sizes of the waves one after another, until it is decided. Reads only what earlier waves have drawn."""
        if not self.adaptive:
            yield self.samples
            return
        end = hits = wave = 0
        while True:
            missing_hits, left = self.needed - hits, self.samples - end
            if missing_hits <= 0 or missing_hits > left:
                return
            certain = min(missing_hits, left - missing_hits + 1)  # no outcome of fewer draws can decide
            size = min(left, max(certain, self.waves[min(wave, len(self.waves) - 1)]))
            yield size
            hits += sum(correct[index] for index in range(end, end + size))
            end += size
            wave += 1
