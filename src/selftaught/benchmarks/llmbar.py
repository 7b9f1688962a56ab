"""LLMBar (arXiv 2310.07641): `input`, `output_1`, `output_2`, and as `label` the number of the better output.

Each file is a subset: in a folder, their names (`LLMBar_Natural.json`) name the subsets.
"""

from selftaught.api.judging import Benchmark
from selftaught.benchmarks.rows import RawRow, field_text
from selftaught.benchmarks.sides import Sides, Unlabelled, ordered

SPLIT = "train"


def sides(row: RawRow, _: Benchmark) -> Sides:
    """Read a row. Raises Unlabelled."""
    label = str(row.value.get("label"))
    if label not in ("1", "2"):
        raise Unlabelled
    chosen, rejected = ordered(
        field_text(row.value, "output_1"), field_text(row.value, "output_2"), first_is_better=label == "1"
    )
    return Sides(
        id=None,
        subset=row.file.rsplit(".", 1)[0],
        instruction=field_text(row.value, "input"),
        chosen=chosen,
        rejected=rejected,
    )
