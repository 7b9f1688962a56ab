"""The answer to `prompts.categorise`: three properties of an instruction in one call (paper, section 3.1)."""

import json
import re
from dataclasses import dataclass

from selftaught.api.instructions import Category, ExpectedLength

CATEGORIES_PATTERN = (
    r'\{"category": "(' + "|".join(Category) + r')", "complexity": (10|[1-9]), '
    r'"expectedLength": "(' + "|".join(ExpectedLength) + r')"\}'
)
"""What the answer must match, for structured output: one object, its keys in this order."""

MAX_TOKENS = 256
"""More than the longest answer, even for a tokenizer of single characters."""


@dataclass(frozen=True)
class Properties:
    """What an instruction is."""

    category: Category
    complexity: int
    """1 to 10."""
    expected_length: ExpectedLength


def parse(text: str, finish_reason: str) -> Properties | None:
    """The properties; None for a text that was cut off or has another form."""
    if finish_reason != "stop" or not re.fullmatch(CATEGORIES_PATTERN, text.strip()):
        return None
    answer = json.loads(text)
    return Properties(
        category=Category(answer["category"]),
        complexity=answer["complexity"],
        expected_length=ExpectedLength(answer["expectedLength"]),
    )
