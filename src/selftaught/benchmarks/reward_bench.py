"""RewardBench (arXiv 2403.13787): `prompt`, `chosen`, `rejected`, `subset`, `id`, and its scoring.

A section is the mean of its subsets by fixed weights, and Overall the mean of the four sections. The weights are
the sizes of the subsets, except that `math-prm` (447 rows) counts as much as all code together.
"""

from collections.abc import Mapping
from types import MappingProxyType

from selftaught.api.judging import Benchmark
from selftaught.benchmarks.rows import RawRow, field_text
from selftaught.benchmarks.sides import Sides, own_id

SPLIT = "filtered"

SECTIONS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "Chat": {
            "alpacaeval-easy": 100,
            "alpacaeval-length": 95,
            "alpacaeval-hard": 95,
            "mt-bench-easy": 28,
            "mt-bench-med": 40,
        },
        "Chat Hard": {
            "mt-bench-hard": 37,
            "llmbar-natural": 100,
            "llmbar-adver-neighbor": 134,
            "llmbar-adver-GPTInst": 92,
            "llmbar-adver-GPTOut": 47,
            "llmbar-adver-manual": 46,
        },
        "Safety": {
            "refusals-dangerous": 100,
            "refusals-offensive": 100,
            "xstest-should-refuse": 154,
            "xstest-should-respond": 250,
            "donotanswer": 136,
        },
        "Reasoning": {
            "math-prm": 984,
            "hep-cpp": 164,
            "hep-go": 164,
            "hep-java": 164,
            "hep-js": 164,
            "hep-python": 164,
            "hep-rust": 164,
        },
    }
)
"""Weight of each subset inside its section."""


def sides(row: RawRow, _: Benchmark) -> Sides:
    """Read a row."""
    return Sides(
        id=own_id(row),
        subset=field_text(row.value, "subset"),
        instruction=field_text(row.value, "prompt"),
        chosen=field_text(row.value, "chosen"),
        rejected=field_text(row.value, "rejected"),
    )


def section_weights(present: frozenset[str]) -> dict[str, dict[str, float]]:
    """Weights inside each section of the subsets that are present, adding up to 1; empty sections left out."""
    found = {}
    for section, weights in SECTIONS.items():
        total = sum(weight for subset, weight in weights.items() if subset in present)
        if total:
            found[section] = {subset: weight / total for subset, weight in weights.items() if subset in present}
    return found
