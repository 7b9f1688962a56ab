"""Whole runs through real requests to a simulated API server, with an operator that dies at every single one."""

import asyncio
import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from builders import a_manifest
from selftaught.api.labels import KEY_ANNOTATION
from selftaught.api.reasons import RETRY_ANNOTATION
from selftaught_operator.memory import Memory
from selftaught_operator.transport import ApiError
from simulated_api_server import JOBS, PODS, RUN_KEY, SimulatedApiServer, SimulatedLab


def a_lab(**spec: Any) -> SimulatedLab:
    lab = SimulatedLab(SimulatedApiServer(), a_manifest(**spec))
    lab.apply()
    return lab


def settled(lab: SimulatedLab) -> SimulatedLab:
    asyncio.run(lab.settle())
    return lab


def one_pass(lab: SimulatedLab) -> None:
    asyncio.run(lab.reconcile())


def without_times(value: Any) -> Any:
    """A status without times: those differ when somebody dies on the way."""
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if "Time" not in key and "econds" not in key}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def test_a_run_goes_from_nothing_to_complete() -> None:
    lab = settled(a_lab())
    assert lab.condition("Complete") == "IterationsDone"
    assert lab.status["iteration"] == 2
    assert lab.server.started == [
        "demo-evaluate-a1",
        "demo-select-a1",
        "demo-generate-a1",
        *(f"demo-i{i}-{stage}-a1" for i in (1, 2) for stage in ("judge", "curate", "train", "evaluate")),
    ]
    assert len(lab.worked) == len(set(lab.worked)) == 11


def test_a_run_that_has_ended_costs_nothing() -> None:
    lab = settled(a_lab())
    before = len(lab.server.requests)
    for _ in range(5):
        assert asyncio.run(lab.reconcile()).rest  # type: ignore[union-attr]
    assert len(lab.server.requests) == before


def test_an_operator_that_starts_asks_nothing_about_a_run_that_is_over() -> None:
    lab = settled(a_lab(ttlSecondsAfterFinished=60))
    lab.memory = Memory()  # another operator
    before = len(lab.server.requests) + len(lab.server.reads)
    assert asyncio.run(lab.reconcile()).rest  # type: ignore[union-attr]
    assert len(lab.server.requests) + len(lab.server.reads) == before


def test_a_stage_costs_at_most_three_writes() -> None:
    lab = settled(a_lab())
    writes = [path for _, path in lab.server.requests if "/events" not in path]
    assert len(writes) <= 3 * len(lab.server.started)


WRITES = len(settled(a_lab()).server.requests)


@pytest.mark.parametrize("moment", range(2 * WRITES))
def test_killed_before_and_after_every_write_the_end_is_the_same(moment: int) -> None:
    unbroken, lab = settled(a_lab()), a_lab()
    lab.server.kill_at = moment
    settled(lab)
    assert without_times(lab.status) == without_times(unbroken.status)
    assert lab.server.started == unbroken.server.started
    assert lab.worked == unbroken.worked


@pytest.mark.parametrize("moment", range(0, 2 * WRITES, 5))
def test_deleting_every_job_of_a_run_in_the_middle_repeats_no_work(moment: int) -> None:
    lab = a_lab()
    lab.server.kill_at = moment
    for _ in range(moment // 8):
        one_pass(lab)
        for job in lab.alive():
            lab.finish(job)
    for key, _ in list(lab.server.of(JOBS)):
        lab.server.remove(key)
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"
    assert len(lab.worked) == len(set(lab.worked)) == 11
    assert lab.status.get("restartsCounted", 0) == 0


def test_deleting_every_child_of_a_finished_run_starts_nothing() -> None:
    lab = settled(a_lab())
    started = list(lab.server.started)
    for key, _ in list(lab.server.of(JOBS)):
        lab.server.remove(key)
    settled(lab)
    assert lab.server.started == started


def test_a_run_that_is_deleted_and_made_again_adopts_its_work() -> None:
    lab = settled(a_lab())
    lab.delete()
    lab.apply()
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"
    assert len(lab.worked) == 11


def test_what_an_earlier_run_left_is_deleted_before_anything_starts() -> None:
    lab = a_lab()
    one_pass(lab)
    (job,) = lab.alive()
    lab.run_pods(job)
    del lab.server.objects[RUN_KEY]  # its Jobs are orphans now
    lab.apply()
    one_pass(lab)
    assert "an earlier run" in lab.status["summary"]["reason"]
    assert lab.server.objects[f"{JOBS}/{job}"]["metadata"]["deletionTimestamp"]
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"


def a_workload(message: str) -> dict[str, Any]:
    """Kueue's, of a Job that is not admitted."""
    told = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": message}
    return {"kind": "Workload", "metadata": {"name": "job"}, "status": {"conditions": [told]}}


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
def test_a_preempted_job_waits_in_the_queue_and_kueues_words_are_told(version: str) -> None:
    lab = a_lab(stages={"evaluate": {"shards": 2}})
    lab.manifest["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team-a"}
    lab.server.put(RUN_KEY, copy.deepcopy(lab.manifest))
    one_pass(lab)
    (job,) = lab.alive()
    body = lab.server.objects[f"{JOBS}/{job}"]
    assert body["spec"]["suspend"]
    body["spec"]["suspend"] = False
    lab.run_pods(job)
    lab.server.now += timedelta(seconds=90)
    one_pass(lab)
    lab.end_pods(job, 0, "")  # one shard is done
    lab.server.remove(f"{PODS}/{job}-1")
    body["spec"]["suspend"] = True
    lab.server.put(
        f"/apis/kueue.x-k8s.io/{version}/namespaces/lab/workloads/job", a_workload("no quota, 2 more needed")
    )
    one_pass(lab)
    (queued,) = [each for each in lab.status["conditions"] if each["type"] == "Queued"]
    assert (queued["status"], queued["message"]) == ("True", "evaluate: Kueue: no quota, 2 more needed")
    assert lab.status["iterations"][0]["stages"][0]["activeSeconds"] == 60
    assert lab.status["usage"]["activeSeconds"] == 60


def test_suspending_stops_the_job_and_resuming_goes_on() -> None:
    lab = a_lab()
    one_pass(lab)
    (job,) = lab.alive()
    lab.run_pods(job)
    lab.manifest["spec"]["suspend"] = True
    lab.apply()
    one_pass(lab)
    assert not lab.condition("Suspended")
    one_pass(lab)
    assert not lab.condition("Suspended")
    lab.end_deletions()
    one_pass(lab)
    assert lab.condition("Suspended") == "Suspended"
    assert lab.alive() == []
    lab.manifest["spec"]["suspend"] = False
    lab.apply()
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"
    assert lab.status["restartsCounted"] == 0


def test_an_attempt_that_was_suspended_at_work_never_gives_its_name_to_another() -> None:
    lab = a_lab()
    one_pass(lab)
    (job,) = lab.alive()
    lab.run_pods(job)
    one_pass(lab)
    lab.manifest["spec"]["suspend"] = True
    lab.apply()
    one_pass(lab)
    for key, _ in lab.server.pods_of(job):  # the pods are gone a little before their Job
        del lab.server.objects[key]
    one_pass(lab)
    lab.end_deletions()
    one_pass(lab)
    lab.manifest["spec"]["suspend"] = False
    lab.apply()
    settled(lab)
    assert lab.server.started[:2] == ["demo-evaluate-a1", "demo-evaluate-a2"]


@pytest.mark.parametrize(
    ("break_it", "counted", "words"),
    [
        pytest.param(lambda lab, job: lab.fail(job), 1, "broken", id="a program error counts"),
        pytest.param(lambda lab, job: lab.fail(job, 137, reason="OOMKilled"), 1, "memory", id="out of memory counts"),
        pytest.param(lambda lab, job: lab.fail(job, 143), 0, "broken", id="interrupted is free"),
        pytest.param(lambda lab, job: lab.server.remove(f"{JOBS}/{job}"), 0, "", id="deleted by hand is free"),
    ],
)
def test_a_stage_that_fails_is_started_again(
    break_it: Callable[[SimulatedLab, str], None], counted: int, words: str
) -> None:
    lab = a_lab()
    one_pass(lab)
    (job,) = lab.alive()
    lab.run_pods(job)
    one_pass(lab)
    break_it(lab, job)
    one_pass(lab)
    assert words in str(lab.status)
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"
    assert lab.status["restartsCounted"] == counted
    assert lab.server.started[:2] == ["demo-evaluate-a1", "demo-evaluate-a2"]


def test_what_can_never_work_fails_at_once_and_a_retry_goes_on() -> None:
    lab = a_lab()
    one_pass(lab)
    lab.fail(lab.alive()[0], 64, "the seed has no chat template")
    settled(lab)
    assert lab.condition("Failed") == "Storage"
    assert "no chat template" in lab.status["summary"]["reason"]
    lab.manifest["metadata"]["annotations"] = {RETRY_ANNOTATION: "now"}
    lab.apply()
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"
    assert lab.condition("Failed") == ""


def test_a_start_that_the_cluster_refuses_is_told_and_tried_again() -> None:
    lab = a_lab()
    lab.server.refuse["POST jobs"] = ApiError(403, "Forbidden", "exceeded quota: count/jobs.batch=0")
    for _ in range(4):
        one_pass(lab)
    assert "exceeded quota" in lab.status["summary"]["reason"]
    writes = [request for request in lab.server.requests if request[0] == "PUT"]
    assert len(writes) == 2, "a refusal that stays the same is told once"
    lab.server.refuse.clear()
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"
    assert lab.server.started[0] == "demo-evaluate-a1"


def test_a_result_that_is_lost_with_its_pods_is_asked_for_again() -> None:
    lab = a_lab()
    one_pass(lab)
    (job,) = lab.alive()
    lab.finish(job)
    for key, _ in list(lab.server.of(PODS)):
        del lab.server.objects[key]
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"
    assert lab.server.started[:2] == ["demo-evaluate-a1", "demo-evaluate-a2"]
    assert len(lab.worked) == 11
    assert lab.status["restartsCounted"] == 0


def test_a_job_of_somebody_else_with_the_same_name_is_told_and_left_alone() -> None:
    lab = a_lab()
    stranger = {"kind": "Job", "metadata": {"name": "demo-evaluate-a1", "labels": {}}, "spec": {"template": {}}}
    path = f"{JOBS}/demo-evaluate-a1"
    lab.server.put(path, stranger)
    for _ in range(3):
        one_pass(lab)
    assert "a Job of that name exists" in lab.status["summary"]["reason"]
    del lab.server.objects[path]
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"


def test_a_job_that_cannot_begin_is_made_again_when_its_image_is_corrected() -> None:
    lab = a_lab(stages={"all": {"image": "no/such:image"}})
    one_pass(lab)
    one_pass(lab)
    (job,) = lab.alive()
    lab.manifest["spec"]["stages"] = {"all": {"image": "there:is"}}
    lab.apply()
    one_pass(lab)
    lab.end_deletions()
    one_pass(lab)
    assert lab.alive() == [job]
    template = lab.server.objects[f"{JOBS}/{job}"]["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == "there:is"
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"
    assert (lab.status["restarts"], lab.status["restartsCounted"]) == (0, 0)


def test_a_job_at_work_is_left_alone_when_the_template_changes() -> None:
    lab = a_lab()
    one_pass(lab)
    (job,) = lab.alive()
    lab.run_pods(job)
    lab.manifest["spec"]["stages"] = {"all": {"image": "another:image"}}
    lab.apply()
    one_pass(lab)
    assert "deletionTimestamp" not in lab.server.objects[f"{JOBS}/{job}"]["metadata"]


def test_pods_that_outlive_their_job_are_waited_for() -> None:
    lab = a_lab()
    one_pass(lab)
    (job,) = lab.alive()
    lab.run_pods(job)
    one_pass(lab)
    del lab.server.objects[f"{JOBS}/{job}"]
    for _ in range(3):
        one_pass(lab)
    assert lab.server.started == [job]
    for key, _ in list(lab.server.of(PODS)):
        del lab.server.objects[key]
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"


def test_old_checkpoints_are_deleted_by_a_job_and_told() -> None:
    lab = settled(a_lab(iterations=4, storage={"uri": "pvc://artifacts/runs", "checkpoints": {"last": 1}}))
    cleaners = [name for name in lab.server.started if "-prune-" in name]
    assert cleaners
    pruned = [each["index"] for each in lab.status["iterations"] if (each.get("checkpoint") or {}).get("pruned")]
    assert pruned


def test_jobs_are_deleted_when_their_time_is_over_and_nothing_starts_again() -> None:
    lab = settled(a_lab(ttlSecondsAfterFinished=3600))
    assert list(lab.server.of(JOBS)) == []
    started = len(lab.server.started)
    settled(lab)
    assert len(lab.server.started) == started
    assert lab.condition("Complete") == "IterationsDone"


def test_prompts_are_frozen_when_the_run_is_first_seen() -> None:
    lab = a_lab(prompts={"configMapRef": {"name": "own"}})
    one_pass(lab)
    assert lab.status["summary"]["reason"].startswith("PromptsUnusable: there is no ConfigMap own")
    assert lab.server.started == []
    template = "Answer this: {{instruction}}"
    path = "/api/v1/namespaces/lab/configmaps/own"
    lab.server.put(path, {"kind": "ConfigMap", "metadata": {"name": "own"}, "data": {"respond.txt": template}})
    one_pass(lab)
    key = lab.server.objects[f"{JOBS}/demo-evaluate-a1"]["metadata"]["annotations"][KEY_ANNOTATION]
    lab.server.objects[path]["data"]["respond.txt"] = "Another: {{instruction}}"
    lab.memory = type(lab.memory)()  # another operator
    settled(lab)
    assert key in lab.worked
    assert lab.condition("Complete") == "IterationsDone"


def test_a_spec_that_cannot_be_read_is_told_and_goes_on_when_mended() -> None:
    lab = a_lab()
    lab.manifest["spec"]["iterations"] = "many"
    lab.apply()
    one_pass(lab)
    assert lab.condition("Failed") == "InvalidSpec"
    lab.manifest["spec"]["iterations"] = 2
    lab.apply()
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"seed": {"model": {"uri": "file:///models/seed"}}}, id="of the first stage"),
        pytest.param(
            {"instructions": {"sources": [{"name": "chat", "uri": "file:///chat.jsonl"}]}}, id="of a later one"
        ),
    ],
)
def test_a_file_uri_ends_the_run_with_advice(spec: dict[str, Any]) -> None:
    lab = settled(a_lab(**spec))
    assert lab.condition("Failed") == "InvalidSpec"
    assert "pvc://" in lab.status["summary"]["reason"]
    assert lab.server.started == []


def test_a_conflict_with_the_quota_is_no_sign_that_the_job_exists() -> None:
    lab = a_lab()
    words = 'Operation cannot be fulfilled on resourcequotas "team": the object has been modified'
    lab.server.refuse["POST jobs"] = ApiError(409, "Conflict", words)
    with pytest.raises(ApiError, match="resourcequotas"):
        one_pass(lab)
    lab.server.refuse.clear()
    settled(lab)
    assert lab.condition("Complete") == "IterationsDone"
    assert lab.server.started[0] == "demo-evaluate-a1"


def test_a_namespace_is_prepared_for_progress_also_if_its_pods_are_at_work_already() -> None:
    """Another replica has another certificate authority: pods that it finds must get to know it."""
    lab = a_lab()
    one_pass(lab)
    (job,) = lab.alive()
    lab.run_pods(job)
    prepared: list[str] = []

    async def prepare(namespace: str) -> None:
        prepared.append(namespace)

    asyncio.run(lab.another_operator(prepare))
    assert prepared == ["lab"]


@pytest.mark.parametrize("status", [403, 500, 0])
def test_a_namespace_that_cannot_be_prepared_for_progress_holds_nothing_up(status: int) -> None:
    lab = a_lab()

    async def prepare(namespace: str) -> None:
        raise ApiError(status, "Forbidden", "exceeded quota: count/configmaps=0")

    asyncio.run(lab.another_operator(prepare))
    assert lab.server.started == ["demo-evaluate-a1"]
