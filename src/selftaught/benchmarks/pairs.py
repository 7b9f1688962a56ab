"""Plain rows with an instruction, a better and a worse response, under any keys."""

from selftaught.api.judging import Benchmark
from selftaught.benchmarks.rows import RawRow, field_text
from selftaught.benchmarks.sides import Sides, own_id

SPLIT = "train"


def sides(row: RawRow, benchmark: Benchmark) -> Sides:
    """Read a row by the benchmark's field mapping; `id` is its id if it has one."""
    fields = benchmark.fields
    return Sides(
        id=own_id(row),
        subset=field_text(row.value, fields.subset),
        instruction=field_text(row.value, fields.instruction),
        chosen=field_text(row.value, fields.chosen),
        rejected=field_text(row.value, fields.rejected),
    )
