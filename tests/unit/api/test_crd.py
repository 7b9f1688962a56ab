import copy
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, Field, ValidationError

from selftaught.api import crd, reference
from selftaught.api.base import API_VERSION
from selftaught.api.run import SelfTaughtRun
from selftaught.api.spec import RunSpec
from selftaught.api.status import RunStatus
from selftaught.yaml_documents import documents

ROOT = Path(__file__).parents[3]
Schema = dict[str, Any]

MINIMAL: dict[str, Any] = {
    "seed": {"model": {"uri": "pvc://models/seed"}},
    "instructions": {"sources": [{"name": "chat", "uri": "file:///data"}]},
    "storage": {"uri": "pvc://artifacts/runs"},
}

FULL: dict[str, Any] = {
    **MINIMAL,
    "generator": {"model": {"uri": "hf://a/b", "revision": "abc"}, "tokenSecretRef": {"name": "hub"}},
    "training": {"lora": {}, "microBatchSize": 4, "parallelism": {"nodes": 2}},
    "evaluation": {
        "benchmarks": [{"name": "b", "uri": "s3://b/c", "role": "Gate"}],
        "sampling": {"maxTokens": 64, "temperature": 1},
        "votes": 3,
    },
    "approval": {"required": "EveryIteration", "timeoutSeconds": 5},
    "approvals": [{"iteration": 1, "decision": "Approved", "time": "2026-01-31T12:00:00Z"}],
    "stages": {
        "all": {"engine": {}, "template": {"affinity": {"nodeAffinity": {"any": [1]}}, "env": [{"name": "A"}]}},
        "judge": {"shards": 2, "resources": {"limits": {"nvidia.com/gpu": 8, "memory": "1Gi"}}},
    },
    "budget": {"gpuHours": "10"},
}


def resource_schema() -> Schema:
    (version,) = crd.custom_resource_definition()["spec"]["versions"]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return schema


def spec_schema() -> Schema:
    schema: Schema = resource_schema()["properties"]["spec"]
    return schema


ALLOWED = {
    *("type", "description", "format", "enum", "pattern", "default", "required", "properties", "items"),
    *("additionalProperties", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("minItems", "maxItems", "minProperties", "maxProperties"),
    *("x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
    *("x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"),
}


def structural_errors(schema: Schema, path: str = "") -> Iterator[str]:
    """What makes a schema not structural, or not valid in apiextensions/v1."""
    for key in schema.keys() - ALLOWED:
        yield f"{path}: {key}"
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        if kind:
            yield f"{path}: int-or-string has no type"
    elif kind not in ("object", "array", "string", "integer", "number", "boolean"):
        yield f"{path}: type {kind}"
    for bound, flag in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if flag in schema and (schema[flag] is not True or bound not in schema):
            yield f"{path}: {flag} must be a boolean beside {bound}"
    if "properties" in schema and "additionalProperties" in schema:
        yield f"{path}: properties and additionalProperties exclude each other"
    keeps_fields = {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"}
    if kind == "object" and not schema.keys() & keeps_fields and path != ".metadata":
        yield f"{path}: an object whose fields would be pruned"
    if kind == "array" and "items" not in schema:
        yield f"{path}: array without items"
    if "pattern" in schema and re.search(r"\(\?|\\[bBdDwW1-9pP]", schema["pattern"]):
        yield f"{path}: pattern may mean something else in RE2"
    if schema.get("x-kubernetes-list-type") == "map":
        items = schema["items"]
        for key in schema["x-kubernetes-list-map-keys"]:
            if key not in items["required"] and "default" not in items["properties"][key]:
                yield f"{path}: list key {key} is neither required nor defaulted"
    for name in schema.get("required", ()):
        if name not in schema["properties"]:
            yield f"{path}: required {name} is unknown"
    for name, below in schema.get("properties", {}).items():
        yield from structural_errors(below, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from structural_errors(schema[key], f"{path}[]")


def unbounded(schema: Schema, path: str = "") -> Iterator[str]:
    """Values of the spec whose size has no limit: rules on them would have no cost limit either."""
    kind = schema.get("type")
    if kind == "string" and not schema.keys() & {"maxLength", "enum", "format"}:
        yield path
    if kind == "array" and "maxItems" not in schema:
        yield path
    if "additionalProperties" in schema and "maxProperties" not in schema:
        yield path
    for name, below in schema.get("properties", {}).items():
        yield from unbounded(below, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from unbounded(schema[key], f"{path}[]")


def fill_defaults(value: Any, schema: Schema) -> None:
    """As an API server does: absent fields get their default, then defaults below are filled in."""
    if isinstance(value, dict):
        for name, below in schema.get("properties", {}).items():
            if name not in value and "default" in below:
                value[name] = copy.deepcopy(below["default"])
            if name in value:
                fill_defaults(value[name], below)
    if isinstance(value, list):
        for item in value:
            fill_defaults(item, schema["items"])


def violations(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """Where a value breaks the schema (types, enums, bounds, patterns, required and unknown fields)."""
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str) or isinstance(value, bool):
            yield path
        return
    if not isinstance(value, kinds[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean"):
        yield path
        return
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield path
    if "enum" in schema and value not in schema["enum"]:
        yield path
    if isinstance(value, str | list | dict):
        unit = {str: "Length", list: "Items", dict: "Properties"}[type(value)]
        if not schema.get(f"min{unit}", 0) <= len(value) <= schema.get(f"max{unit}", 10**9):
            yield path
    elif not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if value < low or value > high or (value == low and schema.get("exclusiveMinimum")):
            yield path
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from violations(item, schema["items"], f"{path}[{index}]")
    if isinstance(value, dict) and "x-kubernetes-preserve-unknown-fields" not in schema:
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{path}.{name}"
        for name, item in value.items():
            below = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if below is None:
                yield f"{path}.{name}"
            else:
                yield from violations(item, below, f"{path}.{name}")


def test_schema_is_structural() -> None:
    assert list(structural_errors(resource_schema())) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"$ref": "#/x"}, id="reference"),
        pytest.param({"anyOf": []}, id="union"),
        pytest.param({"type": None}, id="no-type"),
        pytest.param({"exclusiveMinimum": 0}, id="number-as-exclusive-bound"),
        pytest.param({"additionalProperties": {"type": "string"}}, id="both-kinds-of-fields"),
        pytest.param({"required": ["absent"]}, id="unknown-required"),
    ],
)
def test_checker_sees_what_is_not_structural(change: Schema) -> None:
    assert list(structural_errors({**spec_schema(), **change}))


def test_everything_in_the_spec_has_a_limit() -> None:
    assert list(unbounded(spec_schema())) == []


@pytest.mark.parametrize("spec", [pytest.param(MINIMAL, id="minimal"), pytest.param(FULL, id="full")])
def test_defaults_of_schema_and_models_are_the_same(spec: dict[str, Any]) -> None:
    filled = copy.deepcopy(spec)
    fill_defaults(filled, spec_schema())
    assert list(violations(filled, spec_schema())) == []
    assert RunSpec.model_validate(filled) == RunSpec.model_validate(spec)
    # ... and nothing that a model fills in is missing, so that rules see every field.
    assert filled == RunSpec.model_validate(spec).model_dump(mode="json", by_alias=True, exclude_none=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(("iterations",), 0, id="minimum"),
        pytest.param(("iterations",), "5", id="string-for-integer"),
        pytest.param(("training", "learningRate"), 1e-6, id="number-for-string"),
        pytest.param(("training", "betas"), ["0.9"], id="short-list"),
        pytest.param(("judging", "strategy"), "adaptive", id="enum"),
        pytest.param(("judging", "samples"), 3, id="unknown-field"),
        pytest.param(("pairs", "sampling", "topP"), 0, id="exclusive-minimum"),
        pytest.param(("storage", "uri"), "/data", id="pattern"),
        pytest.param(("seed", "model"), {}, id="missing"),
        pytest.param(("stages", "all", "resources", "limits"), {"cpu": 0.5}, id="fraction-for-quantity"),
    ],
)
def test_schema_and_models_refuse_the_same(path: tuple[str, ...], value: Any) -> None:
    spec = copy.deepcopy(FULL)
    fill_defaults(spec, spec_schema())
    spec["stages"]["all"]["resources"] = {}
    assert not list(violations(spec, spec_schema()))
    RunSpec.model_validate(spec, strict=False)
    parent = spec
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    assert list(violations(spec, spec_schema()))
    run = {"apiVersion": API_VERSION, "kind": "SelfTaughtRun", "metadata": {"name": "a"}, "spec": spec}
    with pytest.raises(ValidationError):
        SelfTaughtRun.model_validate_json(json.dumps(run), strict=True, by_alias=True, by_name=False)


def test_status_that_models_write_is_in_the_schema() -> None:
    status = {
        "phase": "Running",
        "conditions": [
            {"type": "Complete", "status": "False", "lastTransitionTime": "2026-01-31T12:00:00Z", "reason": "A"}
        ],
        "iterations": [
            {
                "index": 1,
                "stages": [{"name": "judge", "state": "Running"}],
                "scores": [
                    {
                        "benchmark": "b",
                        "accuracy": "0.5",
                        "consistentAccuracy": "0.4",
                        "confidenceInterval": ["0.4", "0.6"],
                        "unparsable": "0",
                        "pairs": 3,
                    }
                ],
            }
        ],
    }
    written = RunStatus.model_validate(status).model_dump(mode="json", by_alias=True, exclude_none=True)
    schema = resource_schema()["properties"]["status"]
    assert list(violations(written, schema)) == []
    filled: dict[str, Any] = {}
    fill_defaults(filled, schema)
    assert filled == {}


def rules(schema: Schema, path: str = "spec") -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, rule["rule"]
    for name, below in schema.get("properties", {}).items():
        yield from rules(below, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from rules(schema[key], f"{path}[]")


def test_what_determines_results_is_immutable() -> None:
    found = list(rules(spec_schema()))
    fixed = [path for path, rule in found if rule == "self == oldSelf"]
    assert sorted(fixed) == sorted(
        [
            "spec.seed",
            "spec.generator",
            "spec.prompts",
            "spec.instructions",
            "spec.pairs",
            "spec.judging",
            "spec.training",
            "spec.evaluation",
            "spec.storage.uri",
        ]
    )
    assert ("spec.iterations", "self >= oldSelf") in found
    # The only one of them that may be absent, where rules on the field itself are not asked.
    assert [rule for path, rule in found if path == "spec"] == ["has(self.generator) == has(oldSelf.generator)"]
    for name in ("prompts", "pairs", "judging", "training", "evaluation"):
        assert "default" in spec_schema()["properties"][name], name


def test_every_uri_refuses_parent_folders() -> None:
    uris = [path for path, rule in rules(spec_schema()) if "'/../'" in rule]
    assert uris == [
        "spec.seed.model.uri",
        "spec.generator.model.uri",
        "spec.prompts.uri",
        "spec.instructions.sources[].uri",
        "spec.evaluation.benchmarks[].uri",
        "spec.storage.uri",
    ]


def test_defaults_beside_rules_are_whole() -> None:
    """Rules are tried on defaults before nested defaults are filled in: each field they name must stand there."""

    def check(schema: Schema) -> None:
        names = {
            name
            for rule in schema.get("x-kubernetes-validations", ())
            for name in re.findall(r"self\.(\w+)", rule["rule"])
        }
        if "default" in schema and schema.get("type") == "object":
            assert names <= schema["default"].keys()
        for below in schema.get("properties", {}).values():
            check(below)

    check(spec_schema())


def test_names_and_columns() -> None:
    definition = crd.custom_resource_definition()["spec"]
    assert definition["names"]["shortNames"] == ["str"]
    (version,) = definition["versions"]
    assert version["subresources"] == {"status": {}}
    columns = {column["name"]: column["priority"] for column in version["additionalPrinterColumns"]}
    assert [name for name, priority in columns.items() if priority == 0] == [
        "Phase",
        "Iteration",
        "Stage",
        "Progress",
        "Best",
        "Age",
    ]
    assert [name for name, priority in columns.items() if priority == 1] == ["Baseline", "Queue", "Restarts", "Reason"]
    status = resource_schema()["properties"]["status"]["properties"]
    for column in version["additionalPrinterColumns"]:
        kind, *path = column["jsonPath"].removeprefix(".").split(".")
        if kind == "status":
            below: Schema = {"properties": status}
            for key in path:
                below = below["properties"][key]
            assert below["type"] == column["type"]
    assert status["conditions"]["x-kubernetes-list-map-keys"] == ["type"]


class Mixed(BaseModel):
    value: int | str


class Constant(BaseModel):
    value: Literal["x"] = "x"
    optional: int | None = Field(default=None, gt=2)


def test_refuses_a_union_of_types() -> None:
    schema = Mixed.model_json_schema()
    with pytest.raises(ValueError, match="union of 2 types"):
        crd.structural(schema, {})


def test_translates_constants_and_optional_bounds() -> None:
    schema = crd.structural(Constant.model_json_schema(), {})
    assert schema["properties"] == {
        "value": {"type": "string", "enum": ["x"], "default": "x"},
        "optional": {"type": "integer", "minimum": 2, "exclusiveMinimum": True},
    }


def test_kubernetes_tools_read_back_what_was_meant() -> None:
    (document,) = documents(crd.render(), "crd")
    assert document.value == crd.custom_resource_definition()
    assert yaml.safe_load(crd.render()) == crd.custom_resource_definition()


def generate_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "hack" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_files_are_up_to_date() -> None:
    assert generate_script().outdated(ROOT) == [], "run `python hack/generate.py`"


def test_generate_names_what_drifts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = generate_script()
    monkeypatch.setattr(script, "ROOT", tmp_path)
    assert script.main(["--check"]) == 1
    assert script.main([]) == 0
    assert script.main(["--check"]) == 0
    (tmp_path / "docs/reference.md").write_text("edited")
    capsys.readouterr()
    assert script.main(["--check"]) == 1
    assert capsys.readouterr().err == "docs/reference.md is out of date: run `python hack/generate.py`\n"
    assert script.main(["--wrong"]) == 64


def test_reference_describes_every_field() -> None:
    text = reference.render()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    for row in rows:
        assert not row.endswith("|  |"), row
    assert "| `samplesPerPair` | integer, 1 to 1,024 | `15` | N: most samples per pair and order. |" in rows
    assert '| `learningRate` | string | `"1e-6"` | Peak learning rate of AdamW. |' in rows
    assert "| `strategy` | `Adaptive` or `Fixed` | `Adaptive` |" in text
    assert text.count("\n## ") == len(set(re.findall(r"^## .*$", text, re.MULTILINE)))
