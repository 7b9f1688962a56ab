"""YAML documents that remember where each value stands.

Scalars are read as Kubernetes tools read them (YAML 1.1: a bare `no` is false, `1e-6` is a number), so that
what is accepted here is accepted by an API server too. Dates stay strings, as there.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from selftaught.errors import ManifestError

Path = tuple[str | int, ...]
"""Keys and list positions that lead to a value."""

MAX_VALUES = 100_000
"""Aliases can make a short text expand without end."""

_KUBERNETES_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("bool", r"^(?:y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$", "yYnNtTfFoO"),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*|0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[0-7_]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
    ("merge", r"^(?:<<)$", "<"),
)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars above."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}


for _name, _pattern, _first in _KUBERNETES_SCALARS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), [*_first])
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^$"), [""])


@dataclass(frozen=True)
class Place:
    """Where a value stands, and how it is written there."""

    line: int
    """From 1."""
    text: str | None
    """The scalar as written, without quotes; none for mappings and lists."""
    quoted: bool = False
    """Whether it stands in quotes or in a block."""


@dataclass(frozen=True)
class Document:
    """One YAML document."""

    file: str
    value: Any
    """Plain dicts, lists and scalars."""
    places: Mapping[Path, Place]

    def place(self, path: Path) -> Place:
        """Where a value stands; that of the closest parent, if it is absent."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places[path]

    def at(self, path: Path) -> Any:
        """The value at a path; None if there is none."""
        value = self.value
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return None
        return value


def documents(text: str, file: str) -> Iterator[Document]:
    """The documents of a text, empty ones left out.

    Raises ManifestError with file and line for a text that is not YAML, has a key twice, or expands without end.
    """
    try:
        loader = _Loader(text)
        while loader.check_node():
            reader = _NodeReader(loader, file)
            node = loader.get_node()
            value = None if node is None else reader.read(node, ())
            if value is not None:
                yield Document(file=file, value=value, places=reader.places)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise ManifestError(f"{where}: not valid YAML: {said}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ManifestError(f"{file}:{line}: not valid YAML: {error.reason}") from error
    except RecursionError as error:
        raise ManifestError(f"{file}: nested too deeply") from error


class _NodeReader:
    """Turns the nodes of one document into values, noting places on the way."""

    def __init__(self, loader: _Loader, file: str) -> None:
        self._loader = loader
        self._file = file
        self._open: set[int] = set()
        self.places: dict[Path, Place] = {}

    def read(self, node: Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        if len(self.places) >= MAX_VALUES:
            raise ManifestError(f"{self._file}:{line}: more than {MAX_VALUES} values; are aliases nested?")
        if id(node) in self._open:
            raise ManifestError(f"{self._file}:{line}: an alias that contains itself")
        if isinstance(node, ScalarNode):
            self.places[path] = Place(line, node.value, quoted=node.style is not None)
            return self._loader.construct_object(node)
        self.places[path] = Place(line, None)
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, MappingNode)
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        self._refuse_duplicates(node)
        self._loader.flatten_mapping(node)
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            values[key] = self.read(value_node, (*path, key))
            place = self.places[(*path, key)]
            self.places[(*path, key)] = Place(key_node.start_mark.line + 1, place.text, place.quoted)
        return values

    def _refuse_duplicates(self, node: MappingNode) -> None:
        first: dict[str, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self._key(key_node), key_node.start_mark.line + 1
            if key in first:
                raise ManifestError(f"{self._file}:{line}: {key} stands twice (first in line {first[key]}); keep one")
            first[key] = line

    def _key(self, node: Node) -> str:
        """Keys are strings; a bare `on:` or `1:` is taken as written, as Kubernetes tools do."""
        if not isinstance(node, ScalarNode):
            raise ManifestError(f"{self._file}:{node.start_mark.line + 1}: a key must be a plain word")
        return str(node.value)
