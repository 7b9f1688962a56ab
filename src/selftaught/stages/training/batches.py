"""Which rows are trained on together: planned from lengths and a seed alone, before anything runs.

Each optimiser step takes the next `batch_size` rows of a shuffled epoch. Only inside a step are rows sorted by
length and cut into micro batches of similar length, so padding is small and the gradient of a step is that of
plain shuffling: the loss is a mean over the step's target tokens, in whatever micro batches they come.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MICRO_BATCH_TOKENS = 8192
"""Most padded tokens of a micro batch whose size is not given."""


def micro_batch_size(batch_size: int, processes: int, longest: int, tokens: int = MICRO_BATCH_TOKENS) -> int:
    """Rows per process and forward pass: as many as fit `tokens`, in equal parts of the process's share."""
    share = -(-batch_size // processes)
    most = max(1, min(share, tokens // max(1, longest)))
    passes = -(-share // most)
    return -(-share // passes)


@dataclass(frozen=True)
class BatchPlan:
    """The micro batches of every step, epoch and process."""

    lengths: tuple[int, ...]
    """Tokens of each row."""
    batch_size: int
    micro_batch_size: int
    processes: int
    seed: int

    @property
    def accumulation(self) -> int:
        """Micro batches per process in a full step."""
        return self._passes(self.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; the last may be smaller."""
        return -(-len(self.lengths) // self.batch_size)

    @property
    def micro_batches_per_epoch(self) -> int:
        """Forward passes per process and epoch."""
        last = len(self.lengths) - (self.steps_per_epoch - 1) * self.batch_size
        return (self.steps_per_epoch - 1) * self.accumulation + self._passes(last)

    def steps(self, epoch: int) -> Iterator[list[int]]:
        """Row numbers of each step of an epoch (from 0)."""
        order = list(range(len(self.lengths)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def micro_batches(self, epoch: int, rank: int) -> Iterator[list[int]]:
        """Row numbers of each forward pass of a process.

        A negative number `~row` is a stand-in without loss, for a process that has no row left in the last step.
        """
        for step in self.steps(epoch):
            rows = sorted(step, key=lambda row: (-self.lengths[row], row))
            groups = _split(rows, self._passes(len(rows)) * self.processes)
            for group in groups[rank :: self.processes]:
                yield group or [~rows[-1]]

    def _passes(self, rows: int) -> int:
        return -(-rows // (self.micro_batch_size * self.processes))


def _split(rows: Sequence[int], groups: int) -> list[list[int]]:
    """Consecutive groups whose sizes differ by at most one, the smaller ones first (they hold the longest rows)."""
    small, larger = divmod(len(rows), groups)
    sizes = [small] * (groups - larger) + [small + 1] * larger
    result = []
    start = 0
    for size in sizes:
        result.append(list(rows[start : start + size]))
        start += size
    return result
