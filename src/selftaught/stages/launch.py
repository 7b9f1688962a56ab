"""Starts the processes of a training with torchrun, and says with one voice how it ended.

Each process is `selftaught stage train` with the same config. On a cluster every pod runs this launcher; the Job's
completion index is the node's rank, and MASTER_ADDR names the headless Service's first pod.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pydantic import TypeAdapter, ValidationError

from selftaught.api.judging import Parallelism
from selftaught.api.outcomes import FailureRecord, ResultRecord
from selftaught.api.results import StageFailure
from selftaught.errors import INTERRUPTED_EXIT_CODE, TRANSIENT_EXIT_CODE, ManifestError
from selftaught.stages.reporting import ProgressRecord, StageRecord, write_record

NODE_RANK_VARIABLE = "JOB_COMPLETION_INDEX"
ADDRESS_VARIABLE, PORT_VARIABLE = "MASTER_ADDR", "MASTER_PORT"
PORT = 29500
STOP_SECONDS = 110
"""How long processes may save after SIGTERM: a little less than a pod's two minutes."""
RENDEZVOUS_SECONDS = 900

Ending = ResultRecord | FailureRecord


@dataclass(frozen=True)
class Placement:
    """Where the processes of this node belong."""

    nodes: int
    node_rank: int
    processes: int
    """On this node."""
    address: str | None
    """Host and port of the first node; none on a single one."""


def needed(parallelism: Parallelism, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a training has several processes and none of them is this one."""
    return parallelism.nodes * parallelism.processes_per_node > 1 and "LOCAL_RANK" not in environ


def placement(parallelism: Parallelism, environ: Mapping[str, str] = os.environ) -> Placement:
    """Read this node's place from the environment; without a cluster, one machine stands for all nodes.

    Raises ManifestError if only half of the environment is there.
    """
    rank, address = environ.get(NODE_RANK_VARIABLE), environ.get(ADDRESS_VARIABLE)
    if parallelism.nodes == 1 or (rank is None and address is None):
        return Placement(1, 0, parallelism.nodes * parallelism.processes_per_node, None)
    if rank is None or address is None:
        raise ManifestError(
            f"a training on {parallelism.nodes} nodes needs {NODE_RANK_VARIABLE} and {ADDRESS_VARIABLE} in its pods"
        )
    endpoint = f"{address}:{environ.get(PORT_VARIABLE, PORT)}"
    return Placement(parallelism.nodes, int(rank), parallelism.processes_per_node, endpoint)


def launch(parallelism: Parallelism, command: list[str], output: TextIO) -> Ending:
    """Run `command` once per process and wait for all of them.

    Progress goes to `output` as it comes. The record returned is the first process's result, or the failure that
    explains best why the training failed; nothing is raised for a failed process.
    """
    place = placement(parallelism)
    with tempfile.TemporaryDirectory(prefix="selftaught-launch-") as logs, _environment(os.environ, place.processes):
        endings: dict[int, Ending] = {}
        with _relayed(output, endings):
            codes = _run(place, command, logs)
        if isinstance(endings.get(0), ResultRecord):
            return endings[0]  # said when all were done, so a crash while leaving changes nothing
        for rank in range(1, place.processes):
            for path in Path(logs).rglob(f"{rank}/stdout.log"):
                _note_ending(endings, rank, path.read_text("utf-8", errors="replace"))
    return explanation(codes, endings)


def explanation(codes: Mapping[int, int], endings: Mapping[int, Ending]) -> FailureRecord:
    """The failure to tell: when one process fails, others fail too, since it no longer answers.

    `codes` are exit codes by local rank (negative: a signal), `endings` what the processes said themselves.
    """
    failures = {rank: ending for rank, ending in endings.items() if isinstance(ending, FailureRecord)}

    def weight(rank: int) -> tuple[bool, bool, bool, int]:
        failure = failures[rank]
        return (
            not failure.failure.permanent,
            failure.failure.reason == "Error",
            failure.exit_code == INTERRUPTED_EXIT_CODE,
            rank,
        )

    signals = {rank: -code for rank, code in codes.items() if code < 0 and rank not in failures}
    # torchrun ends the others by SIGTERM
    killed = sorted(signals, key=lambda rank: (signals[rank] == signal.SIGTERM, rank))
    best = min(failures, key=weight, default=None)
    if best is not None and (failures[best].failure.reason != "Error" or not killed):
        return failures[best]
    ended = next((f"exit code {code}" for code in codes.values() if code > 0), "an error")
    reason = signal.Signals(signals[killed[0]]).name if killed else ended
    advice = "; if memory ran out, lower training.microBatchSize or shard with strategy FSDP" if killed else ""
    message = f"a process of the training ended with {reason}{advice}"
    failure = StageFailure(reason="ProcessFailed", message=message, permanent=False)
    return FailureRecord(failure=failure, exit_code=TRANSIENT_EXIT_CODE)


def _run(place: Placement, command: list[str], logs: str) -> dict[int, int]:
    """Exit codes other than 0 by local rank."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What failed is told once, by the record; torchrun's own words about it add nothing.
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # On a terminal only the first process shows its bar.
    hidden = Std.ALL if sys.stderr.isatty() else Std.OUT
    config = LaunchConfig(
        min_nodes=place.nodes,
        max_nodes=place.nodes,
        nproc_per_node=place.processes,
        run_id="selftaught",
        rdzv_backend="c10d" if place.address is None else "static",
        rdzv_endpoint=place.address or "localhost:0",
        rdzv_configs={"timeout": RENDEZVOUS_SECONDS} | ({} if place.address is None else {"rank": place.node_rank}),
        max_restarts=0,
        monitor_interval=0.1,
        shutdown_timeout=STOP_SECONDS,
        logs_specs=DefaultLogsSpecs(log_dir=logs, redirects=dict.fromkeys(range(1, place.processes), hidden)),
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        return {failure.local_rank: failure.exitcode for failure in error.failures.values()}
    except SignalException:
        return {}
    return {}


@contextmanager
def _environment(environ: MutableMapping[str, str], processes: int) -> Iterator[None]:
    """What the processes inherit: their share of the cores, and no place for a termination message of their own."""
    from selftaught.stages.program import TERMINATION_VARIABLE

    before = {name: environ.get(name) for name in (TERMINATION_VARIABLE, "OMP_NUM_THREADS")}
    environ.pop(TERMINATION_VARIABLE, None)
    environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value


@contextmanager
def _relayed(output: TextIO, endings: dict[int, Ending]) -> Iterator[None]:
    """Give the first process a standard output that is read here: progress is passed on, its ending is noted."""
    reading, writing = os.pipe()
    kept = os.dup(1)
    os.dup2(writing, 1)
    os.close(writing)

    def relay() -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                record = _record(line)
                if isinstance(record, ProgressRecord):
                    write_record(output, record)
                elif record is not None:
                    endings[0] = record

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        yield
    finally:
        os.dup2(kept, 1)  # closes the last writing end on this side, so the reader ends with the process
        os.close(kept)
        thread.join()


def _note_ending(endings: dict[int, Ending], rank: int, text: str) -> None:
    for line in text.splitlines():
        record = _record(line)
        if isinstance(record, ResultRecord | FailureRecord):
            endings[rank] = record


def _record(line: str) -> ProgressRecord | Ending | None:
    """A record, or nothing for what a library printed."""
    try:
        return TypeAdapter[StageRecord](StageRecord).validate_json(line)
    except ValidationError:
        return None
