"""Planned stages → Jobs, as golden files; and what no template of a user can change in them."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from builders import a_manifest, observed
from pod_security import violations
from selftaught.api.labels import CONFIG_ANNOTATION, KEY_ANNOTATION
from selftaught.api.results import Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.api.stage_config import StageConfig
from selftaught.errors import ManifestError
from selftaught.loop.configs import stage_config
from selftaught.loop.names import attempt_name
from selftaught.loop.placement import pods
from selftaught.loop.planner import PlannedStage
from selftaught_operator.jobs import folder_job, folder_job_name, pods_service, stage_job
from selftaught_operator.pods import MAX_CONFIG_BYTES
from selftaught_operator.settings import Settings

Object = dict[str, Any]
Golden = Callable[[str, str], None]

PLAIN = Settings(image="selftaught/worker:1")
PROGRESS = Settings(image="selftaught/worker:1", progress_host="selftaught-progress.selftaught-system.svc")
HUB = {"uri": "hf://meta-llama/Llama-3.1-70B-Instruct", "revision": "945c8663693130f8be2ee66210e062158b2a9693"}


def a_run(labels: dict[str, str] | None = None, name: str = "demo", **spec: Any) -> SelfTaughtRun:
    manifest = a_manifest(**spec)
    manifest["metadata"] |= {"name": name, "uid": "0b5f8a1e-9c1d-4d57-8f0e-1f2a3b4c5d6e", "labels": labels or {}}
    return SelfTaughtRun.model_validate(manifest)


def planned(run: SelfTaughtRun, stage: Stage, iteration: int = 1, attempt: int = 1) -> PlannedStage:
    name = attempt_name(run.metadata.name, stage, iteration, attempt)
    return PlannedStage(name, stage, iteration, attempt, "f" * 64)


def a_job(run: SelfTaughtRun, stage: Stage, settings: Settings = PLAIN) -> Object:
    iteration = FIRST[stage]
    config = stage_config(run, stage, iteration, 1, observed())
    return stage_job(run, planned(run, stage, iteration), config, settings)


FIRST = {stage: 0 if stage in (Stage.SELECT, Stage.GENERATE, Stage.EVALUATE) else 1 for stage in Stage}
"""The first iteration of each stage."""


def pod_of(job: Object) -> Object:
    pod: Object = job["spec"]["template"]
    return pod


def env_of(job: Object) -> dict[str, Any]:
    (container,) = pod_of(job)["spec"]["containers"]
    names = [each["name"] for each in container["env"]]
    assert len(names) == len(set(names)), "of two with one name the last would win"
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def as_yaml(*objects: Object) -> str:
    """The objects, the config within shortened: a test of its own reads it."""
    shown = copy.deepcopy(objects)
    for each in shown:
        annotations = each["spec"].get("template", {}).get("metadata", {}).get("annotations", {})
        if CONFIG_ANNOTATION in annotations:
            annotations[CONFIG_ANNOTATION] = "(the stage's config as JSON)"
    return yaml.safe_dump_all(shown, sort_keys=False, width=110)


JUDGE = {
    "shards": 4,
    "resources": {"limits": {"nvidia.com/gpu": 8, "memory": "900Gi"}, "requests": {"cpu": 32}},
    "serviceAccountName": "judges",
    "template": {
        "labels": {"team": "evaluation"},
        "annotations": {"example.com/cost-centre": "42"},
        "nodeSelector": {"node.kubernetes.io/instance-type": "p5.48xlarge"},
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "flaky", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
        "affinity": {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"team": "evaluation"}}}
                ]
            }
        },
        "priorityClassName": "batch",
        "schedulerName": "volcano",
        "runtimeClassName": "nvidia",
        "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
        "imagePullSecrets": ["registry"],
        "terminationGracePeriodSeconds": 300,
    },
}
QUEUE = {
    "kueue.x-k8s.io/queue-name": "team-a",
    "kueue.x-k8s.io/priority-class": "high",
    "example.com/own": "stays with the run",
}


def judge_job() -> Object:
    run = a_run(
        QUEUE,
        seed={"model": HUB, "tokenSecretRef": {"name": "hub-token"}},
        storage={"uri": "s3://evaluators/runs", "credentialsSecretRef": {"name": "s3-credentials"}},
        stages={"all": {"image": "registry.example.com/worker:2"}, "judge": JUDGE},
    )
    return a_job(run, Stage.JUDGE, PROGRESS)


def training_run() -> SelfTaughtRun:
    return a_run(
        training={"parallelism": {"nodes": 2, "processesPerNode": 8, "strategy": "FSDP"}},
        stages={"train": {"resources": {"limits": {"nvidia.com/gpu": 8}}}},
    )


def test_judging_in_shards_on_gpus(golden: Golden) -> None:
    golden("judge.yaml", as_yaml(judge_job()))


def test_training_on_two_nodes(golden: Golden) -> None:
    run = training_run()
    golden("train.yaml", as_yaml(pods_service(run), a_job(run, Stage.TRAIN, PROGRESS)))


def test_curating(golden: Golden) -> None:
    golden("curate.yaml", as_yaml(a_job(a_run(), Stage.CURATE)))


FOLDERS = ("pvc://artifacts/runs/lab/demo/i1-train/epoch-1", "pvc://artifacts/runs/lab/demo/i1-train/epoch-2")


def test_deleting_folders(golden: Golden) -> None:
    golden("prune.yaml", as_yaml(folder_job(a_run(), FOLDERS, PLAIN)))


EVERY_JOB = [
    pytest.param(judge_job(), id="judge"),
    pytest.param(a_job(training_run(), Stage.TRAIN, PROGRESS), id="train"),
    pytest.param(a_job(a_run(), Stage.CURATE), id="curate"),
    pytest.param(a_job(a_run(), Stage.EVALUATE), id="evaluate"),
    pytest.param(a_job(a_run(), Stage.SELECT), id="select"),
    pytest.param(a_job(a_run(), Stage.GENERATE), id="generate"),
    pytest.param(folder_job(a_run(), FOLDERS, PLAIN), id="prune"),
    pytest.param(a_job(a_run(), Stage.CURATE, Settings(image="x", user_id=None)), id="a cluster that chooses users"),
]


@pytest.mark.parametrize("job", EVERY_JOB)
def test_every_pod_is_admitted_by_pod_security_restricted(job: Object) -> None:
    assert violations(pod_of(job)["spec"]) == []


@pytest.mark.parametrize(
    ("where", "field", "value", "problem"),
    [
        ("container", "allowPrivilegeEscalation", True, "stage: allowPrivilegeEscalation"),
        ("container", "capabilities", {}, "stage: capabilities"),
        ("container", "capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}, "stage: capabilities"),
        ("container", "privileged", True, "stage: privileged"),
        ("pod", "runAsNonRoot", False, "stage: runAsNonRoot"),
        ("pod", "runAsUser", 0, "stage: runAsUser"),
        ("pod", "seccompProfile", {"type": "Unconfined"}, "stage: seccompProfile"),
    ],
)
def test_the_checker_sees_what_is_wrong(where: str, field: str, value: Any, problem: str) -> None:
    spec = copy.deepcopy(pod_of(judge_job())["spec"])
    (container,) = spec["containers"]
    (container if where == "container" else spec)["securityContext"][field] = value
    assert violations(spec) == [problem]
    spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    assert "volume host: hostPath" in violations(spec)


@pytest.mark.parametrize("job", EVERY_JOB)
def test_no_pod_has_a_token_of_the_cluster_or_a_writable_root(job: Object) -> None:
    spec = pod_of(job)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
    tokens = [
        source["serviceAccountToken"]["audience"]
        for volume in spec["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
    ]
    assert tokens in ([], ["selftaught-progress"])
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("stage", list(Stage))
def test_the_pod_is_told_its_config(stage: Stage) -> None:
    run = a_run()
    config = stage_config(run, stage, FIRST[stage], 1, observed())
    job = stage_job(run, planned(run, stage, FIRST[stage]), config, PLAIN)
    annotations = pod_of(job)["metadata"]["annotations"]
    assert TypeAdapter[StageConfig](StageConfig).validate_json(annotations[CONFIG_ANNOTATION]) == config
    assert annotations[KEY_ANNOTATION] == job["metadata"]["annotations"][KEY_ANNOTATION] == "f" * 64


OURS = env_of(a_job(training_run(), Stage.TRAIN, PROGRESS))
MAY_BE_SET = {"HOME", "OMP_WAIT_POLICY"}
"""Defaults that a run may have its own opinion about."""
NAMES = st.sampled_from([*OURS, "NCCL_DEBUG"]) | st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)


@given(st.lists(NAMES, max_size=20, unique=True))
def test_variables_of_a_run_never_replace_ours(names: list[str]) -> None:
    run = training_run().model_dump(mode="json", by_alias=True, exclude_none=True)
    env = [{"name": name, "value": "theirs"} for name in names]
    run["spec"]["stages"]["train"]["template"] = {"env": env}
    told = env_of(a_job(SelfTaughtRun.model_validate(run), Stage.TRAIN, PROGRESS))
    for name in OURS.keys() - MAY_BE_SET:
        assert told[name] == OURS[name]
    for name in set(names) - (OURS.keys() - MAY_BE_SET):
        assert told[name] == "theirs"


def test_a_run_cannot_tell_a_shard_that_it_is_another() -> None:
    """The Job controller leaves this variable alone where it is set."""
    template = {"env": [{"name": "JOB_COMPLETION_INDEX", "value": "0"}]}
    told = env_of(a_job(a_run(stages={"judge": {"shards": 2, "template": template}}), Stage.JUDGE))
    assert "job-completion-index" in told["JOB_COMPLETION_INDEX"]["fieldRef"]["fieldPath"]


@pytest.mark.parametrize("kind", ["labels", "annotations"])
@pytest.mark.parametrize("job", EVERY_JOB[:3])
def test_labels_and_annotations_of_a_run_never_replace_ours(kind: str, job: Object) -> None:
    stage = Stage(pod_of(job)["metadata"]["labels"]["selftaught.dev/stage"])
    ours = set(pod_of(job)["metadata"][kind])
    theirs = dict.fromkeys((*ours, "example.com/own"), "theirs")
    plain = pod_of(a_job(a_run(), stage))["metadata"][kind]
    merged = pod_of(a_job(a_run(stages={str(stage): {"template": {kind: theirs}}}), stage))["metadata"][kind]
    assert {name: merged[name] for name in plain} == plain
    assert merged["example.com/own"] == "theirs"


@pytest.mark.parametrize(
    ("stage", "spec", "rules"),
    [
        pytest.param(Stage.JUDGE, {}, {"backoffLimit": 0}, id="one pod: the planner starts it again"),
        pytest.param(
            Stage.JUDGE,
            {"stages": {"judge": {"shards": 3}}},
            {"backoffLimitPerIndex": 1, "completions": 3, "parallelism": 3},
            id="shards are started again by themselves",
        ),
        pytest.param(
            Stage.TRAIN,
            {"training": {"parallelism": {"nodes": 3}}, "stages": {"train": {"shards": 9}}},
            {"backoffLimit": 0, "completions": 3},
            id="nodes of a training fail together, and are no shards",
        ),
    ],
)
def test_who_is_started_again_by_whom(stage: Stage, spec: Object, rules: Object) -> None:
    given = a_job(a_run(**spec), stage)["spec"]
    assert {name: given[name] for name in rules} == rules
    assert len({"backoffLimit", "backoffLimitPerIndex"} & given.keys()) == 1


@pytest.mark.parametrize(
    ("stage", "disrupted"), [(Stage.JUDGE, "Ignore"), (Stage.EVALUATE, "Ignore"), (Stage.TRAIN, "FailJob")]
)
def test_what_ends_a_job_at_once(stage: Stage, disrupted: str) -> None:
    never, disruption, interruption = a_job(a_run(), stage)["spec"]["podFailurePolicy"]["rules"]
    assert (never["action"], never["onExitCodes"]["values"]) == ("FailJob", [64])
    assert (interruption["action"], interruption["onExitCodes"]["values"]) == (disrupted, [143])
    assert (disruption["action"], disruption["onPodConditions"][0]["type"]) == (disrupted, "DisruptionTarget")


def test_only_jobs_of_a_queue_begin_suspended() -> None:
    assert a_job(a_run(QUEUE), Stage.CURATE)["spec"]["suspend"] is True
    assert folder_job(a_run(QUEUE), FOLDERS, PLAIN)["spec"]["suspend"] is True
    assert "suspend" not in folder_job(a_run(), FOLDERS, PLAIN)["spec"]
    assert "suspend" not in a_job(a_run({"kueue.x-k8s.io/priority-class": "high"}), Stage.CURATE)["spec"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param({"seed": {"model": {"uri": "file:///models/seed"}}}, "use pvc://claim/path", id="file"),
        pytest.param(
            {"storage": {"uri": "file:///runs"}}, "file:///runs.*lies on one machine", id="storage on one machine"
        ),
    ],
)
def test_what_no_pod_can_reach(spec: Object, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        a_job(a_run(**spec), Stage.EVALUATE)


def test_a_uri_in_a_prompt_is_no_place_to_mount() -> None:
    run = a_run()
    config = stage_config(run, Stage.EVALUATE, 0, 1, observed())
    prompts = config.prompts.model_copy(update={"judge": "file:///etc pvc://other/x"})  # type: ignore[union-attr]
    job = stage_job(run, planned(run, Stage.EVALUATE, 0), config.model_copy(update={"prompts": prompts}), PLAIN)
    claims = [
        v["persistentVolumeClaim"]["claimName"] for v in pod_of(job)["spec"]["volumes"] if v["name"][:5] == "claim"
    ]
    assert claims == ["artifacts", "data", "models"]


def test_a_config_that_no_annotation_holds() -> None:
    run = a_run()
    config = stage_config(run, Stage.EVALUATE, 0, 1, observed())
    prompts = config.prompts.model_copy(update={"judge": "é" * (MAX_CONFIG_BYTES // 2)})  # type: ignore[union-attr]
    with pytest.raises(ManifestError, match="shorten the prompts"):
        stage_job(run, planned(run, Stage.EVALUATE, 0), config.model_copy(update={"prompts": prompts}), PLAIN)


def test_the_same_folders_are_deleted_by_one_job() -> None:
    run = a_run()
    assert folder_job_name(run, FOLDERS) == folder_job_name(run, FOLDERS)
    assert folder_job_name(run, FOLDERS) != folder_job_name(run, FOLDERS[:1])
    assert len(folder_job_name(a_run(name="a" * 40), FOLDERS)) <= 63


@pytest.mark.parametrize("attempt", [1, 99, 100, 9999])
@pytest.mark.parametrize("stage", list(Stage))
def test_names_of_pods_are_dns_labels(stage: Stage, attempt: int) -> None:
    """An Indexed Job whose last pod's host name is no DNS label is refused."""
    run = a_run(
        name="r" * 40, stages={str(stage): {"shards": 1024}}, training={"parallelism": {"nodes": 256}}, iterations=100
    )
    last = pods(run.spec, stage) - 1
    assert len(f"{planned(run, stage, 100, attempt).name}-{last}") <= 63
