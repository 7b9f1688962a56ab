"""Approve, suspend, resume, retry."""

import pytest

from builders import a_manifest, at
from selftaught.loop.approvals import approvals_of
from selftaught.plugin.cluster import JsonObject, RefusedError
from selftaught.plugin.steering import approve, retry, set_suspended
from stub_cluster import RUNS, StubCluster, a_condition

PATH = f"{RUNS}/namespaces/lab/selftaughtruns/demo"


def a_cluster(user: str | None = "jane@example.org", meta: JsonObject | None = None, **status: object) -> StubCluster:
    raw = a_manifest()
    raw["metadata"] |= meta or {}
    raw["status"] = status
    return StubCluster(raw, user=user)


WAITING = [{"index": 1, "decision": "Promoted"}, {"index": 2, "decision": "AwaitingApproval"}]


@pytest.mark.parametrize(
    ("user", "reject", "by", "decision"),
    [
        pytest.param("jane@example.org", False, "jane@example.org", "Approved", id="as the cluster knows one"),
        pytest.param(None, True, "jd", "Rejected", id="as this machine does"),
    ],
)
def test_a_decision_becomes_an_annotation_that_the_operator_reads(
    user: str | None, reject: bool, by: str, decision: str
) -> None:
    cluster = a_cluster(user, iterations=WAITING)
    said = approve(cluster, "demo", 2, reject=reject, note="read 40", login="jd", now=at(5))
    ((path, body),) = cluster.patches
    approvals, problems = approvals_of(body["metadata"]["annotations"])
    assert path == PATH
    assert problems == ()
    assert [(a.iteration, a.decision, a.by, a.note, a.time) for a in approvals] == [(2, decision, by, "read 40", at(5))]
    assert said == (f"demo: iteration 2 {decision.lower()} by {by}",)


@pytest.mark.parametrize(
    ("iterations", "note", "message"),
    [
        pytest.param(WAITING, "", "--iteration 1: iteration 2 awaits approval in demo", id="another awaits it"),
        pytest.param([], "", "--iteration 1: nothing awaits approval in demo", id="none does"),
        pytest.param(
            [{"index": 1, "decision": "AwaitingApproval"}],
            "x" * 2000,
            "--note: string should have",
            id="an endless note",
        ),
    ],
)
def test_a_decision_that_cannot_count_is_refused(iterations: list[JsonObject], note: str, message: str) -> None:
    cluster = a_cluster(iterations=iterations)
    with pytest.raises(RefusedError, match=message):
        approve(cluster, "demo", 1, reject=False, note=note, login="jd", now=at(0))
    assert cluster.patches == []


@pytest.mark.parametrize(
    ("meta", "tool"),
    [
        pytest.param({}, None, id="by hand"),
        pytest.param({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "Argo CD", id="Argo CD"),
        pytest.param({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, "Flux", id="Flux"),
    ],
)
def test_suspending_warns_where_git_sets_it_back(meta: JsonObject, tool: str | None) -> None:
    cluster = a_cluster(meta=meta)
    said = set_suspended(cluster, "demo", suspend=True)
    assert cluster.patches == [(PATH, {"spec": {"suspend": True}})]
    warnings = [line.split(" applies")[0] for line in said[1:]]
    assert warnings == ([f"warning: {tool}"] if tool else [])


def test_what_is_so_already_is_not_set_again() -> None:
    cluster = a_cluster()
    assert set_suspended(cluster, "demo", suspend=False) == ("demo is not suspended",)
    assert cluster.patches == []


def test_a_run_that_only_a_newer_version_can_read_can_be_suspended() -> None:
    cluster = a_cluster(phase="Dreaming")
    set_suspended(cluster, "demo", suspend=True)
    assert cluster.patches == [(PATH, {"spec": {"suspend": True}})]


def test_retry_sets_the_annotation_to_the_time() -> None:
    cluster = a_cluster(conditions=[a_condition("Failed", reason="StageFailed")], phase="Failed")
    retry(cluster, "demo", now=at(5))
    wish = {"selftaught.dev/retry": "2026-01-01T00:00:05+00:00"}
    assert cluster.patches == [(PATH, {"metadata": {"annotations": wish}})]


def test_only_a_failed_run_is_retried() -> None:
    cluster = a_cluster(conditions=[a_condition("Failed", "False", reason="Running")], phase="Running")
    with pytest.raises(RefusedError, match=r"demo has not failed \(it is Running\)"):
        retry(cluster, "demo", now=at(5))
    assert cluster.patches == []


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        pytest.param(a_cluster(), "no run 'dmo' in namespace lab; known there: demo", id="others are there"),
        pytest.param(StubCluster(), "no run 'dmo' in namespace lab; none is there", id="none is there"),
    ],
)
def test_a_run_that_is_not_there_is_told_with_those_that_are(cluster: StubCluster, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        set_suspended(cluster, "dmo", suspend=True)


def test_a_cluster_without_the_resource_says_how_to_install_it() -> None:
    cluster = StubCluster()
    cluster.unknown.add("selftaughtruns")
    with pytest.raises(RefusedError, match=r"selftaught crd \| kubectl apply"):
        set_suspended(cluster, "demo", suspend=True)


@pytest.mark.parametrize("phase", ["Complete", "Failed"])
def test_a_run_that_has_ended_is_not_suspended(phase: str) -> None:
    cluster = a_cluster(phase=phase)
    with pytest.raises(RefusedError, match=f"demo is {phase}"):
        set_suspended(cluster, "demo", suspend=True)
    assert cluster.patches == []
