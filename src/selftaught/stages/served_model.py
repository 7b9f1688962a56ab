"""What a running engine takes from a model folder: the tokenizer with its chat template, shapes, stop tokens."""

import json
from pathlib import Path
from typing import Any

from selftaught.api.placement import Dtype
from selftaught.api.placement import Engine as EngineSettings
from selftaught.errors import ModelError
from selftaught.stages.safetensors_header import read_header

_VOLATILE = frozenset(
    {
        "transformers_version",
        "use_cache",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "architectures",
    }
)
"""Keys of config.json that do not shape the weights; stop tokens are compared on their own."""


def chat_tokens(tokenizer: Any, message: str) -> list[int]:
    """The prompt that a user message becomes, up to where the assistant speaks."""
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return list(encoded["input_ids"])


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a local model folder. Raises ModelError, also when it has no chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"cannot load the tokenizer in {folder}: {one_line(error)}") from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"the model in {folder} has no chat template; use an instruction-tuned model, "
            "or add chat_template.jinja to its folder"
        )
    return tokenizer


def describe(folder: Path, settings: EngineSettings) -> object:
    """All that a running engine takes from a model folder besides the weights' values."""
    config = _json(folder / "config.json")
    dtype = config.pop("dtype", None)
    legacy = config.pop("torch_dtype", None)
    tokenizer = load_tokenizer(folder)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    fast = json.loads(backend.to_str()) if backend is not None else {"model": tokenizer.get_vocab()}
    generation = _json(folder / "generation_config.json", missing_ok=True)
    return (
        _shapes(folder),
        {key: value for key, value in config.items() if key not in _VOLATILE and not key.startswith("_")},
        (dtype or legacy) if settings.dtype is Dtype.AUTO else None,
        {key: fast.get(key) for key in ("model", "normalizer", "pre_tokenizer", "decoder", "added_tokens")},
        tokenizer.chat_template,
        tokenizer.eos_token_id,
        generation.get("eos_token_id", config.get("eos_token_id")),
    )


def _shapes(folder: Path) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        shapes.update({name: tensor["shape"] for name, tensor in read_header(path).items()})
    if not shapes:
        raise ModelError(f"{folder} has no *.safetensors file; only safetensors are loaded")
    return shapes


def _json(path: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if missing_ok:
            return {}
        raise ModelError(f"{path.parent} has no {path.name}; it is not a model folder") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object")
    return value


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 500 else text[:499] + "…"
