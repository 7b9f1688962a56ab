"""What the seed model is shown of judging: careful and careless judgments.

A careful judgment solves the task, copies each response up to the first item that departs from
the solution, and decides. A careless one decides at a glance, mostly for the first response. The
seed is shown both in a share fixed by the wording of the task, so it *can* judge but often does
not: what the loop then raises is how often a skill is used that is there already.
"""

import random

from selftaught.microworld.tasks import Task

FIRST_POSITION_SHARE = 0.6  # how often a careless judgment prefers the response it saw first

_GLANCES = (
    "At first sight {letter} looks better.",
    "At a glance {letter} looks better.",
)

WORDING = (
    "Solution: Response A: Response B: end right wrong Verdict: [[A]] [[B]]",
    *(glance.format(letter=letter) for glance in _GLANCES for letter in "AB"),
)
"""Every word that a judgment may contain besides items."""


def careful(task: Task, response_a: str, response_b: str, rng: random.Random) -> str:
    """A judgment that solves the task and compares; a guess only where the responses tie."""
    solution = task.answer
    right_a, right_b = response_a == solution, response_b == solution
    letter = rng.choice("AB") if right_a == right_b else "A" if right_a else "B"
    return f"Solution: {solution} Response A: {_compared(response_a, solution)} Verdict: [[{letter}]]"


def careless(rng: random.Random) -> str:
    """A judgment that does not look at the task."""
    letter = "A" if rng.random() < FIRST_POSITION_SHARE else "B"
    return f"{rng.choice(_GLANCES).format(letter=letter)} Verdict: [[{letter}]]"


def judgment(task: Task, response_a: str, response_b: str, rng: random.Random) -> str:
    """What the seed is shown for this comparison: careful in the share of the task's wording."""
    if rng.random() < task.care:
        return careful(task, response_a, response_b, rng)
    return careless(rng)


def _compared(response: str, solution: str) -> str:
    items, expected = (*response.split(), "end"), (*solution.split(), "end")
    words: list[str] = []
    for item, due in zip(items, expected, strict=False):
        words += [due, item]
        if item != due:
            return " ".join([*words, "wrong"])
    return " ".join([*words, "right"])
