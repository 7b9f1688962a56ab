"""JudgeBench (arXiv 2410.12784): `question`, `response_A`, `response_B`, and `label` A>B or B>A.

Which of two responses is better follows from a right and a wrong final answer, not from people's taste. The
subset is the `source` of the question.
"""

from selftaught.api.judging import Benchmark
from selftaught.benchmarks.rows import RawRow, field_text
from selftaught.benchmarks.sides import Sides, Unlabelled, ordered

SPLIT = "gpt"
"""The larger of its two splits on the hub; the other is `claude`."""


def sides(row: RawRow, _: Benchmark) -> Sides:
    """Read a row. Raises Unlabelled."""
    label = row.value.get("label")
    if label not in ("A>B", "B>A"):
        raise Unlabelled
    chosen, rejected = ordered(
        field_text(row.value, "response_A"), field_text(row.value, "response_B"), first_is_better=label == "A>B"
    )
    return Sides(
        id=field_text(row.value, "pair_id"),
        subset=field_text(row.value, "source"),
        instruction=field_text(row.value, "question"),
        chosen=chosen,
        rejected=rejected,
    )
