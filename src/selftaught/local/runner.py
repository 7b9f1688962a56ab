"""Runs a manifest with processes of this machine: observe, plan, start and stop, write the status, and again."""

import signal
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from rich.console import Console

from selftaught import manifests
from selftaught.api.base import GROUP
from selftaught.api.outcomes import FailureRecord, ResultRecord
from selftaught.api.reasons import RETRY_ANNOTATION
from selftaught.api.run import SelfTaughtRun
from selftaught.api.stage_config import PromptTexts
from selftaught.api.status import ConditionType, RunStatus
from selftaught.artifacts import Manifest
from selftaught.display.outcome import make_console
from selftaught.errors import PERMANENT_EXIT_CODE, ManifestError, SelfTaughtError
from selftaught.judging import prompts
from selftaught.local.journal import Journal
from selftaught.local.processes import Exited, Message, Processes
from selftaught.local.view import View, print_summary
from selftaught.local.workdir import Workdir
from selftaught.loop.configs import stage_config
from selftaught.loop.keys import run_folder
from selftaught.loop.observed import AttemptProgress, Failure, FailureKind, Observed, ledger_of
from selftaught.loop.planner import Plan, plan
from selftaught.loop.retries import condition_reason
from selftaught.loop.status import summarise
from selftaught.stages.reporting import ProgressRecord

SIGINT_EXIT_CODE = 130
FAILED_EXIT_CODE = 1
POLL_SECONDS = 2.0
PROMPTS_ANNOTATION = f"{GROUP}/prompts-sha256"
DETERMINING_FIELDS = ("seed", "generator", "prompts", "instructions", "pairs", "judging", "training", "evaluation")


def run_manifest(path: Path, folder: Path | None, *, debug: bool) -> int:
    """Run a manifest to its end; the exit code is 0 when the run is complete."""
    console = make_console()
    try:
        manifest = manifests.load([path])
        workdir = Workdir(folder or Path(".selftaught") / manifest.run.metadata.name)
        workdir.create()
        lock = workdir.lock(lambda: console.print("waiting for an earlier run's stages to end …"))
        return LocalRun(manifest, workdir, lock, console).go()
    except SelfTaughtError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


class LocalRun:
    """One run on this machine."""

    def __init__(
        self,
        manifest: manifests.RunManifest,
        workdir: Workdir,
        lock: int,
        console: Console,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._workdir = workdir
        self._console = console
        self._now = now
        self._store = workdir.store()
        self._prompts = resolve_prompts(manifest, workdir)
        wanted = with_prompts(manifest.run, self._prompts)
        stored = workdir.read_status()
        if stored is not None and not same_run(stored, wanted):
            names = f"the run {stored.metadata.namespace}/{stored.metadata.name}"
            raise ManifestError(f"{workdir.path} holds {names}; name another folder with --workdir")
        if stored is not None and not same_work(stored, wanted):
            workdir.set_journal_aside(now())
            console.print("the manifest has changed: finished stages that still fit are kept, the rest is done anew")
        if stored is not None and stored.spec.iterations > wanted.spec.iterations:
            console.print(f"spec.iterations was {stored.spec.iterations}: iterations that are done stay done")
        self._run = adopt(wanted, stored, now())
        self._folder = self._store.folder(run_folder(self._run))
        self._manifests: dict[str, Manifest] = {}
        self._pruned: set[str] = set()
        self._journal = Journal(workdir.journal, now())
        self._processes = Processes(workdir, lock)
        self._interrupted = False

    def go(self) -> int:
        """Run until there is nothing more to do, or Ctrl-C."""
        previous = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            with View(self._console) as view:
                self._loop(view)
        finally:
            self._processes.close()
            signal.signal(signal.SIGINT, previous)
        print_summary(self._console, self._run, self._workdir)
        if self._interrupted:
            self._console.print("stopped; the same command goes on where it was")
            return SIGINT_EXIT_CODE
        return FAILED_EXIT_CODE if has_failed(self._run.status) else 0

    def _loop(self, view: View) -> None:
        while True:
            decided = self._pass(view)
            alive = any(attempt.alive for attempt in self._journal.attempts)
            if not alive and (decided.outcome is not None or self._interrupted or self._run.spec.suspend):
                return
            if not alive and decided.start:
                continue
            if (message := self._processes.next_message(self._patience(decided, alive=alive))) is not None:
                self._take(message, view)

    def _pass(self, view: View) -> Plan:
        """One reconcile: the same steps as the operator's."""
        now = self._now()
        observed = self._observe()
        decided = plan(self._run, observed, now)
        self._tell(summarise(self._run, observed, decided, now), view)
        for attempt in decided.stop:
            self._stop(attempt.name)
        if self._interrupted:
            for attempt in observed.alive:
                self._stop(attempt.name)
            return decided
        for uri in decided.prune:
            self._store.folder(uri).remove()
            self._pruned.add(uri)
        for planned in decided.start:
            config = stage_config(self._run, planned.stage, planned.iteration, planned.attempt, observed)
            self._journal.started(
                planned.name,
                stage=planned.stage,
                iteration=planned.iteration,
                number=planned.attempt,
                key=planned.key,
                now=now,
            )
            self._processes.start(planned.name, config)
        if decided.start:
            self._tell(summarise(self._run, self._observe(), decided, now), view)
        return decided

    def _observe(self) -> Observed:
        for name in self._folder.names():
            if name not in self._manifests and (manifest := self._folder.child(name).manifest()) is not None:
                self._manifests[name] = manifest
                gone = (each.uri for each in manifest.result.checkpoints if not self._store.folder(each.uri).exists())
                self._pruned.update(gone)
        return Observed(
            prompts=self._prompts,
            attempts=self._journal.attempts,
            ledger=ledger_of(self._manifests.values()),
            approvals=self._workdir.read_approvals(),
            previous=self._run.status,
            pruned=frozenset(self._pruned),
        )

    def _tell(self, status: RunStatus, view: View) -> None:
        if status != self._run.status:
            self._run = self._run.model_copy(update={"status": status})
            self._workdir.write_status(self._run)
        view.show(self._run)

    def _take(self, message: Message, view: View) -> None:
        now = self._now()
        match message.content:
            case ProgressRecord() as record:
                self._journal.progressed(message.attempt, progress_of(record, now))
                view.progress(record)
            case ResultRecord(result=result):
                self._journal.ended(message.attempt, now, result=result)
            case FailureRecord() as record:
                self._journal.ended(message.attempt, now, failure=failure_of(record))
            case Exited(exit_code=code):
                log = self._workdir.logs
                text = f"its process ended with exit code {code}; see {log}"
                failure = Failure(reason="ProcessGone", message=text, kind=FailureKind.PROGRAM)
                if self._interrupted:
                    failure = Failure(reason="Interrupted", message="stopped", kind=FailureKind.INTERRUPTED)
                self._journal.ended(message.attempt, now, failure=failure)

    def _stop(self, name: str) -> None:
        self._journal.stopping(name)
        self._processes.stop(name)

    def _patience(self, decided: Plan, *, alive: bool) -> float:
        """How long to wait for a message before looking again."""
        if decided.look_again is None:
            return POLL_SECONDS
        until = (decided.look_again - self._now()).total_seconds()
        return min(POLL_SECONDS, max(0.05, until)) if not alive else POLL_SECONDS

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._interrupted:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        else:
            self._console.print(
                "stopping: what runs is saved first, an engine that starts must start up (Ctrl-C again: at once)"
            )
        self._interrupted = True


def resolve_prompts(manifest: manifests.RunManifest, workdir: Workdir) -> PromptTexts:
    """The templates that a manifest names, and the built-in ones for the rest. Raises ManifestError."""
    source = manifest.run.spec.prompts
    texts: dict[str, str] = {}
    if source.config_map_ref is not None:
        name = source.config_map_ref.name
        if name not in manifest.config_maps:
            raise ManifestError(
                f"spec.prompts.configMapRef: no ConfigMap {name!r} in the file; add it after a line `---`"
            )
        texts.update(manifest.config_maps[name])
    if source.uri is not None:
        folder = workdir.store().folder(source.uri)
        names = [name for name in folder.names() if name.endswith(".txt")]
        if not names:
            raise ManifestError(
                f"spec.prompts.uri: {source.uri} has no .txt files; put the templates there, such as judge.txt"
            )
        texts.update({name: folder.read(name).decode("utf-8") for name in names})
    return prompts.load({name.removesuffix(".txt"): text for name, text in texts.items()})


def adopt(run: SelfTaughtRun, stored: SelfTaughtRun | None, now: datetime) -> SelfTaughtRun:
    """The run with what is known from earlier calls. Calling again is how a person retries a failed run."""
    if stored is None:
        return run.model_copy(update={"metadata": run.metadata.model_copy(update={"generation": 1})})
    changed = stored.spec != run.spec
    status = stored.status if same_work(stored, run) else RunStatus()
    annotations = dict(run.metadata.annotations)
    if has_failed(status):
        annotations[RETRY_ANNOTATION] = now.isoformat()
    metadata = run.metadata.model_copy(
        update={"generation": max(stored.metadata.generation, 1) + changed, "annotations": annotations}
    )
    return run.model_copy(update={"metadata": metadata, "status": status})


def with_prompts(run: SelfTaughtRun, texts: PromptTexts) -> SelfTaughtRun:
    """The run with the hash of its resolved templates, which may change while the spec does not."""
    annotations = {**run.metadata.annotations, PROMPTS_ANNOTATION: prompts.prompts_hash(texts)}
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"annotations": annotations})})


def same_run(before: SelfTaughtRun, after: SelfTaughtRun) -> bool:
    """Whether it is the same run, whatever its manifest says now."""
    return (before.metadata.namespace, before.metadata.name) == (after.metadata.namespace, after.metadata.name)


def same_work(before: SelfTaughtRun, after: SelfTaughtRun) -> bool:
    """Whether what determines results is the same; if not, the run starts anew with the stages that still fit."""
    hashes = (run.metadata.annotations.get(PROMPTS_ANNOTATION) for run in (before, after))
    return len(set(hashes)) == 1 and all(
        getattr(before.spec, name) == getattr(after.spec, name) for name in DETERMINING_FIELDS
    )


def has_failed(status: RunStatus) -> bool:
    """Whether a status says Failed."""
    return condition_reason(status, ConditionType.FAILED) is not None


def progress_of(record: ProgressRecord, now: datetime) -> AttemptProgress:
    """A record as the planner sees it."""
    pace = f"{record.tokens_per_second:,.0f} tokens/s" if record.tokens_per_second else ""
    return AttemptProgress(
        fraction=min(1.0, record.done / record.total) if record.total else 0.0,
        time=now,
        remaining_seconds=record.remaining_seconds,
        throughput=pace,
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
    )


def failure_of(record: FailureRecord) -> Failure:
    """A failure as the planner sees it."""
    kind = FailureKind.PROGRAM
    if record.failure.permanent or record.exit_code == PERMANENT_EXIT_CODE:
        kind = FailureKind.PERMANENT
    elif record.failure.reason == "Interrupted":
        kind = FailureKind.INTERRUPTED
    return Failure(reason=record.failure.reason, message=record.failure.message, kind=kind)
