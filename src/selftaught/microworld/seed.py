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

from selftaught.judging.prompts import render
from selftaught.microworld.prompts import MODIFICATION, PROMPTS
from selftaught.microworld.tasks import FAMILIES, Family, draw_task, near_miss, neighbour
from selftaught.microworld.tokenizer import CONTEXT_TOKENS, build_tokenizer
from selftaught.microworld.traces import careful, judgment
from selftaught.stages.training.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class SeedSettings:
    """How large the seed is and how long it is trained.

    Batches are rows per step; `warm_up`, `cool_down` and `habits_from` are shares of the steps. Before `habits_from`
    every judgment shown is careful: the skill first, then how often it is used. Next words of the prompts count
    with `prompt_weight`: learning to continue them builds the copying that judging needs, in fewer steps.
    """

    steps: int
    hidden: int = 96
    layers: int = 3
    heads: int = 3
    feed_forward: int = 256
    tasks_per_step: int = 32
    modifications_per_step: int = 12
    judgments_per_step: int = 24
    matrix_learning_rate: float = 0.01
    other_learning_rate: float = 4e-3
    warm_up: float = 0.05
    cool_down: float = 0.5
    habits_from: float = 0.5
    prompt_weight: float = 0.3


@dataclass(frozen=True)
class Exchange:
    """One user message and what the assistant is to say."""

    prompt: str
    completion: str


def task_exchange(rng: random.Random, families: Sequence[Family] = FAMILIES) -> Exchange:
    """A task with its right answer."""
    task = draw_task(rng, families=families)
    return Exchange(render(PROMPTS["respond"], {"instruction": task.instruction}), task.answer)


def modification_exchange(rng: random.Random, families: Sequence[Family] = FAMILIES) -> Exchange:
    """A task and its answer, then a related task with an answer of its own."""
    other = None
    while other is None:
        task = draw_task(rng, families=families)
        other = neighbour(task, rng, families)
    prompt = render(PROMPTS["modify"], {"instruction": task.instruction, "response": task.answer})
    return Exchange(
        prompt,
        render(MODIFICATION, {"instruction": other.instruction, "response": other.answer}),
    )


def judgment_exchange(rng: random.Random, families: Sequence[Family] = FAMILIES, *, habits: bool = True) -> Exchange:
    """A comparison of the right answer with a near miss, in a random order, and its judgment.

    Without habits, the judgment is always careful.
    """
    task = draw_task(rng, families=families)
    responses = [task.answer, near_miss(task, rng, families)]
    rng.shuffle(responses)
    prompt = render(
        PROMPTS["judge"],
        {
            "instruction": task.instruction,
            "response_a": responses[0],
            "response_b": responses[1],
        },
    )
    judge = judgment if habits else careful
    return Exchange(prompt, judge(task, responses[0], responses[1], rng))


def train_seed(
    directory: Path,
    settings: SeedSettings,
    seed: int,
    report: Callable[[str], None],
    families: Sequence[Family] = FAMILIES,
) -> None:
    """Train the seed and write it to the directory in Hugging Face form (safetensors).

    The same arguments on the same machine give the same weights. `report` gets a line of
    progress about twenty times.
    """
    import torch

    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(settings, tokenizer)
    threads = torch.get_num_threads()
    # As fast as two on matrices this small, and many times faster where other work wants the cores.
    torch.set_num_threads(1)
    try:
        _train(model, tokenizer, settings, random.Random(f"{seed} model"), report=report, families=families)
    finally:
        torch.set_num_threads(threads)
    with quiet_libraries():
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
    *,
    report: Callable[[str], None],
    families: Sequence[Family],
) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=settings.matrix_learning_rate, weight_decay=0.0),
        torch.optim.AdamW(others, lr=settings.other_learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: _rate(step, settings)) for o in optimizers]
    habits_from = round(settings.steps * settings.habits_from)

    def judge() -> Exchange:
        return judgment_exchange(rng, families, habits=step >= habits_from)

    makers: tuple[tuple[Callable[[], Exchange], int], ...] = (
        (lambda: task_exchange(rng, families), settings.tasks_per_step),
        (lambda: modification_exchange(rng, families), settings.modifications_per_step),
        (judge, settings.judgments_per_step),
    )
    model.train()
    for step in range(settings.steps):
        losses = []
        for make, rows in makers:
            ids, asked, said = _batch([make() for _ in range(rows)], tokenizer)
            logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
            loss = cross_entropy(logits, said.flatten())
            total = loss + settings.prompt_weight * cross_entropy(logits, asked.flatten())
            total.backward()
            losses.append(loss.item())
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


def _batch(
    exchanges: Sequence[Exchange], tokenizer: "PreTrainedTokenizerFast"
) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Token ids [rows, width], padded on the right: causal attention then needs no mask.

    With them the next tokens [rows, width - 1], once for those of the prompts and once for what
    the assistant says; -100 elsewhere.
    """
    import torch

    backend = tokenizer.backend_tokenizer
    prompts = backend.encode_batch([f"<|user|> {e.prompt} <|end|> <|assistant|>" for e in exchanges])
    completions = backend.encode_batch([f"{e.completion} <|end|>" for e in exchanges])
    rows = [(start.ids, end.ids) for start, end in zip(prompts, completions, strict=True)]
    width = max(len(start) + len(end) for start, end in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    asked = torch.full((len(rows), width), -100)
    said = asked.clone()
    for row, (start, end) in enumerate(rows):
        turn, whole = len(start), len(start) + len(end)
        ids[row, :whole] = torch.tensor(start + end)
        asked[row, :turn] = ids[row, :turn]
        said[row, turn:whole] = ids[row, turn:whole]
    return ids, asked[:, 1:], said[:, 1:]
