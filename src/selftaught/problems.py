"""What is wrong in a manifest, said so that its author can put it right."""

import difflib
import json
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from selftaught.api.base import DecimalString, Name, RatioString, Uri
from selftaught.api.instructions import FieldPath
from selftaught.api.references import ResourceName
from selftaught.api.run import RunName, SelfTaughtRun
from selftaught.yaml_documents import Document, Path


@dataclass(frozen=True)
class Problem:
    """One thing to put right."""

    path: str
    """The field as a user writes it: `spec.judging.samplesPerPair`."""
    value: str
    """What was found, shortened; empty if nothing was."""
    message: str
    """What is wrong."""
    hint: str
    """What would be right."""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.file else ""
        field = f"{self.path}: " if self.path else ""
        found = f" (found {self.value})" if self.value else ""
        return f"{where}{field}{self.message}{found}"


def explain(error: ValidationError, document: Document, model: type[BaseModel] = SelfTaughtRun) -> list[Problem]:
    """Every error of a validation, in the order of the document's lines, one for each field."""
    problems: dict[Path, Problem] = {}
    for details in error.errors():
        path = _written_path(details, model, document)
        if _follows_from_another(details, path, document):
            continue
        message, hint = _message_and_hint(details, path, document, model)
        found = details["type"] not in ("missing", "rule", "too_short", "too_long")
        # A union reports one error for each of its types: the first is said, with a hint that knows both.
        problems.setdefault(path, problem_at(document, path, message, hint, found=found))
    return sorted(problems.values(), key=lambda problem: problem.line)


def problem_at(document: Document, path: Path, message: str, hint: str, *, found: bool = False) -> Problem:
    """A problem of a field, with its place and, if wanted, its value."""
    value = shown(document, path) if found else ""
    line = document.place(path).line
    return Problem(path=dotted(path), value=value, message=message, hint=hint, file=document.file, line=line)


def dotted(path: Path) -> str:
    """`spec.instructions.sources[0].name`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def shown(document: Document, path: Path) -> str:
    """A value in short, as it is written; strings in quotes."""
    value = document.at(path)
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = document.place(path).text or ""
    if len(text) > 60:
        text = f"{text[:59]}…"
    return json.dumps(text, ensure_ascii=False) if isinstance(value, str) else text


def closest(word: str, known: list[str]) -> str | None:
    """The known word that was most likely meant; case and separators do not count."""

    def plain(text: str) -> str:
        return re.sub(r"[-_.\s]", "", text).lower()

    by_plain = {plain(name): name for name in known}
    matches = difflib.get_close_matches(plain(word), list(by_plain), n=1, cutoff=0.7)
    return by_plain[matches[0]] if matches else None


def _written_path(details: ErrorDetails, model: type[BaseModel], document: Document) -> Path:
    """The location without what pydantic adds for unions, and with the field that a rule names."""
    path: list[str | int] = []
    kinds = [model]
    for key in details["loc"]:
        below = list(_step(kinds, key))
        if not below and details["type"] != "missing" and (*path, key) not in document.places:
            continue
        path.append(key)
        kinds = below
    if details["type"] == "rule" and (field := details["ctx"]["field"]):
        path.append(field)
    return tuple(path)


def _follows_from_another(details: ErrorDetails, path: Path, document: Document) -> bool:
    """Pydantic counts only the valid items of a list, and reports each absent item of a fixed list too."""
    if details["type"] == "too_short":
        value = document.at(path)
        return isinstance(value, list) and len(value) >= details["ctx"]["min_length"]
    return details["type"] == "missing" and isinstance(path[-1], int)


def _step(kinds: list[Any], key: str | int) -> Iterator[Any]:
    """The types a value at `key` may have, within values of the given types."""
    for kind in kinds:
        if isinstance(key, int):
            yield from (part for part in typing.get_args(kind) if part is not Ellipsis)
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, field in kind.model_fields.items():
                if key == (field.alias or name):
                    yield from _plain_types(field.annotation)
        elif typing.get_origin(kind) is dict:
            yield from _plain_types(typing.get_args(kind)[1])


def _plain_types(annotation: Any) -> Iterator[Any]:
    """Without Annotated, unions and None; generic types keep their arguments."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        yield from _plain_types(typing.get_args(annotation)[0])
    elif origin in (types.UnionType, typing.Union):
        for part in typing.get_args(annotation):
            yield from _plain_types(part)
    elif annotation is not type(None):
        yield annotation


def _fields(kind: Any) -> dict[str, str]:
    """Fields of a model as written, with their descriptions."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return {}
    return {field.alias or name: field.description or "" for name, field in kind.model_fields.items()}


def _kinds_at(path: Path, model: type[BaseModel]) -> list[Any]:
    kinds: list[Any] = [model]
    for key in path:
        kinds = list(_step(kinds, key))
    return kinds


def _everywhere(kind: Any, path: Path = ()) -> Iterator[Path]:
    """Paths of all fields below a model, lists left out."""
    for name in _fields(kind):
        yield (*path, name)
        for below in _step([kind], name):
            yield from _everywhere(below, (*path, name))


_PATTERNS: dict[str, str] = {}
for _kind, _hint in (
    (Uri, "write hf://owner/name, pvc://claim/path, s3://bucket/path, gs://bucket/path or file:///path"),
    (DecimalString, 'write a number in quotes, such as "1e-6" or "0.1"'),
    (RatioString, 'write a number from 0 to 1 in quotes, such as "0.25"'),
    (Name, "use lower-case letters, digits and '-', starting and ending with a letter or digit"),
    (ResourceName, "use lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"),
    (RunName, "use lower-case letters, digits and '-', starting with a letter and ending with a letter or digit"),
    (FieldPath, "write a path into the row, such as conversation[0].content"),
):
    for _part in typing.get_args(_kind)[1:]:
        if isinstance(_part, StringConstraints) and isinstance(_part.pattern, str):
            _PATTERNS[_part.pattern] = _hint


def _message_and_hint(details: ErrorDetails, path: Path, document: Document, model: type[BaseModel]) -> tuple[str, str]:
    context = details.get("ctx", {})
    value = document.at(path)
    match details["type"]:
        case "rule":
            return str(context["message"]), str(context["hint"])
        case "missing":
            described = _described(path, model)
            return "is missing", f"add it: {described}" if described else "add it"
        case "extra_forbidden":
            return "unknown field", _known_field(path, model)
        case "string_type":
            return "must be a string", _string_hint(path, document)
        case "int_type" | "int_parsing" | "int_from_float" | "float_type" | "float_parsing":
            kind = "a whole number" if details["type"].startswith("int") else "a number"
            return f"must be {kind}", _number_hint(value, whole=kind != "a number")
        case "bool_type" | "bool_parsing":
            return "must be true or false", "write true or false, without quotes"
        case "enum" | "literal_error":
            return "is none of the allowed values", _choice_hint(details, path, value, model)
        case "string_pattern_mismatch":
            pattern = str(context["pattern"])
            return "has a form that is not allowed", _PATTERNS.get(pattern, _simple_pattern(pattern))
        case "string_too_long":
            return "is too long", f"use at most {context['max_length']} characters"
        case "string_too_short":
            return "is too short", f"use at least {context['min_length']} characters"
        case "too_short":
            return f"has too few items ({context['actual_length']})", f"give at least {context['min_length']}"
        case "too_long":
            return f"has too many items ({context['actual_length']})", f"give at most {context['max_length']}"
        case "greater_than_equal":
            return "is too small", f"write {_bound(context['ge'])} or more"
        case "greater_than":
            return "is too small", f"write more than {_bound(context['gt'])}"
        case "less_than_equal":
            return "is too large", f"write {_bound(context['le'])} or less"
        case "less_than":
            return "is too large", f"write less than {_bound(context['lt'])}"
        case "model_type" | "model_attributes_type" | "dict_type":
            names = [name for kind in _kinds_at(path, model) for name in _fields(kind)]
            return (
                "must be a mapping",
                f"indent fields below it: {', '.join(names[:8])}" if names else "write key: value",
            )
        case "tuple_type" | "list_type":
            return "must be a list", "write one `- …` line for each item"
        case kind if kind.startswith("datetime"):
            return "is not a time", "write it as 2026-01-31T12:00:00Z"
    return details["msg"][:1].lower() + details["msg"][1:], ""


def _described(path: Path, model: type[BaseModel]) -> str:
    for kind in _kinds_at(path[:-1], model):
        if description := _fields(kind).get(str(path[-1])):
            return description[:1].lower() + " ".join(description[1:].split())
    return ""


def _known_field(path: Path, model: type[BaseModel]) -> str:
    word = str(path[-1])
    siblings = [name for kind in _kinds_at(path[:-1], model) for name in _fields(kind)]
    if near := closest(word, siblings):
        return f"did you mean {near}?"
    elsewhere = {name[-1]: name for name in reversed(list(_everywhere(model))) if name[0] == "spec"}
    if near := closest(word, [str(name) for name in elsewhere]):
        return f"did you mean {dotted(elsewhere[near])}?"
    return f"known here: {', '.join(siblings)}" if siblings else "leave it out"


def _string_hint(path: Path, document: Document) -> str:
    value, place = document.at(path), document.place(path)
    if isinstance(value, dict | list) or place.text is None:
        return "write one value"
    quoted = json.dumps(place.text, ensure_ascii=False)
    if value is None:
        return "write a value, or leave the field out"
    if isinstance(value, bool) and place.text.lower() not in ("true", "false"):
        word = "true" if value else "false"
        return f"YAML reads a bare {place.text} as {word}; as text it needs quotes: {quoted}"
    if isinstance(value, float) and int in _kinds_at(path, SelfTaughtRun):
        return f"write a whole number, or a quantity in quotes: {quoted}"
    return f"write {quoted}, with quotes"


def _number_hint(value: Any, *, whole: bool) -> str:
    kind = "a whole number" if whole else "a number"
    if isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            pass
        else:
            if not whole or re.fullmatch(r"[-+]?[0-9]+", value.strip()):
                return f"write {value.strip()}, without quotes"
    return f"write {kind}, without quotes"


def _choice_hint(details: ErrorDetails, path: Path, value: Any, model: type[BaseModel]) -> str:
    choices = [
        str(member.value)
        for kind in _kinds_at(path, model)
        if isinstance(kind, type) and issubclass(kind, Enum)
        for member in kind
    ] or re.findall(r"'([^']*)'", str(details.get("ctx", {}).get("expected", "")))
    allowed = " or ".join(choices) if len(choices) <= 2 else ", ".join(choices)
    near = closest(str(value), choices) if isinstance(value, str) else None
    return f"did you mean {near}? Allowed: {allowed}" if near and len(choices) > 1 else f"write {allowed}"


def _simple_pattern(pattern: str) -> str:
    """A hint for the patterns that only list characters or words."""
    if words := re.fullmatch(r"\^\(([A-Za-z|]+)\)\$", pattern):
        return f"write {' or '.join(words[1].split('|'))}"
    return f"it must match {pattern}"


def _bound(number: Any) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)
