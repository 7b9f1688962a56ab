"""What the operator may do, and no more: `manifests/deploy/rbac.yaml` is made from this."""

from dataclasses import dataclass
from typing import Any

import yaml

from selftaught.api.base import GROUP, PLURAL

NAMESPACE = "selftaught-system"
NAME = "selftaught-operator"


@dataclass(frozen=True)
class Rule:
    """Verbs on a resource, and what for."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str


EVERYWHERE = (
    Rule(GROUP, PLURAL, ("list", "watch"), "see runs"),
    Rule(GROUP, f"{PLURAL}/status", ("update",), "tell how they are"),
    Rule("batch", "jobs", ("create", "delete", "deletecollection", "get", "list", "watch"), "carry out stages"),
    Rule("", "pods", ("get", "list", "watch"), "read how stages ended"),
    Rule("", "configmaps", ("create", "get", "patch"), "read prompts, freeze them, hand out the progress CA"),
    Rule("", "services", ("create",), "let pods of a training find each other"),
    Rule("", "events", ("create", "list"), "tell people; say why a Job has no pods"),
    Rule("kueue.x-k8s.io", "workloads", ("list",), "say why a Job is queued"),
    Rule("authentication.k8s.io", "tokenreviews", ("create",), "know which pod tells progress"),
)
AT_HOME = (
    Rule("coordination.k8s.io", "leases", ("create", "get", "patch", "update"), "agree on one replica that works"),
    Rule("discovery.k8s.io", "endpointslices", ("create", "patch"), "lead pods' progress to that replica"),
)


def render() -> str:
    """ServiceAccount, roles and bindings as YAML."""
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": NAMESPACE}},
        role("ClusterRole", EVERYWHERE),
        binding("ClusterRole", account),
        role("Role", AT_HOME),
        binding("Role", account),
    ]
    text = "---\n".join(yaml.safe_dump(each, sort_keys=False, width=110) for each in objects)
    return f"# Generated from selftaught_operator.rbac by hack/generate.py. Do not edit.\n{text}"


def role(kind: str, rules: tuple[Rule, ...]) -> dict[str, Any]:
    """A role with rules."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata(kind),
        "rules": [
            {"apiGroups": [rule.group], "resources": [rule.resource], "verbs": list(rule.verbs)} for rule in rules
        ],
    }


def binding(kind: str, account: dict[str, str]) -> dict[str, Any]:
    """The binding of a role to the operator's account."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": metadata(kind),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAME},
        "subjects": [account],
    }


def metadata(kind: str) -> dict[str, str]:
    """Name, and for a Role the operator's namespace."""
    return {"name": NAME} | ({"namespace": NAMESPACE} if kind == "Role" else {})
