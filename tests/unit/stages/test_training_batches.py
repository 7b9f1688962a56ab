"""Batches: every row once per epoch, the same ones for any number of processes, little padding."""

import itertools
import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.stages.training.batches import BatchPlan, cut, micro_batch_size

plans = st.builds(
    BatchPlan,
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=80).map(tuple),
    batch_size=st.integers(1, 40),
    micro_batch_size=st.integers(1, 9),
    processes=st.integers(1, 5),
    seed=st.integers(0, 3),
)


def by_process(plan: BatchPlan, epoch: int) -> list[list[list[int]]]:
    return [list(plan.micro_batches(epoch, rank)) for rank in range(plan.processes)]


@given(plans, st.integers(0, 4))
def test_every_row_is_trained_on_once_per_epoch(plan: BatchPlan, epoch: int) -> None:
    rows = [row for batches in by_process(plan, epoch) for batch in batches for row in batch if row >= 0]
    assert sorted(rows) == list(range(len(plan.lengths)))


@given(plans, st.integers(0, 4))
def test_all_processes_do_the_same_number_of_passes(plan: BatchPlan, epoch: int) -> None:
    for batches in by_process(plan, epoch):
        assert len(batches) == plan.micro_batches_per_epoch
        assert all(len(batch) == 1 for batch in batches if batch[0] < 0)
        for batch in batches:
            padded = max(plan.lengths[row] for row in batch) * len(batch) if batch[0] >= 0 else 0
            assert padded <= plan.micro_batch_size * max(plan.lengths)


@given(plans, st.integers(0, 4))
def test_a_step_is_its_rows_however_they_are_cut(plan: BatchPlan, epoch: int) -> None:
    steps = list(plan.steps(epoch))
    assert len(steps) == plan.steps_per_epoch
    position = 0
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        passes = plan.micro_batches_per_epoch - position if last else plan.accumulation
        parts = [batches[position : position + passes] for batches in by_process(plan, epoch)]
        assert sorted(row for part in parts for batch in part for row in batch if row >= 0) == sorted(step)
        position += passes


@given(plans, st.integers(1, 9), st.integers(1, 5))
def test_steps_do_not_depend_on_how_they_are_spread(plan: BatchPlan, micro: int, processes: int) -> None:
    other = BatchPlan(plan.lengths, plan.batch_size, micro, processes, plan.seed)
    assert list(plan.steps(1)) == list(other.steps(1))


def test_epochs_and_seeds_differ() -> None:
    orders = [next(BatchPlan(tuple([5] * 50), 50, 5, 1, seed).steps(epoch)) for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9


def test_rows_of_a_micro_batch_are_of_similar_length() -> None:
    rng = random.Random(0)
    lengths = tuple(int(rng.lognormvariate(6, 0.6)) + 1 for _ in range(640))

    def padded(batches: list[list[int]]) -> int:
        return sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)

    plan = BatchPlan(lengths, 32, 4, 1, 0)
    shuffled = [step[start : start + 4] for step in plan.steps(0) for start in range(0, 32, 4)]
    assert padded(list(plan.micro_batches(0, 0))) < 1.12 * sum(lengths)
    assert padded(shuffled) > 1.5 * sum(lengths)


def padding(lengths: Sequence[int], sizes: Iterable[int]) -> int:
    total = start = 0
    for size in sizes:
        total += size * lengths[start] if size else 0
        start += size
    return total


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 9), st.integers(1, 4))
def test_no_other_cut_has_less_padding(lengths: list[int], groups: int, micro: int) -> None:
    lengths.sort(reverse=True)
    most = micro * lengths[0]
    groups = max(groups, -(-len(lengths) // micro))
    sizes = cut(lengths, groups, most)
    assert (len(sizes), sum(sizes)) == (groups, len(lengths))
    possible = []
    for borders in itertools.combinations(range(1, len(lengths)), min(groups, len(lengths)) - 1):
        ends = [0, *borders, len(lengths)]
        other = [after - before for before, after in itertools.pairwise(ends)]
        if all(size == 1 or size * lengths[start] <= most for start, size in zip(ends, other, strict=False)):
            possible.append(padding(lengths, other))
    assert padding(lengths, sizes) == min(possible)


def test_ties_do_not_go_beyond_the_memory() -> None:
    sizes = cut([10, *[1] * 30], 4, 12)
    assert (sizes[0], sum(sizes)) == (1, 31)
    assert max(sizes) <= 12


def test_very_large_steps_are_cut_in_equal_parts() -> None:
    assert cut([1] * 1000, 3, 400) == [333, 333, 334]


@pytest.mark.parametrize(
    ("batch_size", "processes", "longest", "expected"),
    [
        pytest.param(32, 1, 100, 32, id="all-fit"),
        pytest.param(32, 4, 100, 8, id="share-of-a-process"),
        pytest.param(32, 1, 1000, 8, id="limited-by-tokens"),
        pytest.param(32, 1, 900, 8, id="equal-parts"),
        pytest.param(32, 1, 100_000, 1, id="one-huge-row"),
        pytest.param(7, 2, 10, 4, id="odd"),
        pytest.param(1, 8, 10, 1, id="more-processes-than-rows"),
    ],
)
def test_micro_batch_size(batch_size: int, processes: int, longest: int, expected: int) -> None:
    assert micro_batch_size(batch_size, processes, longest, tokens=8192) == expected


@given(st.integers(1, 500), st.integers(1, 64), st.integers(1, 5000), st.integers(1, 9000))
def test_micro_batches_fit(batch_size: int, processes: int, longest: int, tokens: int) -> None:
    size = micro_batch_size(batch_size, processes, longest, tokens)
    assert size == 1 or size * longest <= tokens
