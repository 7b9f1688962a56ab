"""What the call that modifies an instruction answers with."""

import re
from dataclasses import dataclass

_FORM = re.compile(
    r"\s*<instruction>(?P<instruction>(?:(?!</?(?:instruction|response)>).)*)</instruction>"
    r"\s*<response>(?P<response>(?:(?!</?(?:instruction|response)>).)*)</response>\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Modification:
    """A modified instruction and a good response to it."""

    instruction: str
    response: str


def parse_modification(text: str) -> Modification | None:
    """Both parts, stripped, if the text has exactly the form that was asked for, else None.

    Nothing may stand around or between the two parts but white space, and no marker inside them: what deviates
    is more likely misunderstood than repairable, and would become a wrong label.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    return Modification(match["instruction"].strip(), match["response"].strip())
