"""What Kueue, Events and token reviews say, as one line or one pod."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from builders import at
from selftaught.api.run import Metadata
from selftaught_operator.cluster import Cluster, pod_identity
from selftaught_operator.notes import Note
from selftaught_operator.progress import PodIdentity
from selftaught_operator.transport import JSON, ApiError, Object


class OneAnswer:
    """A Transport that answers everything alike, and keeps what it was asked."""

    def __init__(self, answer: Object | ApiError) -> None:
        self._answer = answer
        self.asked: list[tuple[str, str, Mapping[str, str], Object]] = []

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Object:
        self.asked.append((method, path, query or {}, body or {}))
        if isinstance(self._answer, ApiError):
            raise self._answer
        return self._answer


def a_workload(**conditions: tuple[str, str]) -> Object:
    told = [{"type": kind, "status": status, "message": message} for kind, (status, message) in conditions.items()]
    return {"items": [{"status": {"conditions": told}}]}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param({"items": []}, "no Kueue Workload for it", id="none"),
        pytest.param(ApiError(404, "NotFound", "no such resource"), "no Kueue Workload for it", id="no Kueue"),
        pytest.param(a_workload(), "Kueue has not decided yet", id="new"),
        pytest.param(
            a_workload(QuotaReserved=("False", "couldn't assign flavors: insufficient quota for nvidia.com/gpu")),
            "Kueue: couldn't assign flavors: insufficient quota",
            id="no quota",
        ),
        pytest.param(
            a_workload(QuotaReserved=("True", "reserved"), Admitted=("False", "waiting for checks: provisioning")),
            "Kueue: waiting for checks",
            id="a check",
        ),
        pytest.param(
            a_workload(Evicted=("True", "Preempted to accommodate a workload with higher priority")),
            "Kueue: Preempted",
            id="evicted",
        ),
        pytest.param(
            a_workload(QuotaReserved=("True", "reserved"), Evicted=("False", "Preempted an hour ago")),
            "Kueue has not decided yet",
            id="an eviction that is over is no reason",
        ),
    ],
)
def test_why_kueue_has_not_admitted_a_job(answer: Object | ApiError, words: str) -> None:
    transport = OneAnswer(answer)
    assert asyncio.run(Cluster(transport).queue_words("lab", "uid-1")).startswith(words)
    assert transport.asked[0][2] == {"labelSelector": "kueue.x-k8s.io/job-uid=uid-1"}


def an_event(message: str, **times: str | None) -> Object:
    return {"reason": "FailedCreate", "message": message, **times}


@pytest.mark.parametrize(
    ("events", "words"),
    [
        pytest.param([], "", id="none"),
        pytest.param([an_event("exceeded quota")], "FailedCreate: exceeded quota", id="one"),
        pytest.param(
            [
                an_event("new", lastTimestamp="2026-01-01T00:00:09Z"),
                an_event("old", lastTimestamp="2026-01-01T00:00:01Z"),
            ],
            "FailedCreate: new",
            id="the newest",
        ),
        pytest.param(
            [
                an_event("old", lastTimestamp="2026-01-01T00:00:01Z"),
                an_event("new", lastTimestamp=None, eventTime="2026-01-01T00:00:09.123456Z"),
            ],
            "FailedCreate: new",
            id="the newest, whatever form its time has",
        ),
    ],
)
def test_the_newest_warning_about_an_object(events: list[Object], words: str) -> None:
    transport = OneAnswer({"items": events})
    assert asyncio.run(Cluster(transport).warning("lab", "uid-1")) == words
    assert transport.asked[0][2]["fieldSelector"] == "involvedObject.uid=uid-1,type=Warning"


EXTRA = {
    "authentication.kubernetes.io/pod-name": ["demo-0"],
    "authentication.kubernetes.io/pod-uid": ["uid-pod"],
}


def a_review(**changes: Any) -> Object:
    user = {"username": "system:serviceaccount:lab:default", "extra": EXTRA} | changes.pop("user", {})
    return {"authenticated": True, "audiences": ["selftaught-progress"], "user": user, **changes}


def test_a_token_of_a_pod() -> None:
    assert pod_identity(a_review()) == PodIdentity("lab", "demo-0", "uid-pod")


@pytest.mark.parametrize(
    "review",
    [
        pytest.param({}, id="nothing"),
        pytest.param(a_review(authenticated=False), id="not authenticated"),
        pytest.param(a_review(audiences=["https://kubernetes.default.svc"]), id="for the API server"),
        pytest.param(a_review(audiences=[]), id="for nobody"),
        pytest.param(a_review(user={"username": "jane"}), id="a person"),
        pytest.param(a_review(user={"username": "x:system:serviceaccount:lab:default"}), id="a name that only ends so"),
        pytest.param(a_review(user={"username": "system:serviceaccount:"}), id="no account"),
        pytest.param(a_review(user={"extra": None}), id="of no pod"),
        pytest.param(a_review(user={"extra": EXTRA | {"authentication.kubernetes.io/pod-uid": []}}), id="no uid"),
    ],
)
def test_a_token_that_is_not_good_for_progress(review: Object) -> None:
    assert pod_identity(review) is None


def test_a_job_is_deleted_by_its_uid_and_waits_for_its_pods() -> None:
    transport = OneAnswer({})
    asyncio.run(Cluster(transport).delete_job("lab", "demo-i1-judge-a1", "uid-1"))
    ((method, path, _, body),) = transport.asked
    assert (method, path) == ("DELETE", "/apis/batch/v1/namespaces/lab/jobs/demo-i1-judge-a1")
    assert (body["propagationPolicy"], body["preconditions"]) == ("Foreground", {"uid": "uid-1"})


@pytest.mark.parametrize("status", [404, 409])
def test_a_job_that_is_gone_or_another_needs_no_deletion(status: int) -> None:
    asyncio.run(Cluster(OneAnswer(ApiError(status, "x", ""))).delete_job("lab", "demo", "uid-1"))


def test_events_of_the_same_words_at_other_times_are_others() -> None:
    transport = OneAnswer({})
    run, note = Metadata(name="demo", namespace="lab", uid="uid-run"), Note(True, "StageFailed", "x" * 2000)
    for seconds in (0, 0, 1):
        asyncio.run(Cluster(transport).emit(run, note, at(seconds)))
    first, second, third = (body for *_, body in transport.asked)
    assert first["metadata"]["name"] == second["metadata"]["name"] != third["metadata"]["name"]
    assert (first["type"], len(first["message"])) == ("Warning", 1024)
    assert first["involvedObject"]["uid"] == "uid-run"
