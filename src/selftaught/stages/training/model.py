"""The model that is trained: loaded in full precision, sharded or with adapters as asked."""

import json
from pathlib import Path
from typing import Any

from selftaught.api.judging import Lora, ParallelStrategy, Precision, Training
from selftaught.errors import ModelError
from selftaught.stages.training.processes import Processes


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a vetted model folder."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if tokenizer.chat_template is None:
        raise ModelError(f"{folder} has no chat template; the loop needs an instruction-tuned seed")
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer in {folder} has no end-of-sequence token; set eos_token in its config")
    return tokenizer


def end_token_ids(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Tokens that end generation: those of `generation_config.json`, `config.json` and the tokenizer."""
    found = {int(tokenizer.eos_token_id)}
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        ids = json.loads(path.read_text("utf-8")).get("eos_token_id") if path.is_file() else None
        found.update(int(value) for value in (ids if isinstance(ids, list) else [ids]) if value is not None)
    return frozenset(found)


def context_length(folder: Path) -> int | None:
    """Longest sequence the model takes, if its config says so."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    length = config.get("max_position_embeddings", config.get("text_config", {}).get("max_position_embeddings"))
    return int(length) if length else None


def load_model(folder: Path, training: Training, processes: Processes) -> Any:
    """A causal language model ready to be trained.

    Weights that are trained are float32: a step of 1e-6 is lost in bfloat16, which has 8 bits. BF16 is the format
    of the computation (and of frozen weights under adapters). With FSDP and several processes transformers shards
    while loading (`fully_shard`), so no process ever holds the whole model.
    """
    import torch
    from transformers import AutoModelForCausalLM, set_seed
    from transformers.distributed import DistributedConfig

    bf16 = training.precision is Precision.BF16
    sharded = is_sharded(training, processes)
    arguments: dict[str, Any] = {}
    if sharded:
        arguments["distributed_config"] = DistributedConfig(fsdp_size=processes.count, fsdp_mixed_precision=bf16)
    if varlen_attention(training):
        arguments["attn_implementation"] = "flash_attention_2"
    frozen = training.lora is not None and bf16 and not sharded
    model = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=torch.bfloat16 if frozen else torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        **arguments,
    )
    if training.lora is not None:
        set_seed(training.seed)
        model = _with_adapters(model, training.lora)
    return model


def is_sharded(training: Training, processes: Processes) -> bool:
    """Whether the model is to be sharded; one process has nothing to share."""
    return training.parallelism.strategy is ParallelStrategy.FSDP and processes.count > 1


def on_gpu() -> bool:
    """Whether there is a GPU to train on."""
    import torch

    return bool(torch.cuda.is_available())


def varlen_attention(training: Training) -> bool:
    """Whether rows can be laid end to end without padding: FlashAttention on a GPU."""
    from transformers.utils import is_flash_attn_2_available

    return training.precision is Precision.BF16 and on_gpu() and bool(is_flash_attn_2_available())


def wrapped_as(model: Any) -> str:
    """How the model is spread over processes in fact: `None`, `DDP` or `FSDP2`."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    if isinstance(model, DistributedDataParallel):
        return "DDP"
    matrices = [parameter for name, parameter in model.named_parameters() if "lora_" not in name]
    if any(isinstance(module, FSDPModule) for module in model.modules()) and all(
        isinstance(parameter, DTensor) for parameter in matrices
    ):
        return "FSDP2"
    return "None"


def asked_wrapping(training: Training, processes: Processes) -> str:
    """How it should be."""
    if processes.count == 1:
        import torch.distributed

        return "DDP" if torch.distributed.is_initialized() else "None"  # started by torchrun, but alone
    return "FSDP2" if training.parallelism.strategy is ParallelStrategy.FSDP else "DDP"


def _with_adapters(model: Any, lora: Lora) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        model,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
