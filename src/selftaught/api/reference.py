"""The API reference, made from the models: every field with type, default and description."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from selftaught.api.base import API_VERSION, KIND
from selftaught.api.run import SelfTaughtRun

Schema = Mapping[str, Any]


def render() -> str:
    """The reference as Markdown: one section for each model, in the order in which a reader meets them."""
    schema = SelfTaughtRun.model_json_schema(by_alias=True)
    definitions: Mapping[str, Schema] = schema["$defs"]
    lines = [
        "<!-- Generated from selftaught.api by hack/generate.py. Do not edit. -->",
        f"# {KIND} reference",
        "",
        f"`apiVersion: {API_VERSION}`, `kind: {KIND}`. {_prose(schema)}",
        "",
        "A field with a default may be left out. Numbers that are not whole are written as strings where the type "
        "says so, as the Kubernetes API conventions ask. An unknown field is an error. `selftaught validate FILE` "
        "explains what is wrong in a manifest.",
    ]
    for name in _in_reading_order(definitions):
        lines += ["", f"## {name}", "", _prose(definitions[name]), "", *_table(definitions[name], definitions)]
    return "\n".join(lines) + "\n"


def _in_reading_order(definitions: Mapping[str, Schema]) -> list[str]:
    """Models from the spec downwards, each after the one that first mentions it; then the status."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in order and "properties" in definitions[name]:
            order[name] = None
            for below in _references(definitions[name]):
                visit(below)

    for root in ("RunSpec", "RunStatus"):
        visit(root)
    return list(order)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].removeprefix("#/$defs/")
        for below in value.values():
            yield from _references(below)
    elif isinstance(value, list):
        for below in value:
            yield from _references(below)


def _table(model: Schema, definitions: Mapping[str, Schema]) -> Iterator[str]:
    required = model.get("required", [])
    yield "| field | type | default | description |"
    yield "|---|---|---|---|"
    for name, field in model["properties"].items():
        default = "required" if name in required else _default(field, definitions)
        cells = (f"`{name}`", _type(field, definitions), default, _prose(_described(field, definitions)))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    for rule in model.get("x-kubernetes-validations", []):
        yield ""
        yield f"Rule: {rule['message']}."


def _default(field: Schema, definitions: Mapping[str, Schema]) -> str:
    """The default as it would be written; none for models, whose fields have their own."""
    value = field.get("default")
    if value is None or value in ([], {}, "") or (isinstance(value, dict) and "$ref" in field):
        return ""
    if isinstance(value, list) and value == _enum(field.get("items", {}), definitions):
        return "all"
    text = value if isinstance(value, str) and "$ref" in field else json.dumps(value)
    return f"`{text}`"


def _enum(field: Schema, definitions: Mapping[str, Schema]) -> list[str] | None:
    if "$ref" not in field:
        return None
    values: list[str] | None = definitions[field["$ref"].removeprefix("#/$defs/")].get("enum")
    return values


def _type(field: Schema, definitions: Mapping[str, Schema]) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if "anyOf" in field:
        return " or ".join(_type(kind, definitions) for kind in field["anyOf"] if kind.get("type") != "null")
    if values := _enum(field, definitions):
        return " or ".join(f"`{value}`" for value in values) if len(values) < 4 else ", ".join(f"`{v}`" for v in values)
    if "$ref" in field:
        name = field["$ref"].removeprefix("#/$defs/")
        return f"[{name}](#{name.lower()})"
    match field.get("type"):
        case "array" if "prefixItems" in field:
            return f"list of {len(field['prefixItems'])} × {_type(field['prefixItems'][0], definitions)}"
        case "array":
            return f"list of {_type(field['items'], definitions)}"
        case "object" if isinstance(field.get("additionalProperties"), dict):
            return f"map of string to {_type(field['additionalProperties'], definitions)}"
        case "string" if field.get("format") == "date-time":
            return "time"
    kind = str(field["type"])
    return f"{kind}, {bounds}" if (bounds := _bounds(field)) else kind


def _bounds(field: Schema) -> str:
    """`1 to 100`, `at least 1`, `more than 0, at most 1`."""
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        return f"{low:,} to {high:,}"
    parts = [
        f"{words} {field[bound]:,}"
        for bound, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "more than"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "less than"),
        )
        if bound in field
    ]
    return ", ".join(parts)


def _described(field: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """The field, or the model it holds, whose description then serves both."""
    if "description" in field or "$ref" not in field:
        return field
    return definitions[field["$ref"].removeprefix("#/$defs/")]


def _prose(schema: Schema) -> str:
    return " ".join(str(schema.get("description", "")).split())
