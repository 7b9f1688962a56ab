"""The train stage: examples → a judge's weights, one folder per kept epoch.

Runs as one process or as several under torchrun; each calls `run`, and all return the same result.
"""

import os
import shutil
import tempfile
from pathlib import Path

from selftaught.api.results import Stage, StageResult, Usage
from selftaught.api.stage_config import TrainConfig
from selftaught.artifacts import Folder, Store, fingerprint
from selftaught.errors import DataError
from selftaught.records import Example
from selftaught.stages.context import StageContext
from selftaught.stages.training.model import on_gpu
from selftaught.stages.training.processes import Processes
from selftaught.stages.training.quiet import library_errors, quiet_libraries
from selftaught.stages.training.storage import WorkFolder

CUT_OFF = "VerdictCutOff"
"""Why a row is dropped: it is longer than the limit, so its end, the verdict, would be lost."""


def run(config: TrainConfig, context: StageContext) -> StageResult:
    """Fine-tune `config.model` on the examples (paper, section 3.4) and write the checkpoints.

    Raises DataError, ModelError, StorageError, ResourceError, or Interrupted after saving where it was.
    """
    # Threads that spin while they wait slow a training down many times when something else wants the cores. Read when
    # torch is loaded, so this does nothing in a process that has it already.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    output = context.store.folder(config.output)
    processes = Processes.of()
    done = output.manifest()
    if done is not None and done.result.key == config.key:
        return done.result
    started = context.now()
    examples = read_examples(context.store, config.examples)
    with quiet_libraries(), library_errors(config.output), Scratch(output, config.key) as scratch:
        from selftaught.stages.training.session import Session

        work = WorkFolder(output, scratch)
        session = Session(
            config=config,
            context=context,
            examples=examples,
            examples_hash=fingerprint([example.model_dump(mode="json") for example in examples]),
            work=work,
            processes=processes,
        )
        outcome = session.run()
        result = StageResult(
            stage=Stage.TRAIN,
            iteration=config.iteration,
            key=config.key,
            rows=outcome.stats.examples,
            dropped={CUT_OFF: outcome.stats.dropped} if outcome.stats.dropped else {},
            usage=Usage(
                output_tokens=outcome.stats.tokens,
                seconds=round(outcome.seconds * processes.count, 3),
                gpu_seconds=round(outcome.seconds * processes.count, 3) if on_gpu() else 0.0,
            ),
            training=outcome.stats,
            checkpoints=outcome.candidates,
            message=outcome.message,
        )
        result = processes.from_first(result)
        if processes.writes:
            output.complete(result, started, context.now())
            work.clear()
        processes.leave()
    return result


def read_examples(store: Store, uri: str) -> tuple[Example, ...]:
    """All training examples, ordered by id. Raises DataError if there are none."""
    examples = tuple(sorted(store.folder(uri).rows(Example), key=lambda example: example.id))
    if not examples:
        raise DataError(f"{uri} holds no training examples; look at the curate stage's statistics")
    return examples


class Scratch:
    """A local folder that lasts as long as the training, for outputs that are not on a file system.

    The processes of one machine share it.
    """

    def __init__(self, output: Folder, key: str) -> None:
        self._needed = output.local_path is None
        self._path = Path(tempfile.gettempdir()) / f"selftaught-train-{os.getuid()}-{key[:16]}"

    def __enter__(self) -> Path:
        if self._needed:
            self._path.mkdir(mode=0o700, exist_ok=True)
        return self._path

    def __exit__(self, *_: object) -> None:
        if self._needed:
            shutil.rmtree(self._path, ignore_errors=True)
