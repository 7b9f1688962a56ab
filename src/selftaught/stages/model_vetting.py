"""Whether a model folder may be loaded: decided from names, links, JSON and weight headers, before any loader runs.

Loaders have been talked into running a model's own code again and again (CVE-2025-32434, CVE-2025-66448,
CVE-2026-22807, CVE-2026-27893), so a folder that holds code, a pickle or a way out of itself is not shown to one.
"""

import json
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from selftaught.errors import ModelError
from selftaught.stages.safetensors_header import read_header

PICKLES = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".hdf5", ".keras", ".npy", ".npz", ".joblib", ".dill"}
    | {".msgpack", ".mar", ".pdparams", ".onnx"}
)
CODE = frozenset(
    {".py", ".pyc", ".pyo", ".pyi", ".pyx", ".ipynb", ".so", ".dll", ".dylib", ".exe", ".sh", ".jar"}
    | {".whl", ".egg", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z"}
)
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"\x89HDF", b"\x7fELF", b"#!")
"""How pickles, torch archives, HDF5 files and programs begin, whatever they are called."""

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
"""JSON whose keys are tokens: any word may occur there."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
TEMPLATES = ("chat_template.jinja", "chat_template.json")

CODE_KEYS = frozenset({"auto_map", "custom_code", "custom_pipelines", "custom_generate"})
MAX_JSON_BYTES = 64 << 20
MAX_TEMPLATE_BYTES = 1 << 20
MAX_FILES = 10_000


def vet(folder: Path) -> None:
    """Raise ModelError with the reason and the next step unless the folder is safe and fit to be loaded.

    Fit means: a config, whole safetensors weights, a tokenizer, and a chat template, since the loop needs an
    instruction-tuned seed. Nothing in the folder is executed, and no model library is imported.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no model folder {folder}; check the model's uri")
    try:
        files = _check_files(folder)
        check_names(str(folder), (path.relative_to(folder).as_posix() for path in files))
        _check_beginnings(files)
        documents = {path: _read_json(path) for path in files if path.suffix == ".json"}
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        raise ModelError(f"cannot read the model folder {folder}: {error}") from error
    for path, document in documents.items():
        if path.name not in VOCABULARIES:
            _check_document(path, document)
    top = {path.name: document for path, document in documents.items() if path.parent == folder}
    if not isinstance(top.get(CONFIG), dict):
        raise ModelError(f"{folder} has no {CONFIG} with an object in it; is it a model folder?")
    _check_weights(folder, files, top.get(INDEX))
    _check_tokenizer(folder, top)


def check_names(model: str, names: Iterable[str]) -> None:
    """Raise ModelError for names (relative, with slashes) of files that are never loaded."""
    for name in names:
        path = PurePosixPath(name)
        if path.suffix.lower() in CODE:
            raise ModelError(f"{model} has code or an archive in it ({name}); remove it, code is never run")
        if path.suffix.lower() in PICKLES:
            raise ModelError(f"{model} has a pickle in it ({name}); only safetensors are loaded, so remove it")
        if path.name == "adapter_config.json":
            raise ModelError(f"{model} is an adapter ({name}), which names another model; merge it first")


def _check_files(folder: Path) -> list[Path]:
    """All files below; links must stay inside and nothing but files and folders may be there."""
    root = folder.resolve()
    files = []
    for number, path in enumerate(_walk(folder)):
        if number >= MAX_FILES:
            raise ModelError(f"{folder} has more than {MAX_FILES} files; is it a model folder?")
        if path.is_symlink():
            target = path.resolve()
            if not target.is_relative_to(root) or not target.exists():
                raise ModelError(f"the link {path} leads outside the model folder; copy the files with `cp -rL`")
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise ModelError(f"{path} is neither a file nor a folder; remove it")
        files.append(path)
    return files


def _check_beginnings(files: list[Path]) -> None:
    for path in files:
        if path.suffix != ".safetensors":
            with path.open("rb") as file:
                if file.read(8).startswith(PICKLE_STARTS):
                    raise ModelError(f"{path} is a pickle, an archive or a program by its content; remove it")


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below; linked folders are not entered."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _read_json(path: Path) -> Any:
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise ModelError(f"{path} has {size >> 20} MiB, too many for a config; is it the right file?")
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON; fetch it again") from error


def _check_document(path: Path, document: Any) -> None:
    for key, value in _entries(document):
        if key in CODE_KEYS and value:
            raise ModelError(f"{path} asks for the model's own code ({key}); remove that key, code is never run")
        if key == "trust_remote_code" and value:
            raise ModelError(f"{path} asks to trust remote code; remove that key")
        if key.endswith("_implementation") and "/" in json.dumps(value):
            raise ModelError(f"{path} names a kernel to download ({key}); remove that key, code is never fetched")
        if (key.endswith(("_file", "_files")) or key == "transformers_weights") and not all(
            _plain(name) for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)
        ):
            raise ModelError(f"{path} names a file outside the model folder ({key}); remove that key")


def _entries(document: Any) -> Iterator[tuple[str, Any]]:
    """All keys with their values, at any depth."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(document, list):
        for value in document:
            yield from _entries(value)


def _plain(name: str) -> bool:
    """Whether a name is that of a file in the same folder."""
    return bool(name) and "/" not in name and "\\" not in name and name not in (".", "..")


def _check_weights(folder: Path, files: list[Path], index: Any) -> None:
    headers = {path: read_header(path) for path in files if path.suffix == ".safetensors"}
    if index is None:
        if folder / SINGLE not in headers:
            raise ModelError(f"{folder} has neither {SINGLE} nor {INDEX}; only safetensors are loaded")
        return
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise ModelError(f"{folder / INDEX} has no weight_map; fetch it again")
    for tensor, name in weights.items():
        if not isinstance(name, str) or not _plain(name) or not name.endswith(".safetensors"):
            raise ModelError(f"{folder / INDEX} names a file outside the model folder: {str(name)[:200]!r}")
        if tensor not in headers.get(folder / name, {}):
            raise ModelError(
                f"{folder / INDEX} promises {tensor[:200]!r} in {name}, which is not there; fetch it again"
            )


def _check_tokenizer(folder: Path, top: dict[str, Any]) -> None:
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise ModelError(f"{folder} has no tokenizer ({', '.join(TOKENIZERS)}); add the tokenizer's files")
    config = top.get(TOKENIZER_CONFIG)
    written = config.get("chat_template") if isinstance(config, dict) else None
    present = [folder / name for name in TEMPLATES if (folder / name).is_file()]
    if not written and not any(path.stat().st_size for path in present):
        raise ModelError(f"{folder} has no chat template; the loop needs an instruction-tuned seed, so choose one")
    if any(path.stat().st_size > MAX_TEMPLATE_BYTES for path in present) or len(str(written)) > MAX_TEMPLATE_BYTES:
        raise ModelError(f"the chat template in {folder} is larger than 1 MiB; is it the right one?")
