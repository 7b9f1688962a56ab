"""The prompt templates of the micro world, and how their placeholders are filled.

The instruction stands last in each, so that a task ends alike wherever the model meets it.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

PROMPTS: Mapping[str, str] = MappingProxyType(
    {
        "respond": "{{instruction}}",
        "modify": (
            "Write a related instruction with another answer and then answer it.\n"
            "Response: {{response}}\n"
            "Instruction: {{instruction}}"
        ),
        "judge": (
            "Which response is better? Solve and compare and end with your verdict.\n"
            "Response A: {{response_a}}\n"
            "Response B: {{response_b}}\n"
            "Instruction: {{instruction}}"
        ),
    }
)

MODIFICATION = "<instruction> {{instruction}} </instruction> <response> {{response}} </response>"
"""What one call of `modify` has to answer with."""


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with every `{{name}}` replaced, in one pass (values are never scanned)."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)
