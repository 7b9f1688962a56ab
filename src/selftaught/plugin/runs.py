"""Runs as a cluster has them; one of a newer version is read as far as this version knows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pydantic import ValidationError

from selftaught.api.base import API_VERSION, PLURAL
from selftaught.api.run import Metadata, SelfTaughtRun
from selftaught.plugin.cluster import Cluster, JsonObject, RefusedError, escaped
from selftaught.problems import dotted

MAX_PASSES = 5

GITOPS_MARKS = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}
"""Labels and annotations of what is applied from Git."""


@dataclass(frozen=True)
class ReadRun:
    """A run, and the fields of it that this version does not know."""

    run: SelfTaughtRun
    unknown: tuple[str, ...] = ()

    @property
    def remark(self) -> str | None:
        """What to tell about unknown fields."""
        if not self.unknown:
            return None
        return (
            f"{self.run.metadata.name} has fields that selftaught {version('selftaught')} does not know "
            f"({', '.join(self.unknown)}); they are left out: upgrade to see them"
        )


def folder_of(namespace: str) -> str:
    """Path of the runs of a namespace."""
    return f"/apis/{API_VERSION}/namespaces/{escaped(namespace)}/{PLURAL}"


def raw_runs(cluster: Cluster, *, everywhere: bool) -> tuple[JsonObject, ...]:
    """All runs of the namespace, or of all. Raises RefusedError if the cluster knows no runs at all."""
    path = f"/apis/{API_VERSION}/{PLURAL}" if everywhere else folder_of(cluster.namespace)
    found = cluster.get(path, {})
    if found is None:
        raise RefusedError("this cluster has no SelfTaughtRuns; install them: selftaught crd | kubectl apply -f -")
    return tuple(found.get("items", ()))


def raw_run(cluster: Cluster, name: str) -> JsonObject:
    """One run. Raises RefusedError with the names that there are."""
    if name and (found := cluster.get(f"{folder_of(cluster.namespace)}/{escaped(name)}", {})) is not None:
        return found
    known = sorted(each["metadata"]["name"] for each in raw_runs(cluster, everywhere=False))
    hint = f"known there: {', '.join(known)}" if known else "none is there; look with: kubectl selftaught list -A"
    raise RefusedError(f"no run {name!r} in namespace {cluster.namespace}; {hint}")


def read_run(raw: JsonObject) -> ReadRun:
    """A run without the fields that this version does not know. Raises RefusedError if that is not enough."""
    unknown: list[str] = []
    for _ in range(MAX_PASSES):
        try:
            return ReadRun(SelfTaughtRun.model_validate(raw), tuple(unknown))
        except ValidationError as error:
            problems = error.errors()
            if any(problem["type"] != "extra_forbidden" for problem in problems):
                break
            for problem in problems:
                raw, path = without(raw, problem["loc"])
                unknown.append(path)
    worst = next((each for each in problems if each["type"] != "extra_forbidden"), problems[0])
    name, field = raw.get("metadata", {}).get("name", "it"), dotted(worst["loc"])
    said = f"unknown value {worst['input']!r}" if worst["type"] in ("enum", "literal_error") else worst["msg"].lower()
    raise RefusedError(
        f"run {name} cannot be read by selftaught {version('selftaught')}: {field}: {said}; "
        f"upgrade, or look with: kubectl get {PLURAL} {name} -o yaml"
    )


def without(value: Any, location: tuple[int | str, ...]) -> tuple[Any, str]:
    """A copy without the field at a location of pydantic's, and its path as a user writes it."""
    if not location:
        return value, ""
    first, rest = location[0], location[1:]
    if isinstance(value, dict) and first in value:
        if not rest:
            return {key: each for key, each in value.items() if key != first}, str(first)
        below, path = without(value[first], rest)
        return {**value, first: below}, f"{first}{'' if path.startswith('[') else '.'}{path}"
    if isinstance(value, list) and isinstance(first, int) and first < len(value):
        below, path = without(value[first], rest)
        return [*value[:first], below, *value[first + 1 :]], f"[{first}].{path}"
    # What pydantic adds for unions is no key of the value.
    return without(value, rest)


def metadata_of(raw: JsonObject) -> Metadata:
    """The metadata of a run, which every version can read."""
    return Metadata.model_validate(raw["metadata"])


def gitops_tool(metadata: Metadata) -> str | None:
    """What applies a run from Git, if anything does."""
    marks: Mapping[str, str] = {**metadata.labels, **metadata.annotations}
    return next((tool for mark, tool in GITOPS_MARKS.items() if mark in marks), None)
