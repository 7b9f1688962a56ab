"""Installs Kueue on the running cluster, from the manifests of its own Go module: `python -m hack.cluster kueue`.

It is as users have it, except: its program lies on the host; only Jobs with a queue are its concern; its webhooks for
Jobs are asked only in namespaces with the label MANAGED, so that a Kueue that is down harms nobody else.
"""

import base64
import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from hack.cluster import binaries, certificates
from hack.cluster.errors import ClusterError
from hack.cluster.layout import Layout

Object = dict[str, Any]

MODULE = "sigs.k8s.io/kueue"
NAMESPACE = "kueue-system"
DEPLOYMENT = "kueue-controller-manager"
SERVICE = "kueue-webhook-service"
SECRET = "kueue-webhook-server-cert"
METRICS_CERTIFICATES = "/etc/kueue/metrics/certs"
"""Needed even without metrics, by a Kueue that does not make its own."""
MANAGED = "selftaught.dev/kueue"
IMAGE = "selftaught/worker:dev"
"""Any that can be pulled: the program is static and is mounted."""

OWN_WEBHOOKS = ("clusterqueue", "cohort", "resourceflavor", "workload")

CONFIG = {
    "apiVersion": "config.kueue.x-k8s.io/v1beta1",
    "kind": "Configuration",
    "health": {"healthProbeBindAddress": ":8081"},
    "metrics": {"bindAddress": "0"},
    "webhook": {"port": 9443},
    "leaderElection": {"leaderElect": False},
    "clientConnection": {"qps": 100, "burst": 200},
    "internalCertManagement": {"enable": False},
    "manageJobsWithoutQueueName": False,
    "integrations": {"frameworks": ["batch/job"]},
}

Kubectl = Callable[..., str]
"""Arguments, and `stdin` → what it printed."""


def install(place: Layout, group: binaries.Group, kubectl: Kubectl) -> None:
    """Apply everything and wait until its webhooks answer. Raises ClusterError."""
    module = module_folder(group)
    rendered = kubectl("kustomize", str(module / "config" / "default"))
    authority, certificate, key = webhook_certificate(place)
    objects = [
        *adapted(yaml.load_all(rendered, yaml.CSafeLoader), str(binaries.built(group) / "kueue"), authority),
        secret(certificate, key),
    ]
    apply = ("apply", "--server-side", "--force-conflicts", "--filename=-")
    kubectl(*apply, stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    kubectl("rollout", "status", f"--namespace={NAMESPACE}", f"deployment/{DEPLOYMENT}", "--timeout=120s")


def is_installed(kubectl: Kubectl) -> bool:
    """Whether it works already."""
    found = kubectl("get", "deployment", f"--namespace={NAMESPACE}", "--ignore-not-found", "--output=json", DEPLOYMENT)
    return bool(found) and json.loads(found)["status"].get("availableReplicas", 0) > 0


def module_folder(group: binaries.Group) -> Path:
    """Where Go keeps the module's files; downloads them if the program came from the cache alone."""
    command = ["go", "mod", "download", "-json", MODULE]
    try:
        done = subprocess.run(command, cwd=group.folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ClusterError("no `go` on the PATH: install Go 1.26 or newer") from error
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` in {group.folder} failed: {done.stderr.strip()}")
    return Path(json.loads(done.stdout)["Dir"])


def webhook_certificate(place: Layout) -> tuple[bytes, bytes, bytes]:
    """Authority, certificate and key: Kueue could make its own, but would wait a minute to see them."""
    now, folder = datetime.now(UTC), place.certificates
    authority = certificates.authority(folder, "kueue-authority", now)
    certificates.issue(authority, folder, "kueue", now, common_name=SERVICE, hosts=(f"{SERVICE}.{NAMESPACE}.svc",))
    names = ("kueue-authority.crt", "kueue.crt", "kueue.key")
    ca, certificate, key = ((folder / name).read_bytes() for name in names)
    return ca, certificate, key


def secret(certificate: bytes, key: bytes) -> Object:
    """What the webhooks' server reads."""
    data = {"tls.crt": encoded(certificate), "tls.key": encoded(key)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": NAMESPACE}, "data": data}


def adapted(objects: Iterable[Object], program: str, authority: bytes) -> Iterator[Object]:
    """The objects as this cluster takes them."""
    for body in objects:
        match body["kind"]:
            case "APIService":
                continue  # without its server, no namespace could be deleted
            case "Secret":
                continue  # an empty one
            case "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration":
                body["webhooks"] = [each for each in body["webhooks"] if confine(each)]
                for webhook in body["webhooks"]:
                    webhook["clientConfig"]["caBundle"] = encoded(authority)
            case "ConfigMap":
                body["data"] = {"controller_manager_config.yaml": json.dumps(CONFIG)}
            case "Deployment":
                use_program(body["spec"]["template"]["spec"], program)
        yield body


def confine(webhook: Object) -> bool:
    """Whether a webhook is wanted; one for Jobs is confined to namespaces that ask for it."""
    kind = webhook["name"].partition(".")[0][1:]  # mjob.kb.io, vjob.kb.io
    if kind == "job":
        webhook["namespaceSelector"] = {"matchExpressions": [{"key": MANAGED, "operator": "Exists"}]}
    return kind == "job" or kind in OWN_WEBHOOKS


def use_program(pod: Object, program: str) -> None:
    """Run the host's program, and leave the machine's processors to others."""
    (container,) = pod["containers"]
    container["image"], container["imagePullPolicy"] = IMAGE, "IfNotPresent"
    container["args"] += ["--feature-gates=VisibilityOnDemand=false"]
    container["resources"] = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    container["readinessProbe"] |= {"initialDelaySeconds": 0, "periodSeconds": 1}
    container["volumeMounts"] += [
        {"name": "program", "mountPath": container["command"][0], "readOnly": True},
        {"name": "cert", "mountPath": METRICS_CERTIFICATES, "readOnly": True},
    ]
    pod["volumes"].append({"name": "program", "hostPath": {"path": program, "type": "File"}})


def encoded(content: bytes) -> str:
    """As JSON carries bytes."""
    return base64.b64encode(content).decode("ascii")
