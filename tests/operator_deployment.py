"""The operator as users install it, but for one namespace of a test: pods of a Deployment, rights in that namespace."""

from typing import Any

import yaml

from real_cluster import ROOT, Cluster
from selftaught_operator.rbac import NAME, NAMESPACE

DEPLOY = ROOT / "manifests/deploy"
RESOURCE = ROOT / "manifests/crd/selftaughtruns.yaml"


def install_resource(cluster: Cluster) -> None:
    """The resource definition, which all namespaces share."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={RESOURCE}")
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/selftaughtruns.selftaught.dev")


def deploy(cluster: Cluster, namespace: str) -> None:
    """Install everything for one namespace, and wait until it is ready."""
    install_resource(cluster)
    objects = [
        confined(document, namespace)
        for file in ("rbac.yaml", "operator.yaml")
        for document in yaml.safe_load_all((DEPLOY / file).read_text())
    ]
    cluster.apply(namespace, yaml.safe_dump_all(objects))
    cluster.kubectl(
        "rollout", "status", f"--namespace={namespace}", f"deployment/{NAME}", "--timeout=180s", timeout=200
    )


def undeploy(cluster: Cluster, namespace: str) -> None:
    """Delete what lies outside the namespace."""
    for kind in ("clusterrolebinding", "clusterrole"):
        cluster.kubectl("delete", kind, f"{NAME}-{namespace}", "--ignore-not-found")


def confined(document: dict[str, Any], namespace: str) -> dict[str, Any]:
    """An object of the installation, for one namespace; what is cluster-wide gets a name of its own."""
    text = yaml.safe_dump(document).replace(NAMESPACE, namespace)
    changed: dict[str, Any] = yaml.safe_load(text)
    if changed["kind"].startswith("ClusterRole"):
        changed["metadata"]["name"] = f"{NAME}-{namespace}"
    if changed["kind"] == "ClusterRoleBinding":
        changed["roleRef"]["name"] = f"{NAME}-{namespace}"
    if changed["kind"] == "Deployment":
        container = changed["spec"]["template"]["spec"]["containers"][0]
        container["env"].append({"name": "SELFTAUGHT_OPERATOR_NAMESPACES", "value": namespace})
    return changed
