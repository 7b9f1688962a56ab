"""A trained model as a folder that can be served: the base model's files with new weights."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selftaught.artifacts import FileEntry, storage_errors, sync_folder
from selftaught.stages.safetensors_header import float_dtype
from selftaught.stages.training.checkpoints import synced_entry
from selftaught.stages.training.processes import Processes

COPIED = (".json", ".jinja", ".txt", ".model", ".tiktoken")
"""Endings of the files that come over from the base model, so that a judge differs in its weights alone."""
LICENCES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")
SHARD_SIZE = "5GB"


def write_folder(folder: Path, base: Path, model: Any, card: str, processes: Processes) -> tuple[FileEntry, ...]:
    """Write `folder`, whole or not at all; all processes must call it, process 0 writes.

    Adapters are merged into a copy. Weights have the base's number format, files are readable by everybody.
    Returns the files (on process 0).
    """
    dtype = float_dtype(base)
    state = merged_state(model, dtype, keep=processes.writes)
    if not processes.writes:
        return ()
    temporary = folder.with_name(f".{folder.name}.unfinished")
    with storage_errors(str(folder)):
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        _write_weights(temporary, model, state)
        for path in _copied(base):
            shutil.copyfile(path, temporary / path.name)
        if not (temporary / "generation_config.json").exists():
            _causal(model).generation_config.save_pretrained(str(temporary))
        (temporary / "README.md").write_text(card, "utf-8")
        entries = []
        for path in sorted(temporary.iterdir()):
            path.chmod(0o644)
            entries.append(synced_entry(path))
        temporary.chmod(0o755)
        sync_folder(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        sync_folder(folder.parent)
    return tuple(entries)


def merged_state(model: Any, dtype: str, *, keep: bool) -> dict[str, Any]:
    """All weights by the base model's names, whole, on the CPU, in `dtype` (a torch name).

    Shards are gathered one weight at a time; processes that do not `keep` get nothing.
    """
    import torch

    causal = _causal(model)
    target = getattr(torch, dtype)
    deltas = dict(_deltas(causal))
    tied = getattr(causal, "all_tied_weights_keys", None) or {}
    state: dict[str, Any] = {}
    for name, tensor in causal.state_dict(keep_vars=True).items():
        if "lora_" in name or name in tied:
            continue
        whole = _whole(tensor)
        delta = deltas.get(name)
        if delta is not None:
            whole = whole.float() + delta
        if keep:
            whole = whole.detach()
            state[name.replace(".base_layer.", ".")] = whole.to("cpu", target if whole.is_floating_point() else None)
    return state


def _deltas(causal: Any) -> Iterator[tuple[str, Any]]:
    """What each adapter adds to its weight, in float32 (LoRA: arXiv 2106.09685, section 4.1)."""
    import torch
    from peft.tuners.lora import LoraLayer

    with torch.no_grad():
        for name, module in causal.named_modules():
            if isinstance(module, LoraLayer):
                (adapter,) = module.active_adapters
                down = _whole(module.lora_A[adapter].weight).float()
                up = _whole(module.lora_B[adapter].weight).float()
                delta = up @ down * module.scaling[adapter]
                yield f"{name}.base_layer.weight", delta.T if module.fan_in_fan_out else delta


def _write_weights(folder: Path, model: Any, state: dict[str, Any]) -> None:
    causal = _causal(model)
    sharding = causal.config.__dict__.pop("distributed_config", None)  # its weights are gathered already
    scratch = folder / "weights"
    try:
        causal.save_pretrained(str(scratch), state_dict=state, max_shard_size=SHARD_SIZE)
    finally:
        if sharding is not None:
            causal.config.distributed_config = sharding
    for path in sorted(scratch.iterdir()):
        if path.name.startswith("model") and path.name.endswith((".safetensors", ".safetensors.index.json")):
            path.rename(folder / path.name)
    shutil.rmtree(scratch)


def _copied(base: Path) -> Iterator[Path]:
    for path in sorted(base.iterdir()):
        name = path.name
        if name.startswith(".") or name.endswith(".safetensors.index.json") or not path.is_file():
            continue
        if name.endswith(COPIED) or name.upper().startswith(LICENCES):
            yield path


def _causal(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _whole(tensor: Any) -> Any:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
