"""Commands that steer a run: approve, suspend, resume, retry. Each returns lines for the user."""

from datetime import datetime

from pydantic import ValidationError

from selftaught.api.labels import APPROVAL_ANNOTATION
from selftaught.api.reasons import RETRY_ANNOTATION
from selftaught.api.spec import Approval, Decision
from selftaught.api.status import ConditionType, Phase
from selftaught.loop.approvals import awaiting
from selftaught.loop.retries import condition_reason
from selftaught.plugin.cluster import Cluster, JsonObject, RefusedError
from selftaught.plugin.runs import folder_of, gitops_tool, metadata_of, raw_run, read_run

REVIEW_PATH = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def approve(
    cluster: Cluster, name: str, iteration: int, *, reject: bool, note: str, login: str, now: datetime
) -> tuple[str, ...]:
    """Decide on the checkpoint of an iteration. Raises RefusedError if it does not await a decision."""
    run = read_run(raw_run(cluster, name)).run
    waiting = awaiting(run.status)
    if iteration not in waiting:
        which = f"iteration {waiting[0]} awaits approval" if waiting else "nothing awaits approval"
        raise RefusedError(f"--iteration {iteration}: {which} in {name}; see: kubectl selftaught status {name}")
    decision = Decision.REJECTED if reject else Decision.APPROVED
    by = (user(cluster) or login)[:256]
    try:
        approval = Approval(iteration=iteration, decision=decision, by=by, note=note, time=now)
    except ValidationError as error:
        raise RefusedError(f"--note: {error.errors()[0]['msg'].lower()}") from error
    annotate(cluster, name, f"{APPROVAL_ANNOTATION}{iteration}", approval.model_dump_json(exclude_defaults=True))
    return (f"{name}: iteration {iteration} {decision.lower()} by {by}",)


def user(cluster: Cluster) -> str | None:
    """Who the cluster takes the user for; none if it does not tell."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = cluster.post(REVIEW_PATH, review)
    except RefusedError:
        return None
    return str(answer.get("status", {}).get("userInfo", {}).get("username", "")) or None


def set_suspended(cluster: Cluster, name: str, *, suspend: bool) -> tuple[str, ...]:
    """Suspend a run or let it go on."""
    raw = raw_run(cluster, name)
    if bool(raw.get("spec", {}).get("suspend")) is suspend:
        return (f"{name} is suspended already" if suspend else f"{name} is not suspended",)
    phase = str(raw.get("status", {}).get("phase", ""))
    if suspend and phase in (Phase.COMPLETE, Phase.FAILED):
        raise RefusedError(f"{name} is {phase}: nothing of it runs that could be stopped")
    cluster.patch(path_of(cluster, name), {"spec": {"suspend": suspend}})
    tool = gitops_tool(metadata_of(raw))
    warning = f"warning: {tool} applies this run from Git and will set it back; change spec.suspend there too"
    done = f"{name} {'suspended: what runs is stopped, finished work is kept' if suspend else 'resumed'}"
    return (done, warning) if tool else (done,)


def retry(cluster: Cluster, name: str, *, now: datetime) -> tuple[str, ...]:
    """Let a failed run go on from its failed stage. Raises RefusedError if it has not failed."""
    run = read_run(raw_run(cluster, name)).run
    if condition_reason(run.status, ConditionType.FAILED) is None:
        raise RefusedError(f"{name} has not failed (it is {run.status.phase}); only a failed run can be retried")
    annotate(cluster, name, RETRY_ANNOTATION, now.isoformat())
    done = f"{name} goes on from its failed stage, with a fresh restart budget"
    held = f"it is suspended, too: kubectl selftaught resume {name}"
    return (done, held) if run.spec.suspend else (done,)


def annotate(cluster: Cluster, name: str, key: str, value: str) -> None:
    """Set one annotation."""
    body: JsonObject = {"metadata": {"annotations": {key: value}}}
    cluster.patch(path_of(cluster, name), body)


def path_of(cluster: Cluster, name: str) -> str:
    """Path of a run."""
    return f"{folder_of(cluster.namespace)}/{name}"
