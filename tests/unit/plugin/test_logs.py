"""Logs of the stage at work, or of the last one."""

import pytest

from builders import a_manifest
from selftaught.api.run import SelfTaughtRun
from selftaught.plugin.cluster import JsonObject, RefusedError
from selftaught.plugin.logs import chosen_stage, log_lines
from selftaught.plugin.runs import read_run
from stub_cluster import StubCluster, a_pod

RUNNING = {"running": {"startedAt": "2026-01-01T00:01:00Z"}}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
JUDGE = "demo-i1-judge-a1"


def stage(name: str, state: str, job: str, minute: int) -> JsonObject:
    start = f"2026-01-01T00:{minute:02d}:00Z"
    return {"name": name, "state": state, "jobName": job, "attempts": 1, "startTime": start}


def a_run_at(judge: str = "Running") -> SelfTaughtRun:
    raw = a_manifest()
    raw["status"] = {
        "iterations": [
            {"index": 0, "stages": [stage("evaluate", "Succeeded", "demo-evaluate-a1", 1)]},
            {
                "index": 1,
                "stages": [stage("judge", judge, JUDGE, 5), {"name": "train", "state": "Pending"}],
            },
        ]
    }
    return read_run(raw).run


@pytest.mark.parametrize(
    ("judge", "name", "iteration", "job"),
    [
        pytest.param("Running", None, None, JUDGE, id="the one at work"),
        pytest.param("Succeeded", None, None, JUDGE, id="the last one"),
        pytest.param("Running", "evaluate", None, "demo-evaluate-a1", id="by stage"),
        pytest.param("Running", None, 0, "demo-evaluate-a1", id="by iteration"),
    ],
)
def test_which_stage_is_meant(judge: str, name: str | None, iteration: int | None, job: str) -> None:
    assert chosen_stage(a_run_at(judge), name, iteration).stage.job_name == job


def test_a_stage_that_has_not_started_is_told_with_those_that_have() -> None:
    with pytest.raises(
        RefusedError, match=r"has not started train of iteration 1 yet; .*: evaluate \(iteration 0\), judge"
    ):
        chosen_stage(a_run_at(), "train", 1)


def read(cluster: StubCluster, *, follow: bool = False, every: bool = False) -> tuple[list[str], list[str]]:
    said: list[str] = []
    run = a_run_at()
    place = chosen_stage(run, None, None)

    def pause(_: float) -> None:
        cluster.objects[:] = [a_pod(0, RUNNING, phase="Running")]

    lines = list(log_lines(cluster, run, place, follow=follow, every=every, say=said.append, pause=pause))
    return lines, said


def test_one_pod_is_read_a_running_one_first() -> None:
    cluster = StubCluster(a_pod(0, {"terminated": {}}, phase="Succeeded"), a_pod(1, RUNNING, phase="Running"))
    cluster.logs = {f"{JUDGE}-1-x": ["a", "b"]}
    lines, said = read(cluster)
    assert lines == ["a", "b"]
    assert said == ["iteration 1: judge: pod demo-i1-judge-a1-1-x, 1 of 2; --all-pods shows all"]
    assert cluster.streamed[0][1] == {"container": "stage"}


@pytest.mark.parametrize("follow", [False, True])
def test_lines_of_all_pods_bear_their_index(follow: bool) -> None:
    cluster = StubCluster(*(a_pod(index, RUNNING, phase="Running") for index in (1, 0)))
    cluster.logs = {f"{JUDGE}-{index}-x": [f"of {index}"] for index in (0, 1)}
    lines, _ = read(cluster, follow=follow, every=True)
    assert sorted(lines) == ["[0] of 0", "[1] of 1"]
    assert all(query.get("follow") == ("true" if follow else None) for _, query in cluster.streamed)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        pytest.param(
            StubCluster(a_pod(0, CREATING)), "has started yet; see: kubectl selftaught why demo", id="creating"
        ),
        pytest.param(StubCluster(), "has started yet", id="not created"),
    ],
)
def test_where_nothing_is_printed_yet_that_is_told(cluster: StubCluster, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        read(cluster)


def test_following_waits_for_the_first_pod() -> None:
    cluster = StubCluster()
    cluster.logs = {f"{JUDGE}-0-x": ["at last"]}
    lines, said = read(cluster, follow=True)
    assert lines == ["at last"]
    assert said[0].startswith("waiting for a pod of Job demo-i1-judge-a1")


def test_a_log_that_is_gone_with_its_pods_is_told() -> None:
    run = a_run_at("Succeeded")
    lines = log_lines(
        StubCluster(), run, chosen_stage(run, None, None), follow=True, every=False, say=print, pause=print
    )
    with pytest.raises(RefusedError, match="no pod of Job demo-i1-judge-a1 is left"):
        next(lines)
