"""Which rows are trained on together: planned from lengths and a seed alone, before anything runs.

Each optimiser step takes the next `batch_size` rows of a shuffled epoch. Only inside a step are rows sorted by
length and cut into micro batches where that costs the least padding. The gradient of a step stays that of plain
shuffling: the loss is a mean over the step's target tokens, in whatever micro batches they come.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

GPU_TOKENS, CPU_TOKENS = 16384, 4096
"""Most padded tokens of a micro batch whose size is not given: on a CPU, larger ones gain nothing."""
MOST_ROWS_TO_CUT_BEST = 512
"""Above, rows of a step are so close in length that equal parts do (and the search grows with the square)."""


def micro_batch_size(batch_size: int, processes: int, longest: int, tokens: int) -> int:
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
    """Rows of a micro batch when they are as long as the longest; shorter ones may be more."""
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
            sizes = cut([self.lengths[row] for row in rows], self._passes(len(rows)) * self.processes, self._tokens)
            groups = []
            start = 0
            for size in sizes:
                groups.append(rows[start : start + size])
                start += size
            for group in groups[rank :: self.processes]:
                yield group or [~rows[-1]]

    @property
    def _tokens(self) -> int:
        """Most padded tokens of a micro batch: what bounds memory."""
        return self.micro_batch_size * max(self.lengths)

    def _passes(self, rows: int) -> int:
        return -(-rows // (self.micro_batch_size * self.processes))


def cut(lengths: Sequence[int], groups: int, most: int) -> list[int]:
    """Sizes of consecutive groups of rows, lengths falling, with the least padding in all.

    A group is padded to its first row and has at most `most` tokens then; groups without rows come last.
    """
    rows = len(lengths)
    used = min(groups, rows)
    if rows > MOST_ROWS_TO_CUT_BEST:
        small, larger = divmod(rows, used)
        return [small] * (used - larger) + [small + 1] * larger + [0] * (groups - used)
    # cost[i, j]: padded tokens of the group of rows i to j - 1
    sizes = np.arange(rows + 1)[None, :] - np.arange(rows)[:, None]
    cost = (sizes * np.asarray(lengths)[:, None]).astype(float)
    cost[(sizes < 1) | ((cost > most) & (sizes > 1))] = np.inf
    best = cost[0]
    starts = []
    for _ in range(used - 1):
        total = best[:rows, None] + cost
        starts.append(total.argmin(axis=0))
        best = total.min(axis=0)
    ends = [rows]
    for start in reversed(starts):
        ends.append(int(start[ends[-1]]))
    ends.append(0)
    return [after - before for before, after in zip(ends[:0:-1], ends[-2::-1], strict=True)] + [0] * (groups - used)
