"""A planned stage → the objects that carry it out. Pure, and the only place that knows their form."""

import hashlib
import json
from typing import Any

from selftaught.api.base import API_VERSION, KIND
from selftaught.api.labels import (
    ATTEMPT_LABEL,
    FOLDERS_ANNOTATION,
    ITERATION_LABEL,
    KEY_ANNOTATION,
    QUEUE_LABEL,
    QUEUE_LABELS,
    RUN_LABEL,
    RUN_UID_LABEL,
    STAGE_LABEL,
    TEMPLATE_ANNOTATION,
)
from selftaught.api.results import Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.api.stage_config import StageConfig
from selftaught.errors import INTERRUPTED_EXIT_CODE, PERMANENT_EXIT_CODE
from selftaught.loop.names import shortened
from selftaught.loop.placement import pods
from selftaught.loop.planner import PlannedStage
from selftaught_operator.facts import FailureRule
from selftaught_operator.pods import folder_pod, service_name, stage_pod
from selftaught_operator.settings import Settings

Object = dict[str, Any]
"""An object as the API server takes it."""

RETRIES_OF_A_SHARD = 1
"""How often one shard of several is started again within its Job, while the others go on."""
RETRIES_OF_DELETION = 5
MANAGED_BY = "selftaught-operator"


def stage_job(run: SelfTaughtRun, planned: PlannedStage, config: StageConfig, settings: Settings) -> Object:
    """The Job of an attempt at a stage.

    One pod, or one per shard (each retried by itself), or one per node of a training, which fail together. A pod
    that was disrupted or told to stop is replaced for free; in a training it ends the attempt, since the others wait
    for it in vain.
    Raises ManifestError for what cannot run on a cluster.
    """
    width = pods(run.spec, planned.stage)
    together = planned.stage is Stage.TRAIN
    stopped = "FailJob" if together else "Ignore"
    rules: dict[FailureRule, Object] = {
        FailureRule.PERMANENT: {"action": "FailJob", **exit_code(PERMANENT_EXIT_CODE)},
        FailureRule.DISRUPTED: {
            "action": stopped,
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        FailureRule.INTERRUPTED: {"action": stopped, **exit_code(INTERRUPTED_EXIT_CODE)},
    }
    spec: Object = {
        "completionMode": "Indexed",
        "completions": width,
        "parallelism": width,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [rules[place] for place in FailureRule]},
        "template": stage_pod(run, planned, config, settings, stage_labels(run, planned)),
    }
    if width > 1 and not together:
        spec["backoffLimitPerIndex"] = RETRIES_OF_A_SHARD
    else:
        spec["backoffLimit"] = 0
    annotations = {KEY_ANNOTATION: planned.key, TEMPLATE_ANNOTATION: template_hash(spec["template"])}
    return job(run, planned.name, stage_labels(run, planned), annotations, spec)


def template_hash(template: Object) -> str:
    """Hash of where and how pods run, without what they are told."""
    return hashlib.sha256(json.dumps(template["spec"], sort_keys=True).encode()).hexdigest()[:16]


def exit_code(code: int) -> Object:
    """A failure rule's condition on how the container ended."""
    return {"onExitCodes": {"operator": "In", "values": [code]}}


def folder_job(run: SelfTaughtRun, folders: tuple[str, ...], settings: Settings) -> Object:
    """The Job that deletes folders of checkpoints."""
    labels = run_labels(run, "prune")
    spec: Object = {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": RETRIES_OF_DELETION,
        "template": folder_pod(run, folders, settings, labels),
    }
    return job(run, folder_job_name(run, folders), labels, {FOLDERS_ANNOTATION: "\n".join(folders)}, spec)


def folder_job_name(run: SelfTaughtRun, folders: tuple[str, ...]) -> str:
    """Deterministic, so that the same folders are deleted by one Job."""
    digest = hashlib.sha256("\n".join(folders).encode()).hexdigest()[:8]
    return shortened(f"{run.metadata.name}-prune-{digest}")


def pods_service(run: SelfTaughtRun) -> Object:
    """The headless Service by which pods of one training find each other."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(run, service_name(run), run_labels(run, "train")),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {RUN_UID_LABEL: run.metadata.uid, STAGE_LABEL: str(Stage.TRAIN)},
        },
    }


def job(run: SelfTaughtRun, name: str, labels: dict[str, str], annotations: dict[str, str], spec: Object) -> Object:
    """A Job that the run owns, with the run's queue."""
    queue = {name: value for name in QUEUE_LABELS if (value := run.metadata.labels.get(name))}
    meta = metadata(run, name, labels | queue) | {"annotations": annotations}
    if QUEUE_LABEL in queue:
        spec = spec | {"suspend": True}  # Kueue admits it; without this it could run before Kueue has seen it
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}


def metadata(run: SelfTaughtRun, name: str, labels: dict[str, str]) -> Object:
    """Metadata of an object that is deleted with its run."""
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": run.metadata.name,
        "uid": run.metadata.uid,
        "controller": True,
    }
    return {"name": name, "namespace": run.metadata.namespace, "labels": labels, "ownerReferences": [owner]}


def stage_labels(run: SelfTaughtRun, planned: PlannedStage) -> dict[str, str]:
    """Labels of a Job and of its pods."""
    return run_labels(run, str(planned.stage)) | {
        STAGE_LABEL: str(planned.stage),
        ITERATION_LABEL: str(planned.iteration),
        ATTEMPT_LABEL: str(planned.attempt),
    }


def run_labels(run: SelfTaughtRun, component: str) -> dict[str, str]:
    """Labels of all that a run owns."""
    return {
        "app.kubernetes.io/name": "selftaught",
        "app.kubernetes.io/instance": run.metadata.name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": MANAGED_BY,
        RUN_LABEL: run.metadata.name,
        RUN_UID_LABEL: run.metadata.uid,
    }
