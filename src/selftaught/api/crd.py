"""The CustomResourceDefinition, made from the models.

apiextensions/v1 wants a structural schema: no references, no unions, a type everywhere, and exclusive bounds
as booleans. Defaults are in it, so that an API server stores what was meant and rules see every field.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from selftaught.api.base import GROUP, KIND, PLURAL, VERSION, cel
from selftaught.api.run import SelfTaughtRun

Schema = dict[str, Any]

IMMUTABLE = ("seed", "generator", "prompts", "instructions", "pairs", "judging", "training", "evaluation")
"""Fields of the spec that determine results: changed, the run would mix two experiments."""

_IMMUTABLE_MESSAGE = "cannot change while the run exists; make a new run"

_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "default",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
)
_DROPPED = frozenset(["title", "$ref", "$defs", "properties", "items", "prefixItems", "additionalProperties", "anyOf"])

_COLUMNS = (
    ("Phase", "string", ".status.phase", 0),
    ("Iteration", "string", ".status.summary.iteration", 0),
    ("Stage", "string", ".status.summary.stage", 0),
    ("Progress", "string", ".status.summary.progress", 0),
    ("Best", "string", ".status.summary.best", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Baseline", "string", ".status.summary.baseline", 1),
    ("Queue", "string", r".metadata.labels.kueue\.x-k8s\.io/queue-name", 1),
    ("Restarts", "integer", ".status.restarts", 1),
    ("Reason", "string", ".status.summary.reason", 1),
)


class _Dumper(yaml.SafeDumper):
    """Writes what is shared in full: anchors are for programs."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


# Kubernetes tools read a bare 1e-6 as a number, PyYAML does not: a string of that form needs quotes.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), [*"-+0123456789"])


def custom_resource_definition() -> dict[str, Any]:
    """The CustomResourceDefinition as an apiextensions/v1 object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["str"],
                "categories": ["selftaught"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
                        for name, kind, path, priority in _COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": _resource()},
                }
            ],
        },
    }


def render() -> str:
    """The CustomResourceDefinition as YAML."""
    text: str = yaml.dump(custom_resource_definition(), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return f"# Generated from selftaught.api by hack/generate.py. Do not edit.\n{text}"


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """A JSON schema (draft 2020-12, as pydantic writes it) in structural form.

    Raises ValueError for what has no structural form, such as a union of types.
    """
    merged = _resolved(schema, definitions)
    if unknown := merged.keys() - set(_KEPT) - _DROPPED - {"const", "exclusiveMinimum", "exclusiveMaximum"}:
        raise ValueError(f"no structural form for {sorted(unknown)}")
    result: Schema = {key: merged[key] for key in _KEPT if key in merged}
    if "const" in merged:
        result["enum"] = [merged["const"]]
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in merged:
            result |= {bound: merged[exclusive], exclusive: True}
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if items := merged.get("items") or _same(merged.get("prefixItems", [])):
        result["items"] = structural(items, definitions)
    if isinstance(values := merged.get("additionalProperties"), dict):
        result["additionalProperties"] = structural(values, definitions)
    if properties := merged.get("properties"):
        result["properties"] = {name: structural(value, definitions) for name, value in properties.items()}
    if result.get("default", ...) is None:
        del result["default"]
    elif isinstance(result.get("default"), dict):
        # Rules are tried on the default as it stands, before nested defaults are filled in.
        nested = {} if "x-kubernetes-validations" in result else result.get("properties", {})
        result["default"] = _beyond_nested(result["default"], nested)
    return result


def _resource() -> Schema:
    schema = SelfTaughtRun.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    spec = structural(definitions["RunSpec"], definitions)
    _add_transition_rules(spec)
    status = _without_defaults(structural(definitions["RunStatus"], definitions))
    status["properties"]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return {
        "type": "object",
        "description": " ".join(schema["description"].split()),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        **cel(
            ("size(self.metadata.name) <= 40", "the name must have at most 40 characters"),
            (
                "self.metadata.name.matches('^[a-z][-a-z0-9]*$')",
                "the name must start with a letter and have no dots: it becomes part of the names of Jobs",
            ),
        ),
    }


def _add_transition_rules(spec: Schema) -> None:
    properties = spec["properties"]
    for name in IMMUTABLE:
        _add_rules(properties[name], ("self == oldSelf", _IMMUTABLE_MESSAGE))
    _add_rules(properties["storage"]["properties"]["uri"], ("self == oldSelf", _IMMUTABLE_MESSAGE))
    _add_rules(properties["iterations"], ("self >= oldSelf", "may be raised, not lowered"))
    # A rule on an optional field is not asked when the field comes or goes.
    optional = [name for name in IMMUTABLE if name not in spec["required"] and "default" not in properties[name]]
    _add_rules(
        spec, *((f"has(self.{name}) == has(oldSelf.{name})", f"{name} {_IMMUTABLE_MESSAGE}") for name in optional)
    )


def _add_rules(schema: Schema, *rules: tuple[str, str]) -> None:
    key = "x-kubernetes-validations"
    schema[key] = [*schema.get(key, []), *cel(*rules)[key]]  # type: ignore[misc]


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """With references followed and `null` taken out of unions; what stands nearer to the field wins."""
    merged = dict(schema)
    if "$ref" in merged:
        target = definitions[merged.pop("$ref").removeprefix("#/$defs/")]
        return _resolved({**target, **merged}, definitions)
    if merged.get("x-kubernetes-int-or-string"):
        return merged
    if "anyOf" in merged:
        kinds = [kind for kind in merged.pop("anyOf") if kind.get("type") != "null"]
        if len(kinds) != 1:
            raise ValueError(f"a union of {len(kinds)} types has no structural form: {kinds}")
        return _resolved({**kinds[0], **merged}, definitions)
    return merged


def _same(items: list[Schema]) -> Schema | None:
    """The one schema of all items of a fixed list."""
    if any(item != items[0] for item in items):
        raise ValueError(f"a list of mixed types has no structural form: {items}")
    return items[0] if items else None


def _beyond_nested(default: dict[str, Any], properties: Mapping[str, Schema]) -> dict[str, Any]:
    """What a default object says beyond the defaults of its own fields, which an API server fills in anyway."""
    beyond: dict[str, Any] = {}
    for name, value in default.items():
        nested = properties.get(name, {})
        if value is None:
            continue
        rest = _beyond_nested(value, nested.get("properties", {})) if isinstance(value, dict) else value
        if rest != nested.get("default", ...):
            beyond[name] = rest
    return beyond


def _without_defaults(schema: Schema) -> Schema:
    """Status is only what the operator wrote."""
    result = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in result:
        result["properties"] = {name: _without_defaults(value) for name, value in result["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in result:
            result[key] = _without_defaults(result[key])
    return result
