"""The way of a run through its stages, as far as finished work leads: what is done, what comes next.

Gates and stopping rules lie on the way, so that it leads to the same place whenever it is walked again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from selftaught.api.reasons import Reason
from selftaught.api.results import Checkpoint, CurationStats, Stage, StageResult
from selftaught.api.run import SelfTaughtRun
from selftaught.api.spec import Approval, ApprovalRequired, Decision
from selftaught.api.status import IterationDecision
from selftaught.artifacts import Manifest
from selftaught.loop.approvals import Consent, consent
from selftaught.loop.gates import accuracy_of, gate_problem, seed_problem
from selftaught.loop.keys import Lineage, iteration_stages, preparation
from selftaught.loop.observed import Observed
from selftaught.loop.outcome import Complete, Failed, Outcome
from selftaught.loop.stopping import early_end


@dataclass(frozen=True)
class Step:
    """A stage at its place."""

    stage: Stage
    iteration: int
    key: str


@dataclass(frozen=True)
class Ruling:
    """What the gate decided on a finished iteration."""

    iteration: int
    decision: IterationDecision
    message: str
    checkpoint: Checkpoint
    accuracy: float | None
    """On the deciding benchmark."""
    approval: Approval | None = None
    deadline: datetime | None = None
    """When a decision that is awaited is overdue."""
    overdue: bool = False


@dataclass(frozen=True)
class Course:
    """How far a run is."""

    done: Mapping[tuple[int, Stage], Manifest] = field(default_factory=dict)
    rulings: tuple[Ruling, ...] = ()
    """One per finished iteration, oldest first."""
    next: Step | None = None
    """The first stage that is not done."""
    end: Outcome | None = None
    """How the run ends, if nothing is left to do."""

    @property
    def awaiting(self) -> Ruling | None:
        """The iteration that a person must decide on."""
        last = self.rulings[-1] if self.rulings else None
        return last if last is not None and last.decision is IterationDecision.AWAITING_APPROVAL else None

    @property
    def best(self) -> Ruling | None:
        """The promoted iteration; none is the seed."""
        promoted = [ruling for ruling in self.rulings if ruling.decision is IterationDecision.PROMOTED]
        return promoted[-1] if promoted else None

    @property
    def baseline(self) -> StageResult | None:
        """The scores of the seed."""
        entry = self.done.get((0, Stage.EVALUATE))
        return entry.result if entry is not None else None

    @property
    def iteration(self) -> int:
        """The iteration at work, or the last one."""
        if self.next is not None:
            return self.next.iteration
        return max((iteration for iteration, _ in self.done), default=0)


def course_of(run: SelfTaughtRun, observed: Observed, now: datetime) -> Course:
    """Walk until something is not done, a person must decide, or the run ends."""
    return Walk(run, observed, now).course()


class Walk:
    """One walk."""

    def __init__(self, run: SelfTaughtRun, observed: Observed, now: datetime) -> None:
        self._run = run
        self._spec = run.spec
        self._observed = observed
        self._now = now
        self._lineage = Lineage(run, observed)
        self._done: dict[tuple[int, Stage], Manifest] = {}
        self._rulings: list[Ruling] = []
        self._next: Step | None = None

    def course(self) -> Course:
        """How far it leads."""
        end = self._walk()
        return Course(done=self._done, rulings=tuple(self._rulings), next=self._next, end=end)

    def _walk(self) -> Outcome | None:
        for stage in preparation(self._spec):
            entry = self._pass(stage, 0)
            if entry is None:
                return None
            if stage is Stage.EVALUATE and (problem := seed_problem(self._spec, entry.result)) is not None:
                return Failed(Reason.SEED_UNFIT, problem)
        for iteration in range(1, self._spec.iterations + 1):
            for stage in iteration_stages(self._spec):
                entry = self._pass(stage, iteration)
                if entry is None:
                    return None
                if entry.result.curation is not None and entry.result.curation.kept == 0:
                    return self._without_examples(iteration, entry.result.curation)
            ruling = self._rule(iteration)
            self._rulings.append(ruling)
            end = self._end_after(ruling)
            if end is not None or ruling.decision is IterationDecision.AWAITING_APPROVAL:
                return end
        return Complete(
            Reason.ITERATIONS_DONE, f"{counted(self._spec.iterations, 'iteration')} done{self._best_words()}"
        )

    def _pass(self, stage: Stage, iteration: int) -> Manifest | None:
        """The stage's entry; none, and the next step known, if it is not done."""
        key = self._lineage.key(stage, iteration)
        entry = self._observed.entry(key)
        if entry is None:
            self._next = Step(stage, iteration, key)
        else:
            self._done[iteration, stage] = entry
        return entry

    def _rule(self, iteration: int) -> Ruling:
        last = self._done[iteration, iteration_stages(self._spec)[-1]]
        checkpoint = self._lineage.checkpoint(iteration)
        measured = last.result if last.result.stage is Stage.EVALUATE else None
        accuracy = accuracy_of(self._spec.evaluation, measured)
        problem = gate_problem(self._spec.evaluation, self._baseline, measured) if measured is not None else None
        best, holder = self._standing()
        better = accuracy is None or best is None or accuracy > best
        agreed = consent(
            self._spec.approval,
            (*self._spec.approvals, *self._observed.approvals),
            iteration,
            promotable=problem is None and better,
            since=self._decidable_since(last),
            now=self._now,
        )
        decision, message = self._decision(agreed, problem, better, f"{holder} has {best:.3f}" if best else holder)
        return Ruling(
            iteration, decision, message, checkpoint, accuracy, agreed.approval, agreed.deadline, agreed.overdue
        )

    def _decision(
        self, agreed: Consent, problem: str | None, better: bool, incumbent: str
    ) -> tuple[IterationDecision, str]:
        if agreed.needed:
            overdue = ", overdue" if agreed.overdue else ""
            found = problem or ("the best so far" if better else f"no better than the best: {incumbent}")
            return IterationDecision.AWAITING_APPROVAL, f"a person must decide{overdue}; {found}"
        if agreed.decision is Decision.REJECTED:
            return IterationDecision.REJECTED, decided_by(agreed, "rejected")
        if problem is not None:
            return IterationDecision.GATE_FAILED, problem
        if not better:
            return IterationDecision.KEPT, f"no better than the best: {incumbent}"
        return IterationDecision.PROMOTED, decided_by(agreed, "approved") if agreed.decision else "the best so far"

    def _end_after(self, ruling: Ruling) -> Outcome | None:
        if ruling.decision is IterationDecision.AWAITING_APPROVAL:
            return None
        rejected = ruling.decision is IterationDecision.REJECTED
        if rejected and self._spec.approval.required is ApprovalRequired.EVERY_ITERATION:
            return Complete(Reason.REJECTED, f"iteration {ruling.iteration} was {ruling.message}{self._best_words()}")
        if self._baseline is None:
            return None  # nothing is measured
        barred = (IterationDecision.REJECTED, IterationDecision.GATE_FAILED)
        accuracies = [None if r.decision in barred else r.accuracy for r in self._rulings]
        best = self._best
        return early_end(
            self._spec.stopping,
            accuracy_of(self._spec.evaluation, self._baseline),
            accuracies,
            best.accuracy if best is not None else None,
        )

    def _without_examples(self, iteration: int, curation: CurationStats) -> Outcome:
        found = (
            f"iteration {iteration} kept none of {counted(curation.samples, 'judgment')} "
            f"({curation.correct} correct, {curation.unparsable} without a verdict)"
        )
        if self._best is not None:
            return Complete(Reason.NO_EXAMPLES, f"{found}{self._best_words()}")
        if curation.unparsable * 2 > curation.samples and not self._spec.judging.guided_verdict:
            advice = "set judging.guidedVerdict: true, or choose another seed"
        elif curation.correct:
            advice = "lower judging.minAgreement, or raise the number of instructions"
        else:
            advice = "choose another seed, or raise judging.samplesPerPair"
        return Failed(Reason.NO_EXAMPLES, f"{found}; {advice}")

    def _standing(self) -> tuple[float | None, str]:
        """Accuracy to beat, and whose it is."""
        best = self._best
        if best is not None:
            return best.accuracy, f"iteration {best.iteration}"
        return accuracy_of(self._spec.evaluation, self._baseline), "the seed"

    def _best_words(self) -> str:
        best = self._best
        if best is None:
            return "; no iteration was promoted"
        accuracy = f" with accuracy {best.accuracy:.3f}" if best.accuracy is not None else ""
        return f"; the best is iteration {best.iteration}{accuracy}"

    def _decidable_since(self, last: Manifest) -> datetime:
        """When a person could first decide; a run that was re-created asks anew."""
        created = self._run.metadata.creation_timestamp
        if created is None or created.tzinfo is None:
            return last.completion_time
        return max(last.completion_time, created)

    @property
    def _best(self) -> Ruling | None:
        return Course(rulings=tuple(self._rulings)).best

    @property
    def _baseline(self) -> StageResult | None:
        return Course(done=self._done).baseline


def decided_by(agreed: Consent, word: str) -> str:
    """`rejected by jane: too long`."""
    if agreed.approval is None:
        return f"{word}, since nobody decided in time"
    by = f" by {agreed.approval.by}" if agreed.approval.by else ""
    note = f": {agreed.approval.note}" if agreed.approval.note else ""
    return f"{word}{by}{note}"


def counted(number: int, word: str) -> str:
    """`1 iteration`, `5 iterations`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
