"""Processes that stand for pods: one worker that keeps its engine, and one process per training."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import IO

from pydantic import TypeAdapter, ValidationError

from selftaught.api.outcomes import FailureRecord, ResultRecord
from selftaught.api.results import Stage
from selftaught.api.stage_config import StageConfig
from selftaught.artifacts import write_atomically
from selftaught.local.workdir import Workdir
from selftaught.local.worker import StageJob
from selftaught.stages.program import CACHE_VARIABLE, VOLUMES_VARIABLE
from selftaught.stages.reporting import ProgressRecord, StageRecord

STOP_SECONDS = 120.0


@dataclass(frozen=True)
class Exited:
    """A process ended without saying how its stage went."""

    exit_code: int


@dataclass(frozen=True)
class Message:
    """Something a process said about an attempt."""

    attempt: str
    content: ProgressRecord | ResultRecord | FailureRecord | Exited


class Process:
    """A child whose records are read by a thread of its own."""

    def __init__(
        self, command: list[str], workdir: Workdir, log: str, lock: int, inbox: "queue.Queue[Message]"
    ) -> None:
        self._inbox = inbox
        self.attempt: str | None = None
        with (workdir.logs / f"{log}.log").open("ab") as log_file:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                env={
                    "OMP_WAIT_POLICY": "PASSIVE",
                    **os.environ,
                    VOLUMES_VARIABLE: str(workdir.volumes),
                    CACHE_VARIABLE: str(workdir.path / "cache"),
                },
                start_new_session=True,
                pass_fds=(lock,),
            )
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None

    def send(self, line: str) -> None:
        """Write a line to its standard input; if it is gone, its exit is reported by the reader."""
        stdin = self._stdin()
        try:
            stdin.write(line.encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            return

    def terminate(self) -> None:
        """Ask it to stop."""
        if self.alive:
            self._child.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Ask it to stop and wait; kill it, and what it started, when it takes too long."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin().close()
        self.terminate()
        try:
            self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def _stdin(self) -> IO[bytes]:
        assert self._child.stdin is not None
        return self._child.stdin

    def _read(self) -> None:
        assert self._child.stdout is not None
        adapter = TypeAdapter[StageRecord](StageRecord)
        for line in self._child.stdout:
            try:
                record = adapter.validate_json(line)
            except ValidationError:
                continue  # something a library printed
            if self.attempt is not None:
                self._inbox.put(Message(self.attempt, record))
        code = self._child.wait()
        if self.attempt is not None:
            self._inbox.put(Message(self.attempt, Exited(code)))


class Processes:
    """Starts attempts and hands over what their processes say."""

    def __init__(self, workdir: Workdir, lock: int) -> None:
        self._workdir = workdir
        self._lock = lock
        self._inbox: queue.Queue[Message] = queue.Queue()
        self._worker: Process | None = None
        self._training: Process | None = None
        self._jobs: list[StageJob] = []
        self._active: str | None = None
        self._stopping = False

    def start(self, attempt: str, config: StageConfig) -> None:
        """Start an attempt: training in a process of its own, all else in the worker, shard after shard."""
        path = self._workdir.configs / f"{attempt}.json"
        write_atomically(path, config.model_dump_json(indent=1).encode())
        self._active = attempt
        if config.stage is Stage.TRAIN:
            parent = ("--parent", str(os.getpid()))
            command = [sys.executable, "-m", "selftaught", "stage", "train", "--config", str(path), *parent]
            self._training = Process(command, self._workdir, attempt, self._lock, self._inbox)
            self._training.attempt = attempt
            return
        if self._worker is None or not self._worker.alive:
            command = [sys.executable, "-m", "selftaught.local.worker", str(os.getpid())]
            self._worker = Process(command, self._workdir, "worker", self._lock, self._inbox)
        self._worker.attempt = attempt
        self._jobs = [StageJob(config=config, shard=shard) for shard in range(config.shards)]
        self._send_next()

    def next_message(self, timeout: float | None) -> Message | None:
        """The next message of the active attempt; none when the time is over."""
        while True:
            try:
                message = self._inbox.get(timeout=timeout)
            except queue.Empty:
                return None
            if message.attempt != self._active:
                continue
            match message.content:
                case ResultRecord(result=result) if not result.complete and self._jobs:
                    self._send_next()
                    continue
                case ProgressRecord():
                    return message
                case _:
                    self._finish()
                    return message

    def stop(self, attempt: str) -> None:
        """Ask an attempt to stop; how it ended comes as a message."""
        if attempt != self._active:
            return
        process = self._training if self._training is not None else self._worker
        if process is not None:
            self._stopping = True
            process.terminate()

    def close(self) -> None:
        """Stop everything and wait for it."""
        for process in (self._training, self._worker):
            if process is not None:
                process.close()

    def _send_next(self) -> None:
        assert self._worker is not None
        self._worker.send(self._jobs.pop(0).model_dump_json())

    def _finish(self) -> None:
        self._active = None
        self._jobs = []
        if self._worker is not None:
            self._worker.attempt = None
            if self._stopping and self._training is None:
                # A worker that was asked to stop takes no more jobs.
                self._worker.close()
                self._worker = None
        if self._training is not None:
            self._training.attempt = None
            self._training.close()
            self._training = None
        self._stopping = False
