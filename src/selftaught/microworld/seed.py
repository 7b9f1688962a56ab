"""The seed model of the micro world: a tiny Llama trained on the spot with plain torch.

It is shown three things in one mix: tasks with their answers, tasks with a modification, and
comparisons with a judgment that is careful only part of the time (see `traces`). The loss is on
what the assistant says.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selftaught.microworld.prompts import MODIFICATION, PROMPTS, fill
from selftaught.microworld.tasks import FAMILIES, Family, draw_task, near_miss, neighbour
from selftaught.microworld.tokenizer import CONTEXT_TOKENS, build_tokenizer
from selftaught.microworld.traces import judgment

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class SeedSettings:
    """How large the seed is and how long it is trained; batches are rows per step."""

    steps: int
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 320
    tasks_per_step: int = 64
    modifications_per_step: int = 24
    judgments_per_step: int = 48
    matrix_learning_rate: float = 0.02
    other_learning_rate: float = 4e-3
    warm_up: float = 0.05
    cool_down: float = 0.5


@dataclass(frozen=True)
class Exchange:
    """One user message and what the assistant is to say."""

    prompt: str
    completion: str


def task_exchange(rng: random.Random, families: Sequence[Family] = FAMILIES) -> Exchange:
    """A task with its right answer."""
    task = draw_task(rng, families=families)
    return Exchange(fill(PROMPTS["respond"], {"instruction": task.instruction}), task.answer)


def modification_exchange(rng: random.Random, families: Sequence[Family] = FAMILIES) -> Exchange:
    """A task and its answer, then a related task with an answer of its own."""
    other = None
    while other is None:
        task = draw_task(rng, families=families)
        other = neighbour(task, rng, families)
    prompt = fill(PROMPTS["modify"], {"instruction": task.instruction, "response": task.answer})
    return Exchange(
        prompt,
        fill(MODIFICATION, {"instruction": other.instruction, "response": other.answer}),
    )


def judgment_exchange(rng: random.Random, families: Sequence[Family] = FAMILIES) -> Exchange:
    """A comparison of the right answer with a near miss, in a random order, and its judgment."""
    task = draw_task(rng, families=families)
    responses = [task.answer, near_miss(task, rng, families)]
    rng.shuffle(responses)
    prompt = fill(
        PROMPTS["judge"],
        {
            "instruction": task.instruction,
            "response_a": responses[0],
            "response_b": responses[1],
        },
    )
    return Exchange(prompt, judgment(task, responses[0], responses[1], rng))


def train_seed(directory: Path, settings: SeedSettings, seed: int, report: Callable[[str], None]) -> None:
    """Train the seed and write it to the directory in Hugging Face form (safetensors).

    The same arguments on the same machine give the same weights. `report` gets a line of
    progress about twenty times.
    """
    import torch

    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(settings, tokenizer)
    _train(model, tokenizer, settings, random.Random(seed), report)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _model(settings: SeedSettings, tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    ends = {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.feed_forward,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        **ends,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**ends)
    return model


def _train(
    model: "LlamaForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    settings: SeedSettings,
    rng: random.Random,
    report: Callable[[str], None],
) -> None:
    import torch

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=settings.matrix_learning_rate, weight_decay=0.0),
        torch.optim.AdamW(others, lr=settings.other_learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: _rate(step, settings)) for o in optimizers]
    makers = (
        (task_exchange, settings.tasks_per_step),
        (modification_exchange, settings.modifications_per_step),
        (judgment_exchange, settings.judgments_per_step),
    )
    model.train()
    for step in range(settings.steps):
        losses = []
        for make, rows in makers:
            ids, labels = _batch([make(rng) for _ in range(rows)], tokenizer)
            loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            losses.append(float(loss))
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if step % max(1, settings.steps // 20) == 0:
            answers, modifications, judgments = losses
            report(
                f"seed model: step {step} of {settings.steps}, loss of answers {answers:.3f}, "
                f"modifications {modifications:.3f}, judgments {judgments:.3f}"
            )
    model.eval()


def _rate(step: int, settings: SeedSettings) -> float:
    """The factor on the learning rates: a short rise, a plateau, a linear fall to zero."""
    rise = max(1, round(settings.steps * settings.warm_up))
    fall = max(1, round(settings.steps * settings.cool_down))
    return min(1.0, (step + 1) / rise, (settings.steps - step) / fall)


def _batch(exchanges: Sequence[Exchange], tokenizer: "PreTrainedTokenizerFast") -> "tuple[torch.Tensor, torch.Tensor]":
    """Token ids and labels, rows by width, padded on the right (causal: no mask is needed)."""
    import torch

    prompts = [f"<|user|> {e.prompt} <|end|> <|assistant|>" for e in exchanges]
    completions = [f"{e.completion} <|end|>" for e in exchanges]
    backend = tokenizer.backend_tokenizer
    starts = [encoding.ids for encoding in backend.encode_batch(prompts)]
    ends = [encoding.ids for encoding in backend.encode_batch(completions)]
    width = max(len(start) + len(end) for start, end in zip(starts, ends, strict=True))
    ids = torch.full((len(exchanges), width), tokenizer.pad_token_id)
    labels = torch.full((len(exchanges), width), -100)
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        ids[row, : len(start) + len(end)] = torch.tensor(start + end)
        labels[row, len(start) : len(start) + len(end)] = torch.tensor(end)
    return ids, labels
