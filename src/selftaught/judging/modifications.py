"""What the call that modifies an instruction answers with."""

import re
from dataclasses import dataclass

from selftaught.judging.verdicts import CHARACTERS_PER_TOKEN

_FORM = re.compile(
    r"\s*<instruction>(?P<instruction>(?:(?!</?(?:instruction|response)>).)*)</instruction>"
    r"\s*<response>(?P<response>(?:(?!</?(?:instruction|response)>).)*)</response>\s*",
    re.DOTALL,
)

MARKERS_TOKENS = 32
"""Room for the four markers in any tokenizer."""


@dataclass(frozen=True)
class Modification:
    """A modified instruction and a good response to it."""

    instruction: str
    response: str


def guided_form(max_tokens: int) -> str:
    """What a guided modification must match: both parts, without angle brackets, bounded so that both get their end.

    A quarter of the room is the instruction's.
    """
    room = max(4, CHARACTERS_PER_TOKEN * (max_tokens - MARKERS_TOKENS))
    instruction, response = room // 4, room - room // 4
    return rf"<instruction>[^<>]{{1,{instruction}}}</instruction><response>[^<>]{{1,{response}}}</response>"


def parse_modification(text: str) -> Modification | None:
    """Both parts, stripped, if the text has exactly the form that was asked for, else None.

    Nothing may stand around or between the two parts but white space, and no marker inside them: what deviates
    is more likely misunderstood than repairable, and would become a wrong label.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    return Modification(match["instruction"].strip(), match["response"].strip())
