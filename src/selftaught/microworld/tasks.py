"""The tasks of the micro world: short, readable, and with one right answer each.

A task is a family (what to do), a phrasing (one of two wordings) and items (four digits or
letters). Which items are for training, development or test is decided by a hash of the items
alone, so that no argument of an evaluation task ever occurs in training, whatever the seed.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

Items = tuple[str, ...]

DIGITS: Items = tuple("123456789")
LETTERS: Items = tuple("abcdefghi")
ITEMS_PER_TASK = 4

_DRAWS = 10_000  # far beyond what the rarest split (one argument in twenty) needs


class Split(StrEnum):
    """What an argument may be used for."""

    TRAINING = "training"
    DEVELOPMENT = "development"
    TEST = "test"


@dataclass(frozen=True)
class Family:
    """One kind of task.

    `care` is the share of careful judgments that the seed is shown for each phrasing (see
    `traces`). `neighbours` names the families whose answers are near misses for this one.
    """

    name: str
    phrasings: tuple[str, str]
    alphabets: tuple[Items, ...]
    solve: Callable[[Items], Items]
    neighbours: tuple[str, ...]
    care: tuple[float, float]


@dataclass(frozen=True)
class Task:
    """One instruction with its right answer."""

    family: Family
    phrasing: int
    items: Items

    @property
    def instruction(self) -> str:
        """The instruction in words; its items stand at the end."""
        return f"{self.family.phrasings[self.phrasing]} {' '.join(self.items)}"

    @property
    def answer(self) -> str:
        """The right answer, its items separated by spaces."""
        return " ".join(self.family.solve(self.items))

    @property
    def care(self) -> float:
        """The share of careful judgments that the seed is shown for tasks worded like this."""
        return self.family.care[self.phrasing]


def _shifted(items: Items, by: int) -> Items:
    return tuple(str(int(item) + by) for item in items)


def _odd(items: Items) -> int:
    return sum(int(item) % 2 for item in items)


FAMILIES: tuple[Family, ...] = (
    Family(
        "ascending",
        ("Sort these digits from small to large:", "Put these digits in ascending order:"),
        (DIGITS,),
        lambda items: tuple(sorted(items)),
        ("descending", "repeat"),
        (0.90, 0.25),
    ),
    Family(
        "descending",
        ("Sort these digits from large to small:", "Put these digits in descending order:"),
        (DIGITS,),
        lambda items: tuple(sorted(items, reverse=True)),
        ("ascending", "reverse"),
        (0.40, 0.15),
    ),
    Family(
        "largest",
        ("Give the largest of these digits:", "Which of these digits is the largest?"),
        (DIGITS,),
        lambda items: (max(items),),
        ("smallest",),
        (0.90, 0.30),
    ),
    Family(
        "smallest",
        ("Give the smallest of these digits:", "Which of these digits is the smallest?"),
        (DIGITS,),
        lambda items: (min(items),),
        ("largest",),
        (0.25, 0.90),
    ),
    Family(
        "reverse",
        ("Write these items backwards:", "Reverse the order of these items:"),
        (DIGITS, LETTERS),
        lambda items: items[::-1],
        ("repeat", "rotate"),
        (0.40, 0.15),
    ),
    Family(
        "rotate",
        ("Move the first item to the end:", "Rotate these items to the left:"),
        (DIGITS, LETTERS),
        lambda items: (*items[1:], items[0]),
        ("repeat", "reverse"),
        (0.30, 0.10),
    ),
    Family(
        "first-two",
        ("Give the first two items:", "Keep only the first two items:"),
        (DIGITS, LETTERS),
        lambda items: items[:2],
        ("last-two",),
        (0.90, 0.40),
    ),
    Family(
        "last-two",
        ("Give the last two items:", "Keep only the last two items:"),
        (DIGITS, LETTERS),
        lambda items: items[-2:],
        ("first-two",),
        (0.25, 0.90),
    ),
    Family(
        "capitals",
        ("Write these letters in capitals:", "Change these letters to upper case:"),
        (LETTERS,),
        lambda items: tuple(item.upper() for item in items),
        ("repeat",),
        (0.40, 0.15),
    ),
    Family(
        "repeat",
        ("Repeat these items:", "Copy these items without any change:"),
        (DIGITS, LETTERS),
        lambda items: items,
        ("reverse", "rotate"),
        (0.90, 0.30),
    ),
    Family(
        "increment",
        ("Add one to each digit:", "Increase each digit by one:"),
        (DIGITS,),
        lambda items: _shifted(items, 1),
        ("decrement", "repeat"),
        (0.10, 0.40),
    ),
    Family(
        "decrement",
        ("Subtract one from each digit:", "Decrease each digit by one:"),
        (DIGITS,),
        lambda items: _shifted(items, -1),
        ("increment", "repeat"),
        (0.90, 0.25),
    ),
    Family(
        "odd",
        ("Count the odd digits:", "How many of these digits are odd?"),
        (DIGITS,),
        lambda items: (str(_odd(items)),),
        ("even",),
        (0.30, 0.90),
    ),
    Family(
        "even",
        ("Count the even digits:", "How many of these digits are even?"),
        (DIGITS,),
        lambda items: (str(len(items) - _odd(items)),),
        ("odd",),
        (0.90, 0.15),
    ),
)


def split_of(items: Items) -> Split:
    """Which split an argument belongs to: one in twenty development, one in twenty test."""
    digest = hashlib.sha256(" ".join(items).encode()).digest()
    return {0: Split.DEVELOPMENT, 1: Split.TEST}.get(digest[0] % 20, Split.TRAINING)


def draw_task(rng: random.Random, split: Split = Split.TRAINING, families: Sequence[Family] = FAMILIES) -> Task:
    """A random task whose argument belongs to the split."""
    family = rng.choice(families)
    phrasing = rng.randrange(len(family.phrasings))
    alphabet = rng.choice(family.alphabets)
    for _ in range(_DRAWS):
        items = tuple(rng.sample(alphabet, ITEMS_PER_TASK))
        if split_of(items) is split:
            return Task(family, phrasing, items)
    raise AssertionError(f"no argument of {family.name} falls into {split}")


def neighbour(task: Task, rng: random.Random, families: Sequence[Family] = FAMILIES) -> Task | None:
    """A related task on the same items with another answer, or None where there is none.

    It is what "a modified instruction, highly relevant but not the same in meaning" is here.
    """
    right = task.answer
    candidates = [
        Task(family, phrasing, task.items)
        for family in families
        if family.name in task.family.neighbours
        for phrasing in range(len(family.phrasings))
    ]
    candidates = [candidate for candidate in candidates if candidate.answer != right]
    return rng.choice(candidates) if candidates else None


def slip(task: Task, rng: random.Random) -> str:
    """The right answer with one small mistake: two items swapped, one changed, or one left out."""
    items = tuple(task.answer.split())
    changed = rng.randrange(len(items))
    mistakes: list[Items] = [
        (*items[:changed], _other(items[changed], rng), *items[changed + 1 :]),
    ]
    swaps = [at for at in range(len(items) - 1) if items[at] != items[at + 1]]
    if swaps:
        at = rng.choice(swaps)
        mistakes.append((*items[:at], items[at + 1], items[at], *items[at + 2 :]))
    if len(items) > 2:
        shorter = (*items[:changed], *items[changed + 1 :])
        mistakes.append(shorter)
    return " ".join(rng.choice(mistakes))


def _other(item: str, rng: random.Random) -> str:
    """Another item of the same kind; numbers move by one, as slips of arithmetic do."""
    if item.isdigit():
        return str(rng.choice([n for n in (int(item) - 1, int(item) + 1) if 0 <= n <= 10]))
    alphabet = LETTERS if item.islower() else tuple(letter.upper() for letter in LETTERS)
    return rng.choice([letter for letter in alphabet if letter != item])


def near_miss(task: Task, rng: random.Random, families: Sequence[Family] = FAMILIES) -> str:
    """A wrong answer that is close to the right one: a neighbour's answer, or a slip."""
    other = neighbour(task, rng, families) if rng.random() < 0.5 else None
    return other.answer if other else slip(task, rng)
