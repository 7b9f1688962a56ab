"""Run manifests: YAML files with one `SelfTaughtRun`, and the ConfigMaps that its prompts come from."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from selftaught.api.base import API_VERSION, GROUP, KIND
from selftaught.api.run import SelfTaughtRun
from selftaught.errors import ManifestError
from selftaught.problems import Problem, closest, explain, problem_at
from selftaught.yaml_documents import Document, documents

METADATA_FIELDS = (
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
"""Fields of metav1.ObjectMeta."""


@dataclass(frozen=True)
class RunManifest:
    """What a manifest holds."""

    run: SelfTaughtRun
    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Data of the ConfigMaps beside the run, by name."""


class InvalidManifest(ManifestError):
    """A manifest with problems, each with field and hint."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = problems[0]
        hint = f"; {first.hint}" if first.hint else ""
        more = f" ({len(problems) - 1} more: see `selftaught validate`)" if len(problems) > 1 else ""
        super().__init__(f"{first}{hint}{more}")

    @property
    def reason(self) -> str:
        return "Manifest"


def load(paths: Sequence[Path | str]) -> RunManifest:
    """Read the one run, and the ConfigMaps, of some files.

    Raises ManifestError: a file is missing or not YAML, there is no run or more than one. Raises its subclass
    InvalidManifest when fields are wrong.
    """
    return parse([(str(path), read_text(path)) for path in paths])


def parse(texts: Sequence[tuple[str, str]]) -> RunManifest:
    """As `load`, from (name, text) pairs."""
    found = [document for name, text in texts for document in documents(text, name)]
    problems = [problem for document in found for problem in document_problems(document)]
    if problems:
        raise InvalidManifest(problems)
    runs = [document for document in found if is_run(document)]
    names = ", ".join(name for name, _ in texts)
    if not runs:
        raise ManifestError(f"{names}: no {KIND} in it; it needs `apiVersion: {API_VERSION}` and `kind: {KIND}`")
    if len(runs) > 1:
        places = " and ".join(f"{run.file}:{run.place(('kind',)).line}" for run in runs)
        raise ManifestError(f"{len(runs)} runs ({places}); give one at a time")
    return RunManifest(run=read_run(runs[0]), config_maps=dict(map(_config_map, filter(is_config_map, found))))


def read_text(path: Path | str) -> str:
    """The text of a manifest file. Raises ManifestError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise ManifestError(f"{path} is a folder; name the files in it") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error


def read_run(document: Document) -> SelfTaughtRun:
    """The run in a document, exactly as strict as an API server. Raises InvalidManifest."""
    run, problems = None, []
    try:
        # JSON mode: strict about types (no "5" for 5), yet strings become enums and times.
        run = SelfTaughtRun.model_validate_json(
            json.dumps(_without_nulls(document.value)), strict=True, by_alias=True, by_name=False
        )
    except ValidationError as error:
        problems = explain(error, document)
    known = {problem.path for problem in problems}
    problems += [problem for problem in (*_unknown_metadata(document), *_nulls(document)) if problem.path not in known]
    if run is None or problems:
        raise InvalidManifest(sorted(problems, key=lambda problem: problem.line))
    return run


def is_run(document: Document) -> bool:
    """Whether a document is a run."""
    return _type_of(document) == (API_VERSION, KIND)


def is_config_map(document: Document) -> bool:
    """Whether a document is a ConfigMap."""
    return _type_of(document) == ("v1", "ConfigMap")


def _type_of(document: Document) -> tuple[object, object]:
    return document.at(("apiVersion",)), document.at(("kind",))


def document_problems(document: Document) -> list[Problem]:
    """What is wrong in one document; other kinds than ours and ConfigMap are not looked into."""
    if is_run(document):
        try:
            read_run(document)
        except InvalidManifest as error:
            return list(error.problems)
        return []
    if is_config_map(document):
        return list(_config_map_problems(document))
    return list(_not_ours(document))


def _not_ours(document: Document) -> Iterator[Problem]:
    """Documents that look as if they were meant to be a run."""
    if not isinstance(document.value, dict):
        yield problem_at(document, (), "not a Kubernetes object", f"start with apiVersion: {API_VERSION}, kind: {KIND}")
        return
    kind, version = document.at(("kind",)), document.at(("apiVersion",))
    for key, value, right in (("apiVersion", version, API_VERSION), ("kind", kind, KIND)):
        if value is None:
            yield problem_at(document, (key,), "is missing", f"for a run, write {key}: {right}")
    if kind is None or version is None:
        return
    if kind == KIND:
        yield problem_at(document, ("apiVersion",), "is not known", f"write {API_VERSION}", found=True)
    elif str(version).startswith(GROUP) or closest(str(kind), [KIND]):
        yield problem_at(document, ("kind",), "is not known", f"write {KIND}", found=True)


def _config_map_problems(document: Document) -> Iterator[Problem]:
    if not isinstance(document.at(("metadata", "name")), str):
        yield problem_at(document, ("metadata", "name"), "is missing", "name the ConfigMap")
    data = document.at(("data",))
    if data is not None and not isinstance(data, dict):
        yield problem_at(document, ("data",), "must be a mapping", "write key: text")
        return
    for key, value in (data or {}).items():
        if not isinstance(value, str):
            hint = "write the text in quotes, or as a block after |"
            yield problem_at(document, ("data", key), "must be a string", hint, found=True)


def _config_map(document: Document) -> tuple[str, dict[str, str]]:
    return document.value["metadata"]["name"], dict(document.value.get("data") or {})


def _unknown_metadata(document: Document) -> Iterator[Problem]:
    metadata = document.at(("metadata",))
    for key in metadata if isinstance(metadata, dict) else ():
        if key not in METADATA_FIELDS:
            near = closest(key, list(METADATA_FIELDS))
            hint = f"did you mean {near}?" if near else "leave it out"
            yield problem_at(document, ("metadata", key), "unknown field", hint)


def _nulls(document: Document) -> Iterator[Problem]:
    """Fields of the spec without a value, which an API server refuses."""
    for path in document.places:
        if path[:1] == ("spec",) and path and "affinity" not in path and document.at(path) is None:
            yield problem_at(document, path, "has no value", "give it a value, or leave it out")


def _without_nulls(value: dict[str, object]) -> dict[str, object]:
    """`labels:` without a value and the like, which Kubernetes takes as absent outside the spec."""
    cleaned = dict(value)
    if isinstance(metadata := cleaned.get("metadata"), dict):
        cleaned["metadata"] = {key: entry for key, entry in metadata.items() if entry is not None}
    if cleaned.get("status", ...) is None:
        del cleaned["status"]
    return cleaned
