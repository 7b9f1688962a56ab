"""The prompt templates of the micro world.

The instruction stands last in each, so that a task ends alike wherever the model meets it.
"""

from collections.abc import Mapping
from types import MappingProxyType

PROMPTS: Mapping[str, str] = MappingProxyType(
    {
        "respond": "{{instruction}}",
        "modify": """\
Change the instruction and answer it.
Response: {{response}}
Instruction: {{instruction}}""",
        "judge": """\
Which response is better?
Response A: {{response_a}}
Response B: {{response_b}}
Instruction: {{instruction}}""",
    }
)
"""By name; `build` writes them beside the seed, and the quick start's manifest carries the same texts."""

MODIFICATION = "<instruction> {{instruction}} </instruction> <response> {{response}} </response>"
"""What one call of `modify` has to answer with."""
