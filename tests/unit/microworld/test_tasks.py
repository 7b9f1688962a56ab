import itertools
import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.microworld.tasks import (
    DIGITS,
    FAMILIES,
    LETTERS,
    Family,
    Split,
    Task,
    draw_task,
    near_miss,
    neighbour,
    slip,
    split_of,
)

BY_NAME = {family.name: family for family in FAMILIES}


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    family = draw(st.sampled_from(FAMILIES))
    alphabet = draw(st.sampled_from(family.alphabets))
    items = draw(st.permutations(alphabet))[:4]
    return Task(family, draw(st.integers(0, 1)), tuple(items))


seeds = st.integers(0, 2**32).map(random.Random)


@pytest.mark.parametrize(
    ("family", "items", "answer"),
    [
        pytest.param("ascending", "4 2 9 1", "1 2 4 9", id="ascending"),
        pytest.param("descending", "4 2 9 1", "9 4 2 1", id="descending"),
        pytest.param("largest", "4 2 9 1", "9", id="largest"),
        pytest.param("smallest", "4 2 9 1", "1", id="smallest"),
        pytest.param("reverse", "c a f b", "b f a c", id="reverse"),
        pytest.param("rotate", "c a f b", "a f b c", id="rotate"),
        pytest.param("first-two", "c a f b", "c a", id="first-two"),
        pytest.param("last-two", "c a f b", "f b", id="last-two"),
        pytest.param("capitals", "c a f b", "C A F B", id="capitals"),
        pytest.param("repeat", "4 2 9 1", "4 2 9 1", id="repeat"),
        pytest.param("increment", "4 2 9 1", "5 3 10 2", id="increment"),
        pytest.param("decrement", "4 2 9 1", "3 1 8 0", id="decrement"),
        pytest.param("odd", "4 2 9 1", "2", id="odd"),
        pytest.param("even", "4 2 9 5", "2", id="even"),
    ],
)
def test_answers(family: str, items: str, answer: str) -> None:
    assert Task(BY_NAME[family], 0, tuple(items.split())).answer == answer


def test_every_family_has_an_answer_checked_above() -> None:
    marks = next(mark for mark in test_answers.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {parameter.id for parameter in marks.args[1]} == set(BY_NAME)


@given(tasks())
def test_answers_agree_with_what_their_family_promises(task: Task) -> None:
    items, answer = list(task.items), task.answer.split()
    numbers = [int(item) for item in items if item.isdigit()]
    promises = {
        "ascending": lambda: sorted(answer) == sorted(items) and all(a < b for a, b in itertools.pairwise(answer)),
        "descending": lambda: sorted(answer) == sorted(items) and all(a > b for a, b in itertools.pairwise(answer)),
        "largest": lambda: all(int(answer[0]) >= number for number in numbers) and answer[0] in items,
        "smallest": lambda: all(int(answer[0]) <= number for number in numbers) and answer[0] in items,
        "reverse": lambda: [*reversed(answer)] == items,
        "rotate": lambda: [answer[-1], *answer[:-1]] == items,
        "first-two": lambda: len(answer) == 2 and " ".join(items).startswith(task.answer),
        "last-two": lambda: len(answer) == 2 and " ".join(items).endswith(task.answer),
        "capitals": lambda: task.answer.lower() == " ".join(items) and task.answer.isupper(),
        "repeat": lambda: answer == items,
        "increment": lambda: [int(a) - n for a, n in zip(answer, numbers, strict=True)] == [1] * 4,
        "decrement": lambda: [int(a) - n for a, n in zip(answer, numbers, strict=True)] == [-1] * 4,
        "odd": lambda: int(answer[0]) == len([n for n in numbers if n in (1, 3, 5, 7, 9)]),
        "even": lambda: int(answer[0]) == len([n for n in numbers if n in (2, 4, 6, 8)]),
    }
    assert promises[task.family.name]()


@pytest.mark.parametrize("split", Split)
def test_tasks_are_drawn_from_the_split_that_was_asked_for(split: Split) -> None:
    rng = random.Random(0)
    assert {split_of(draw_task(rng, split).items) for _ in range(300)} == {split}


def test_a_tenth_of_the_arguments_is_held_out() -> None:
    rng = random.Random(0)
    arguments = {tuple(rng.sample(alphabet, 4)) for alphabet in (DIGITS, LETTERS) for _ in range(4000)}
    shares = Counter(split_of(items) for items in arguments)
    assert 0.035 < shares[Split.DEVELOPMENT] / len(arguments) < 0.065
    assert 0.035 < shares[Split.TEST] / len(arguments) < 0.065


@given(tasks(), seeds)
def test_a_near_miss_is_never_right(task: Task, rng: random.Random) -> None:
    assert near_miss(task, rng) != task.answer
    assert slip(task, rng) != task.answer


@given(tasks(), seeds)
def test_a_slip_stays_close(task: Task, rng: random.Random) -> None:
    right, wrong = task.answer.split(), slip(task, rng).split()
    changed = sum(a != b for a, b in zip(right, wrong, strict=False))
    assert len(right) - len(wrong) in (0, 1)
    assert changed <= 2 or len(wrong) < len(right)


@given(tasks(), seeds)
def test_a_neighbour_is_another_task_on_the_same_items(task: Task, rng: random.Random) -> None:
    other = neighbour(task, rng)
    if other is None:  # only where as many digits are odd as even
        assert task.family.name in {"odd", "even"}
        assert task.answer == "2"
    else:
        assert other.items == task.items
        assert other.instruction != task.instruction
        assert other.answer != task.answer


def test_instructions_are_readable_and_unambiguous() -> None:
    phrasings = [phrasing for family in FAMILIES for phrasing in family.phrasings]
    assert len(set(phrasings)) == len(phrasings)
    assert all(re.fullmatch(r"[A-Z][a-z ]+[:?]", phrasing) for phrasing in phrasings)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_neighbours_exist_and_share_an_alphabet(family: Family) -> None:
    assert family.neighbours
    for name in family.neighbours:
        assert set(BY_NAME[name].alphabets) >= set(family.alphabets)
