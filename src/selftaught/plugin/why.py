"""Why a run does not get on: a pure decision over a snapshot. First the run as a whole, then its stage's Job."""

from datetime import timedelta

from selftaught.api.labels import APPROVAL_ANNOTATION
from selftaught.api.reasons import RETRY_ANNOTATION, Reason
from selftaught.api.run import SelfTaughtRun
from selftaught.api.spec import OnTimeout
from selftaught.api.status import Condition, ConditionStatus, ConditionType, StageState
from selftaught.display.outcome import stage_name
from selftaught.display.table import short
from selftaught.loop.approvals import approvals_of, awaiting
from selftaught.plugin.answer import FIND_OPERATOR, WIDTH, Answer, moment
from selftaught.plugin.jobs import why_of_job
from selftaught.plugin.snapshot import Snapshot

COMMAND = "kubectl selftaught"


def why(snapshot: Snapshot) -> Answer:
    """What a run waits for, since when, and what to do about it."""
    run = snapshot.run
    for decide in (deleting, unseen, failed, complete, suspended, undecided):
        if (answer := decide(run)) is not None:
            return answer
    return at_work(snapshot)


def true(run: SelfTaughtRun, kind: ConditionType) -> Condition | None:
    """A condition, if it is true."""
    found = (each for each in run.status.conditions if (each.type, each.status) == (kind, ConditionStatus.TRUE))
    return next(found, None)


def deleting(run: SelfTaughtRun) -> Answer | None:
    """A run that is being deleted."""
    if run.metadata.deletion_timestamp is None:
        return None
    return Answer(
        "the end of its deletion: its pods are being stopped",
        since=run.metadata.deletion_timestamp,
        because=(run.status.summary.reason,),
        next_step=f"wait; if it does not vanish, {FIND_OPERATOR}",
    )


def unseen(run: SelfTaughtRun) -> Answer | None:
    """A run, or a wish about it, that the operator has not acted on."""
    meta, status = run.metadata, run.status
    if not status.conditions:
        return Answer(
            "the operator, which has not seen this run yet", since=meta.creation_timestamp, next_step=FIND_OPERATOR
        )
    if meta.generation > status.observed_generation:
        seen = f"the spec is at generation {meta.generation}, acted on was {status.observed_generation}"
        return Answer(
            "the operator, which has not acted on the last change yet", because=(seen,), next_step=FIND_OPERATOR
        )
    wish = meta.annotations.get(RETRY_ANNOTATION, "")
    if true(run, ConditionType.FAILED) is not None and wish and wish != status.observed_retry:
        return Answer(
            "the operator, which has not acted on the wish to retry yet",
            because=(f"annotation {RETRY_ANNOTATION}: {wish}",),
            next_step=FIND_OPERATOR,
        )
    return None


def failed(run: SelfTaughtRun) -> Answer | None:
    """A run that has failed."""
    condition = true(run, ConditionType.FAILED)
    if condition is None:
        return None
    retry = f"{COMMAND} retry {run.metadata.name}"
    advice = {
        Reason.BUDGET_SPENT: "raise spec.budget, then",
        Reason.DEADLINE_EXCEEDED: "raise spec.deadlines.activeSeconds, then",
        Reason.QUEUE_DEADLINE_EXCEEDED: "raise spec.deadlines.queueSeconds or the queue's quota, then",
    }
    first = {str(reason): text for reason, text in advice.items()}.get(condition.reason, "mend the cause, then")
    log = f"(the log: {COMMAND} logs {run.metadata.name})"
    anew = "(where the spec cannot change: delete the run and apply it again, what is done is kept)"
    steps = [f"{first} {retry}", *([] if condition.reason in advice else [anew]), log]
    return Answer(
        "nothing: it has failed",
        since=condition.last_transition_time,
        because=(f"{condition.reason}: {condition.message}", *stage_messages(run)),
        next_step=("\n" + " " * WIDTH).join(steps),
    )


def stage_messages(run: SelfTaughtRun) -> tuple[str, ...]:
    """What failed stages said, the last one first."""
    return tuple(
        f"{stage_name(iteration.index, stage.name)}: {stage.message}"
        for iteration in reversed(run.status.iterations)
        for stage in reversed(iteration.stages)
        if stage.state is StageState.FAILED and stage.message and stage.message not in run.status.summary.reason
    )[:1]


def complete(run: SelfTaughtRun) -> Answer | None:
    """A run that is done."""
    condition = true(run, ConditionType.COMPLETE)
    if condition is None:
        return None
    more = "for more iterations, raise spec.iterations; " if condition.reason == Reason.ITERATIONS_DONE else ""
    return Answer(
        "nothing: it is complete",
        since=condition.last_transition_time,
        because=(f"{condition.reason}: {condition.message}",),
        next_step=f"{more}see the scores: {COMMAND} status {run.metadata.name}",
    )


def suspended(run: SelfTaughtRun) -> Answer | None:
    """A run that a person has suspended."""
    if not run.spec.suspend:
        return None
    condition = next((each for each in run.status.conditions if each.type == ConditionType.SUSPENDED), None)
    stopped = condition is not None and condition.status is ConditionStatus.TRUE
    return Answer(
        "a person: spec.suspend is set" + ("" if stopped else ", and what runs is being stopped"),
        since=condition.last_transition_time if condition is not None and stopped else None,
        because=(condition.message,) if condition is not None else (),
        next_step=f"{COMMAND} resume {run.metadata.name}",
    )


def undecided(run: SelfTaughtRun) -> Answer | None:
    """A run whose checkpoint awaits a decision."""
    condition, iterations = true(run, ConditionType.AWAITING_APPROVAL), awaiting(run.status)
    if condition is None or not iterations:
        return None
    iteration = iterations[0]
    approvals, problems = approvals_of(run.metadata.annotations)
    if any(approval.iteration == iteration for approval in approvals):
        return Answer(
            f"the operator, which has not acted on the decision on iteration {iteration} yet",
            because=(f"annotation {APPROVAL_ANNOTATION}{iteration} is set",),
            next_step=FIND_OPERATOR,
        )
    policy, since = run.spec.approval, condition.last_transition_time
    silence = ""
    if policy.timeout_seconds is not None and policy.on_timeout is not OnTimeout.SUSPEND:
        word = "approved" if policy.on_timeout is OnTimeout.APPROVE else "rejected"
        silence = f"without a decision it is {word} at {moment(since + timedelta(seconds=policy.timeout_seconds))}"
    return Answer(
        f"a decision on the checkpoint of iteration {iteration}",
        since=since,
        because=(condition.message, accuracies(run, iteration), silence, *problems),
        next_step=f"{COMMAND} approve {run.metadata.name} --iteration {iteration}   (or the same with --reject)",
    )


def accuracies(run: SelfTaughtRun, iteration: int) -> str:
    """What the decision is about, in figures."""
    best = run.status.best
    scores = next((each.scores for each in run.status.iterations if each.index == iteration), ())
    score = next((each for each in scores if best is not None and each.benchmark == best.benchmark), None)
    if best is None or score is None:
        return ""
    judge = f"iteration {best.iteration}" if best.iteration else "the seed"
    return f"accuracy on {best.benchmark}: {short(score.accuracy)}, best so far {short(best.accuracy)} ({judge})"


def at_work(snapshot: Snapshot) -> Answer:
    """A run that goes on, as far as anything lets it."""
    run, place = snapshot.run, snapshot.place
    prompts = f"{Reason.PROMPTS_UNUSABLE}: "
    if run.status.summary.reason.startswith(prompts):
        return Answer(
            "its prompt templates",
            since=run.metadata.creation_timestamp,
            because=(run.status.summary.reason.removeprefix(prompts),),
            next_step="create or correct the ConfigMap that spec.prompts names; the run takes it up by itself",
        )
    if place is None:
        return Answer("the operator, which is to start the next stage", because=(run.status.summary.reason,))
    if place.stage.state is StageState.FAILED and place.stage.retry_time is not None:
        name, due = stage_name(place.iteration, place.stage.name), place.stage.retry_time
        late = snapshot.now - due > timedelta(minutes=1)
        return Answer(
            f"the next attempt at {name}, " + (f"due since {moment(due)}" if late else f"at {moment(due)}"),
            since=place.stage.completion_time,
            because=(place.stage.message, restarts(run)),
            next_step=FIND_OPERATOR if late else f"wait, or read what went wrong: {COMMAND} logs {run.metadata.name}",
        )
    return why_of_job(snapshot, place)


def restarts(run: SelfTaughtRun) -> str:
    """How much of the restart budget is used."""
    return f"{run.status.restarts_counted} of {run.spec.failure_policy.max_restarts} restarts are used up"
