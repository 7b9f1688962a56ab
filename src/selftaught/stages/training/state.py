"""What a training needs to go on as if it had not stopped, without a pickle in it.

Each process writes one safetensors file: trained weights and moments (its shard of them; without sharding only
process 0 has any), and its random state. `state.json` holds the rest.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from selftaught.api.results import Checkpoint

STATE = "state.json"
TRAINER_STATE = "trainer_state.json"
"""transformers reads its own state from a file of this name."""


class Progress(BaseModel):
    """Beside the tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidates: tuple[Checkpoint, ...] = ()
    """Epochs that are written already."""
    scheduler: dict[str, Any]
    seconds: float
    """Time spent so far, over all attempts."""


def tensor_file(rank: int) -> str:
    """Name of a process's tensors."""
    return f"rank-{rank:05d}.safetensors"


def size(model: Any) -> int:
    """Bytes of a checkpoint's tensors: each trained weight and its two moments, as far as they lie here."""
    return sum(3 * _local(parameter).nbytes for _, parameter in _trained(model))


def save_tensors(path: Path, model: Any, optimizer: Any, *, weights: bool) -> None:
    """Write this process's part; `weights` is false where another process has the same ones."""
    import torch
    from safetensors.torch import save_file

    tensors = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    if weights:
        for name, parameter in _trained(model):
            tensors[f"weight/{name}"] = _local(parameter)
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = _local(value)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, str(path))


def load_weights(path: Path, model: Any) -> None:
    """Put trained weights back."""
    import torch
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file, torch.no_grad():
        for name, parameter in _trained(model):
            _local(parameter).copy_(file.get_tensor(f"weight/{name}"))


def load_moments(path: Path, model: Any, optimizer: Any) -> None:
    """Put the optimiser's moments back."""
    import torch
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file, torch.no_grad():
        for name, parameter in _trained(model):
            step = file.get_tensor(f"step/{name}").to(parameter.device)
            state = {"step": step}
            for key in ("exp_avg", "exp_avg_sq"):
                state[key] = torch.zeros_like(parameter)
                _local(state[key]).copy_(file.get_tensor(f"{key}/{name}"))
            optimizer.state[parameter] = state


def load_random(path: Path) -> None:
    """Put random states back."""
    import torch
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        torch.set_rng_state(file.get_tensor("random/cpu"))
        if torch.cuda.is_available():
            torch.cuda.set_rng_state(file.get_tensor("random/cuda"))


def write_progress(folder: Path, progress: Progress) -> None:
    """Write `state.json`."""
    (folder / STATE).write_text(progress.model_dump_json(), "utf-8")


def read_progress(folder: Path) -> Progress:
    """Read it."""
    return Progress.model_validate(json.loads((folder / STATE).read_text("utf-8")))


def _trained(model: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def _local(tensor: Any) -> Any:
    """The part of a tensor that lies in this process."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
