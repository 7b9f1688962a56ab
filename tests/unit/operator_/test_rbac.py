"""The operator's rights: only what it asks for, nothing wild, no secrets."""

from typing import Any

import pytest
import yaml

from selftaught_operator.rbac import AT_HOME, EVERYWHERE, Rule, render

RULES = [pytest.param(rule, id=f"{rule.group}/{rule.resource}") for rule in (*EVERYWHERE, *AT_HOME)]
OBJECTS: list[dict[str, Any]] = list(yaml.safe_load_all(render()))


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [each for each in OBJECTS if each["kind"] == kind]
    return found


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_has_no_wildcard_and_a_reason(rule: Rule) -> None:
    assert "*" not in (rule.group, rule.resource, *rule.verbs)
    assert rule.verbs == tuple(sorted(set(rule.verbs)))
    assert rule.why


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_reaches_secrets_or_other_rights(rule: Rule) -> None:
    assert rule.resource not in ("secrets", "roles", "clusterroles", "rolebindings", "serviceaccounts/token")
    assert rule.resource not in ("pods/exec", "nodes", "customresourcedefinitions")
    assert not {"impersonate", "bind", "escalate"} & set(rule.verbs)


def test_nothing_of_a_run_but_its_status_can_be_written() -> None:
    verbs = {rule.resource: set(rule.verbs) for rule in EVERYWHERE}
    assert verbs["selftaughtruns"] == {"list", "watch"}
    assert verbs["selftaughtruns/status"] == {"update"}
    assert verbs["pods"] == {"get", "list", "watch"}


def test_leases_and_endpoints_are_its_own_namespaces_only() -> None:
    assert not {rule.resource for rule in AT_HOME} & {rule.resource for rule in EVERYWHERE}
    assert of_kind("Role")["metadata"]["namespace"] == "selftaught-system"
    assert "namespace" not in of_kind("ClusterRole")["metadata"]


@pytest.mark.parametrize(
    ("role", "rules"), [pytest.param("ClusterRole", EVERYWHERE, id="everywhere"), ("Role", AT_HOME)]
)
def test_roles_hold_the_rules_and_are_bound_to_one_account(role: str, rules: tuple[Rule, ...]) -> None:
    assert of_kind(role)["rules"] == [
        {"apiGroups": [rule.group], "resources": [rule.resource], "verbs": list(rule.verbs)} for rule in rules
    ]
    binding = of_kind(f"{role}Binding")
    assert binding["roleRef"]["kind"] == role
    account = of_kind("ServiceAccount")["metadata"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", **account}]
