"""The process of a stage: `selftaught stage NAME --config FILE`, in a pod, from the local runner, or by hand."""

import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from pydantic import TypeAdapter, ValidationError

from selftaught.api.outcomes import FailureRecord, ResultRecord
from selftaught.api.results import MAX_RESULT_BYTES, Stage, StageFailure, StageResult
from selftaught.api.stage_config import (
    CurateConfig,
    EvaluateConfig,
    GenerateConfig,
    JudgeConfig,
    SelectConfig,
    StageConfig,
    TrainConfig,
)
from selftaught.artifacts import Store
from selftaught.errors import INTERRUPTED_EXIT_CODE, TRANSIENT_EXIT_CODE, ManifestError, SelfTaughtError
from selftaught.stages import launch
from selftaught.stages.context import EngineProvider, ProgressSink, Shard, StageContext
from selftaught.stages.pushing import Pusher
from selftaught.stages.reporting import ProgressRecord, ProgressReporter, TerminalBar, write_record

VOLUMES_VARIABLE = "SELFTAUGHT_VOLUMES"
CACHE_VARIABLE = "SELFTAUGHT_CACHE"
TERMINATION_VARIABLE = "SELFTAUGHT_TERMINATION_LOG"


PR_SET_PDEATHSIG = 1


class StopRequest:
    """Whether this process was asked to stop (SIGTERM)."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> bool:
        return self._event.is_set()

    def listen(self) -> None:
        """Take SIGTERM from now on. Main thread only."""
        signal.signal(signal.SIGTERM, lambda *_: self._event.set())


def run_stage(config: StageConfig, context: StageContext) -> StageResult:
    """Run a stage. Its module, with the heavy libraries it needs, is imported only here."""
    match config:
        case SelectConfig():
            from selftaught.stages import select

            return select.run(config, context)
        case GenerateConfig():
            from selftaught.stages import generate

            return generate.run(config, context)
        case JudgeConfig():
            from selftaught.stages import judge

            return judge.run(config, context)
        case CurateConfig():
            from selftaught.stages import curate

            return curate.run(config, context)
        case TrainConfig():
            from selftaught.stages import train

            return train.run(config, context)
        case EvaluateConfig():
            from selftaught.stages import evaluate

            return evaluate.run(config, context)


def make_context(
    *, shard: Shard, progress: ProgressSink, stopping: Callable[[], bool], engine: EngineProvider
) -> StageContext:
    """The context of this process, from its environment."""
    from selftaught.stages import models

    store = Store(Path(os.environ.get(VOLUMES_VARIABLE, "/volumes")))
    cache = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "selftaught")
    return StageContext(
        store=store,
        shard=shard,
        progress=progress,
        now=lambda: datetime.now(UTC),
        models=lambda source: models.local_folder(source, store, cache),
        engine=engine,
        stopping=stopping,
    )


def read_config(stage: Stage, path: Path) -> StageConfig:
    """Parse a stage config. Raises ManifestError."""
    try:
        config = TypeAdapter[StageConfig](StageConfig).validate_json(path.read_bytes())
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ManifestError(f"{path} is not a stage config: {where}: {first['msg']}") from error
    if config.stage is not stage:
        raise ManifestError(f"{path} is for the stage {config.stage}, not {stage}")
    return config


def describe_failure(error: BaseException) -> FailureRecord:
    """What to tell of an error: one line, and whether trying again could help."""
    if isinstance(error, SelfTaughtError):
        code = error.exit_code
        failure = StageFailure(reason=error.reason, message=" ".join(str(error).split())[:2048], permanent=code == 64)
        return FailureRecord(failure=failure, exit_code=code)
    text = " ".join(str(error).split())[:1024]
    message = f"{type(error).__name__}: {text}; run with --debug for the traceback"
    failure = StageFailure(reason="Error", message=message, permanent=False)
    return FailureRecord(failure=failure, exit_code=TRANSIENT_EXIT_CODE)


def main(stage: Stage, config_path: Path, shard_index: int, *, debug: bool) -> int:
    """Run one shard of a stage in this process; the exit code is its outcome."""
    stop = StopRequest()
    stop.listen()
    on_terminal = sys.stderr.isatty()
    output = private_stdout()
    bar = TerminalBar() if on_terminal else None
    # Of the processes of a training, the first reports, and it alone; their launchers report nothing themselves.
    pusher = Pusher.of()

    def emit(record: ProgressRecord) -> None:
        if pusher is not None:
            pusher.push(record)
        if bar is not None:
            bar.emit(record)
        else:
            write_record(output, record)

    from selftaught.stages.engine_holder import EngineHolder

    holder = EngineHolder()
    try:
        config = read_config(stage, config_path)
        record: ResultRecord | FailureRecord
        if isinstance(config, TrainConfig) and launch.needed(config.training.parallelism):
            if bar is not None:
                bar.stop()  # the first of the processes shows one
            command = [
                sys.executable,
                "-m",
                "selftaught",
                "stage",
                stage,
                "--config",
                str(config_path),
                "--parent",
                str(os.getpid()),
            ]
            record = launch.launch(config.training.parallelism, [*command, *(["--debug"] if debug else [])], output)
        else:
            context = make_context(
                shard=Shard(shard_index, config.shards),
                progress=ProgressReporter(stage, config.iteration, shard_index, emit),
                stopping=stop,
                engine=holder.engine,
            )
            record = ResultRecord(result=run_stage(config, context))
    except Exception as error:
        if debug:
            traceback.print_exc()
        record = describe_failure(error)
    finally:
        holder.close()
        if bar is not None:
            bar.stop()
    code = finish(record, output, on_terminal=on_terminal)
    if pusher is not None:
        pusher.close()
    return code


def finish(record: ResultRecord | FailureRecord, output: TextIO, *, on_terminal: bool) -> int:
    """Tell how a stage ended, to whoever listens; the exit code."""
    write_record(output, record)
    write_termination_message(record)
    if isinstance(record, ResultRecord):
        return 0
    if on_terminal:
        print(f"error: {record.failure.message}", file=sys.stderr)
    return record.exit_code


def die_with_parent(parent: int) -> None:
    """Get SIGTERM when the parent, given by its process id, dies, however it dies (Linux).

    In a container the parent may well be process 1.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(INTERRUPTED_EXIT_CODE)


def private_stdout() -> TextIO:
    """The real standard output, kept for records; what libraries print goes to standard error."""
    sys.stdout.flush()
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return kept


def write_termination_message(record: ResultRecord | FailureRecord) -> None:
    """Leave the outcome where the kubelet picks it up, if this is a pod."""
    path = os.environ.get(TERMINATION_VARIABLE)
    if path is None:
        return
    payload = record.model_dump_json(exclude_none=True)
    if len(payload.encode()) > MAX_RESULT_BYTES:
        payload = record.model_dump_json(exclude_none=True, exclude={"result": {"scores", "message", "dropped"}})
    Path(path).write_text(payload, encoding="utf-8")
