"""The pods of a run: its curated template merged with what the operator insists on (Pod Security `restricted`)."""

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import JsonValue

from selftaught.api.labels import CONFIG_ANNOTATION, JOB_INDEX_ANNOTATION, KEY_ANNOTATION
from selftaught.api.placement import PodTemplate, StageSettings
from selftaught.api.references import Judge
from selftaught.api.results import Stage
from selftaught.api.run import SelfTaughtRun
from selftaught.api.stage_config import StageConfig
from selftaught.errors import ManifestError
from selftaught.loop.placement import stage_settings
from selftaught.loop.planner import PlannedStage
from selftaught_operator.settings import Settings

Object = dict[str, Any]

CONTAINER = "stage"
CONFIG_FOLDER = "/etc/selftaught"
VOLUMES = "/volumes"
CACHE = "/cache"
TERMINATION_LOG = "/dev/termination-log"
PROGRESS_FOLDER = "/var/run/selftaught/progress"
TOKEN_FOLDER = "/var/run/selftaught/token"
AUDIENCE = "selftaught-progress"
TOKEN_SECONDS = 3600
CA_CONFIG_MAP = "selftaught-progress-ca"
CA_KEY = "ca.crt"
MAX_CONFIG_BYTES = 200_000
"""An object's annotations may have 256 KiB in all."""


def stage_pod(
    run: SelfTaughtRun, planned: PlannedStage, config: StageConfig, settings: Settings, labels: dict[str, str]
) -> Object:
    """The pod template of an attempt. Its config travels in an annotation, which the pod reads as a file.

    Raises ManifestError for a URI that no pod can reach, or a config that is too large.
    """
    chosen = stage_settings(run.spec, planned.stage)
    text = config.model_dump_json(exclude_none=True)
    if len(text.encode()) > MAX_CONFIG_BYTES:
        raise ManifestError(f"the config of {planned.name} has more than {MAX_CONFIG_BYTES} bytes; shorten the prompts")
    shown = config.model_dump(mode="json", exclude={"prompts"})
    claims = claims_of(strings(shown))
    command = ["selftaught", "stage", str(planned.stage), "--config", f"{CONFIG_FOLDER}/config.json"]
    env = environment(run, planned, settings)
    annotations = {CONFIG_ANNOTATION: text, KEY_ANNOTATION: planned.key}
    pod = base_pod(chosen, settings, command=command, env=env, claims=claims, labels=labels, annotations=annotations)
    spec = pod["spec"]
    downward = {"path": "config.json", "fieldRef": {"fieldPath": f"metadata.annotations['{CONFIG_ANNOTATION}']"}}
    add_volume(spec, "config", {"downwardAPI": {"items": [downward]}}, CONFIG_FOLDER, read_only=True)
    if settings.progress_host:
        add_progress(spec)
    add_credentials(spec, run)
    if planned.stage is Stage.TRAIN and run.spec.training.parallelism.nodes > 1:
        spec["subdomain"] = service_name(run)
    return pod


def folder_pod(run: SelfTaughtRun, folders: tuple[str, ...], settings: Settings, labels: dict[str, str]) -> Object:
    """The pod that deletes folders, with the settings of a stage that needs no GPU."""
    chosen = stage_settings(run.spec, Stage.CURATE)
    command = ["selftaught", "prune", *folders]
    pod = base_pod(chosen, settings, command=command, env={}, claims=claims_of(folders), labels=labels, annotations={})
    add_credentials(pod["spec"], run)
    return pod


def base_pod(
    chosen: StageSettings,
    settings: Settings,
    *,
    command: list[str],
    env: Object,
    claims: tuple[str, ...],
    labels: dict[str, str],
    annotations: dict[str, str],
) -> Object:
    """A pod template that `restricted` Pod Security admits."""
    template = chosen.template or PodTemplate()
    variables = {
        "HOME": "/tmp",
        # Threads that spin while they wait take the cores from the others.
        "OMP_WAIT_POLICY": "PASSIVE",
        **{variable.name: variable.value for variable in template.env},
        "SELFTAUGHT_VOLUMES": VOLUMES,
        "SELFTAUGHT_CACHE": CACHE,
        "SELFTAUGHT_TERMINATION_LOG": TERMINATION_LOG,
        **env,
    }
    container: Object = {
        "name": CONTAINER,
        "image": chosen.image or settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": command,
        "env": [variable(name, value) for name, value in variables.items()],
        "resources": resources(chosen),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [],
    }
    spec: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": template.termination_grace_period_seconds,
        "securityContext": pod_security(settings),
        "containers": [container],
        "volumes": [],
        **scheduling(chosen, template),
    }
    add_volume(spec, "tmp", {"emptyDir": {}}, "/tmp")
    add_volume(spec, "cache", {"emptyDir": {}}, CACHE)
    add_volume(spec, "shm", {"emptyDir": {"medium": "Memory"}}, "/dev/shm")
    for number, claim in enumerate(claims):
        add_volume(spec, f"claim-{number}", {"persistentVolumeClaim": {"claimName": claim}}, f"{VOLUMES}/{claim}")
    meta = {"labels": template.labels | labels, "annotations": template.annotations | annotations}
    return {"metadata": meta, "spec": spec}


def pod_security(settings: Settings) -> Object:
    """Never root; volumes are given to the pod's group."""
    security: Object = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if settings.user_id is not None:
        group = settings.user_id
        security |= {"runAsUser": settings.user_id, "runAsGroup": group, "fsGroup": group}
        security["fsGroupChangePolicy"] = "OnRootMismatch"
    return security


def scheduling(chosen: StageSettings, template: PodTemplate) -> Object:
    """Where the pod runs, from the run's template; what it leaves out stays out."""
    given: Object = {
        "serviceAccountName": chosen.service_account_name,
        "nodeSelector": template.node_selector,
        "tolerations": [each.model_dump(mode="json", exclude_none=True) for each in template.tolerations],
        "affinity": template.affinity,
        "priorityClassName": template.priority_class_name,
        "schedulerName": template.scheduler_name,
        "runtimeClassName": template.runtime_class_name,
        "imagePullSecrets": [{"name": name} for name in template.image_pull_secrets],
    }
    return {name: value for name, value in given.items() if value}


def environment(run: SelfTaughtRun, planned: PlannedStage, settings: Settings) -> Object:
    """Variables of a stage: tokens by reference to their Secrets, where to tell progress, who is the first node."""
    # Set by the Job controller too, unless the run's template has set it to something else.
    index = {"fieldPath": f"metadata.annotations['{JOB_INDEX_ANNOTATION}']"}
    env: Object = {"JOB_COMPLETION_INDEX": {"fieldRef": index}}
    if (token := token_of(run, planned.stage)) is not None and token.token_secret_ref is not None:
        secret = token.token_secret_ref
        env["HF_TOKEN"] = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
    if planned.stage is Stage.TRAIN and run.spec.training.parallelism.nodes > 1:
        service = f"{service_name(run)}.{run.metadata.namespace}.svc.{settings.cluster_domain}"
        env["MASTER_ADDR"] = f"{planned.name}-0.{service}"
    if settings.progress_host:
        env["KUBEFLOW_TRAINER_SERVER_URL"] = f"https://{settings.progress_host}:{settings.progress_port}/progress"
        env["KUBEFLOW_TRAINER_SERVER_CA_CERT"] = f"{PROGRESS_FOLDER}/{CA_KEY}"
        env["KUBEFLOW_TRAINER_SERVER_TOKEN"] = f"{TOKEN_FOLDER}/token"
    return env


def token_of(run: SelfTaughtRun, stage: Stage) -> Judge | None:
    """The model whose access token a stage needs."""
    if stage in (Stage.SELECT, Stage.GENERATE):
        return run.spec.generator or run.spec.seed
    return None if stage is Stage.CURATE else run.spec.seed


def variable(name: str, value: str | Object) -> Object:
    """An environment variable."""
    return {"name": name, "value": value} if isinstance(value, str) else {"name": name, "valueFrom": value}


def resources(chosen: StageSettings) -> Object:
    """Compute resources; quantities are strings."""
    if chosen.resources is None:
        return {}
    given = {"limits": chosen.resources.limits, "requests": chosen.resources.requests}
    return {kind: {name: str(amount) for name, amount in amounts.items()} for kind, amounts in given.items() if amounts}


def add_volume(spec: Object, name: str, source: Object, path: str, *, read_only: bool = False) -> None:
    """Mount a volume into the container."""
    spec["volumes"].append({"name": name, **source})
    mount: Object = {"name": name, "mountPath": path}
    spec["containers"][0]["volumeMounts"].append(mount | ({"readOnly": True} if read_only else {}))


def service_name(run: SelfTaughtRun) -> str:
    """Name of the headless Service by which pods of a training find each other."""
    return f"{run.metadata.name}-train"


def add_credentials(spec: Object, run: SelfTaughtRun) -> None:
    """The keys of the object store, by reference to their Secret."""
    secret = run.spec.storage.credentials_secret_ref
    if secret is not None:
        spec["containers"][0]["envFrom"] = [{"secretRef": {"name": secret.name}}]


def add_progress(spec: Object) -> None:
    """What a pod needs to tell its progress: a token for that alone, and the operator's certificate authority."""
    token = {"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}}
    add_volume(spec, "progress-token", {"projected": {"sources": [token]}}, TOKEN_FOLDER, read_only=True)
    authority = {"configMap": {"name": CA_CONFIG_MAP, "optional": True}}
    add_volume(spec, "progress-ca", authority, PROGRESS_FOLDER, read_only=True)


def claims_of(uris: Iterable[str]) -> tuple[str, ...]:
    """The claims that URIs name, sorted. Raises ManifestError for a file:// URI."""
    found = set()
    for uri in uris:
        if uri.startswith("file://"):
            raise ManifestError(
                f"{uri}: file:// lies on one machine; on a cluster use pvc://claim/path, s3:// or hf://"
            )
        if uri.startswith("pvc://"):
            found.add(uri.removeprefix("pvc://").split("/", 1)[0])
    return tuple(sorted(found))


def strings(value: JsonValue) -> Iterator[str]:
    """All strings in a JSON value."""
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from strings(item)
        case dict():
            for item in value.values():
                yield from strings(item)
