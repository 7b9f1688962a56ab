"""What an estimate can learn from data that lie on this machine: rows, pairs, parameters."""

import math
from collections.abc import Iterator

from selftaught.api.references import Judge
from selftaught.api.run import SelfTaughtRun
from selftaught.artifacts import Store
from selftaught.benchmarks.reading import read
from selftaught.benchmarks.rows import read_rows
from selftaught.errors import SelfTaughtError
from selftaught.loop.assumptions import ModelSize
from selftaught.loop.estimate import Pool
from selftaught.stages.safetensors_header import read_header

LOCAL = ("pvc://", "file://")


def pool_of(run: SelfTaughtRun, store: Store) -> Pool:
    """What is known of a run's data. What is not here, or cannot be read, stays unknown: an estimate never fails."""
    counts = [rows_of(source.uri, source.limit, store) for source in run.spec.instructions.sources]
    known = [count for count in counts if count is not None]
    pairs = {}
    for benchmark in run.spec.evaluation.benchmarks:
        if benchmark.uri.startswith(LOCAL):
            try:
                pairs[benchmark.name] = len(read(benchmark, store).pairs)
            except SelfTaughtError:
                continue
    models = {judge.model.uri: size for judge in judges(run) if (size := size_of(judge.model.uri, store)) is not None}
    return Pool(
        instructions=sum(known) if len(known) == len(counts) else None,
        benchmarks=pairs,
        models=models,
    )


def judges(run: SelfTaughtRun) -> Iterator[Judge]:
    """The models that a run names."""
    yield run.spec.seed
    if run.spec.generator is not None:
        yield run.spec.generator


def rows_of(uri: str, limit: int | None, store: Store) -> int | None:
    """Rows of a source."""
    if not uri.startswith(LOCAL):
        return None
    try:
        count = sum(1 for _ in read_rows(uri, store))
    except SelfTaughtError:
        return None
    return count if limit is None else min(count, limit)


def size_of(uri: str, store: Store) -> ModelSize | None:
    """Parameters of a model, from the headers of its weights."""
    folder = store.folder(uri).local_path if uri.startswith(LOCAL) else None
    if folder is None or not folder.is_dir():
        return None
    try:
        tensors = [entry for path in sorted(folder.glob("*.safetensors")) for entry in read_header(path).values()]
    except SelfTaughtError:
        return None
    total = float(sum(math.prod(entry["shape"]) for entry in tensors if "shape" in entry))
    return ModelSize(total=total, active=total) if total else None
