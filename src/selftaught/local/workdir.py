"""The folder of a local run: volumes, logs, journal of attempts, status.

status.yaml      the run with the status that the operator would write
attempts.jsonl   one line when an attempt starts, one when it ends
approvals.jsonl  decisions made with `selftaught approve`
configs/         what each attempt was told
logs/            what each process printed
volumes/CLAIM/   stands for the volume that `pvc://CLAIM/…` names
"""

import fcntl
import os
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import yaml
from pydantic import ValidationError

from selftaught.api.run import SelfTaughtRun
from selftaught.api.spec import Approval
from selftaught.artifacts import Store, storage_errors, write_atomically
from selftaught.errors import ManifestError, TransientError

LOCK_WAIT_SECONDS = 30.0


class WorkdirBusyError(TransientError):
    """Another process works in the folder."""


class ManifestDumper(yaml.SafeDumper):
    """Writes YAML that means the same to PyYAML and to Kubernetes' tools.

    PyYAML reads `5e-4` as a text and so writes it without quotes; the tools read it as a number.
    """

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """A text, in quotes if it begins like a number."""
        style = "'" if re.match(r"[-+.]?[0-9]", text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


ManifestDumper.add_representer(str, ManifestDumper.represent_text)


class Workdir:
    """Paths and small files of a local run."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.volumes = self.path / "volumes"
        self.configs = self.path / "configs"
        self.logs = self.path / "logs"
        self.journal = self.path / "attempts.jsonl"
        self.status_file = self.path / "status.yaml"
        self.approvals_file = self.path / "approvals.jsonl"

    def create(self) -> None:
        """Make the folders."""
        with storage_errors(str(self.path)):
            for folder in (self.volumes, self.configs, self.logs):
                folder.mkdir(parents=True, exist_ok=True)

    def store(self) -> Store:
        """The store whose volumes lie here."""
        return Store(self.volumes)

    def lock(self, waiting: Callable[[], None]) -> int:
        """Take the folder; the descriptor is inherited by stages, so the lock outlives a killed runner until
        the last of its stages has ended. Raises WorkdirBusyError.
        """
        with storage_errors(str(self.path)):
            descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise WorkdirBusyError(
                        f"another run works in {self.path}; wait for it, or name another folder with --workdir"
                    ) from None
                if not told:
                    told = True
                    waiting()
                time.sleep(0.2)

    def read_status(self) -> SelfTaughtRun | None:
        """The run as it was last written. Raises ManifestError if the file was damaged by hand."""
        try:
            text = self.status_file.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnicodeDecodeError as error:
            raise ManifestError(f"{self.status_file} is not a status; delete it and start again") from error
        try:
            return SelfTaughtRun.model_validate(yaml.safe_load(text))
        except (yaml.YAMLError, ValidationError) as error:
            raise ManifestError(
                f"{self.status_file} is damaged; delete it and start again: finished stages are kept"
            ) from error

    def write_status(self, run: SelfTaughtRun) -> None:
        """Write the run with its status."""
        document = run.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        document = {"apiVersion": run.api_version, "kind": run.kind, **document}
        with storage_errors(str(self.status_file)):
            text = yaml.dump(document, Dumper=ManifestDumper, sort_keys=False, width=120)
            write_atomically(self.status_file, text.encode())

    def set_journal_aside(self, now: datetime) -> None:
        """Begin a new journal: failures of a run that asked for something else do not count."""
        if self.journal.exists():
            with storage_errors(str(self.journal)):
                self.journal.rename(self.journal.with_name(f"attempts-until-{now:%Y%m%dT%H%M%S}.jsonl"))

    def read_approvals(self) -> tuple[Approval, ...]:
        """Decisions made by hand, oldest first."""
        try:
            lines = self.approvals_file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return ()
        return tuple(Approval.model_validate_json(line) for line in lines if line)

    def add_approval(self, approval: Approval) -> None:
        """Record a decision made by hand."""
        self.create()
        with storage_errors(str(self.approvals_file)), self.approvals_file.open("a", encoding="utf-8") as file:
            file.write(approval.model_dump_json(exclude_none=True) + "\n")
