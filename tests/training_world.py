"""A tiny model, some examples, and the train stage as a program.

`python training_world.py CONFIG VOLUMES [STEP]`, killed after a step if one is named.
"""

import os
import random
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from selftaught.api.outcomes import FailureRecord, ResultRecord
from selftaught.api.placement import Engine as EngineSettings
from selftaught.api.references import ModelSource
from selftaught.api.results import Stage, StageResult
from selftaught.api.stage_config import TrainConfig
from selftaught.artifacts import Store
from selftaught.records import Example, Verdict
from selftaught.stages.context import Shard, StageContext
from selftaught.stages.engine import Engine
from selftaught.stages.program import describe_failure
from selftaught.stages.reporting import write_record

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class RecordedProgress:
    """Keeps every update; kills or stops the process after a step if asked to."""

    def __init__(self, *, stop_after: int | None = None, kill_after: int | None = None) -> None:
        self.updates: list[tuple[int, int, str, int]] = []
        self._stop_after = stop_after
        self._kill_after = kill_after

    def update(self, *, done: int, total: int, unit: str, input_tokens: int = 0, output_tokens: int = 0) -> None:
        self.updates.append((done, total, unit, output_tokens))
        if done == self._kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def stopping(self) -> bool:
        return bool(self.updates) and self.updates[-1][0] == self._stop_after


def no_engine(folder: Path, settings: EngineSettings) -> Engine:
    raise AssertionError("training starts no engine")


def context(volumes: Path, progress: RecordedProgress, store: Store | None = None) -> StageContext:
    store = store or Store(volumes)

    def models(source: ModelSource) -> Path:
        folder = store.folder(source.uri).local_path
        assert folder is not None
        return folder

    return StageContext(
        store=store,
        shard=Shard(index=0, count=1),
        progress=progress,
        now=lambda: NOW,
        models=models,
        engine=no_engine,
        stopping=progress.stopping,
    )


def example(number: int, rng: random.Random, words: int | None = None) -> Example:
    """Two answers of random words and a judgment that counts some of them."""
    prompt = " ".join(f"w{rng.randrange(200)}" for _ in range(rng.randrange(8, 40) if words is None else words))
    verdict = rng.choice([Verdict.A, Verdict.B])
    trace = " ".join(str(rng.randrange(10)) for _ in range(rng.randrange(3, 25)))
    return Example(
        id=f"p{number:04d}/ChosenFirst/0",
        prompt=[{"role": "user", "content": prompt}],
        completion=[{"role": "assistant", "content": f"{trace} [[{verdict.value}]]"}],
        verdict=verdict,
    )


def write_examples(store: Store, uri: str, examples: list[Example]) -> None:
    folder = store.folder(uri)
    with folder.writer(0, 1) as writer:
        for row in reversed(examples):  # not in the order of ids
            writer.append(row)
    folder.complete(StageResult(stage=Stage.CURATE, iteration=1, key="c" * 64), NOW, NOW)


def main() -> int:
    """One process of a training; says how it ended as the stage program does."""
    config = TrainConfig.model_validate_json(Path(sys.argv[1]).read_text("utf-8"))
    kill_after = int(sys.argv[3]) if len(sys.argv) > 3 else None
    record: ResultRecord | FailureRecord
    try:
        from selftaught.stages import train

        result = train.run(config, context(Path(sys.argv[2]), RecordedProgress(kill_after=kill_after)))
        record = ResultRecord(result=result)
    except Exception as error:
        record = describe_failure(error)
    write_record(sys.stdout, record)
    return record.exit_code if isinstance(record, FailureRecord) else 0


if __name__ == "__main__":
    sys.exit(main())
