"""The model card that lies beside a judge's weights."""

import re
from dataclasses import dataclass
from pathlib import Path

from selftaught.api.stage_config import TrainConfig

_LICENCE = re.compile(r"^license:\s*(\S.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class CardFacts:
    """What only the training knows."""

    epoch: int
    examples: int
    data_hash: str
    steps: int
    losses: tuple[float, ...]
    """Mean loss of each epoch so far."""
    licence: str | None
    processes: int
    wrapped_as: str


def base_licence(folder: Path) -> str | None:
    """What the base model's own card says, if it has one."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    parts = card.read_text("utf-8", errors="replace").split("---", 2)
    found = _LICENCE.search(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    return found.group(1) if found else None


def model_card(config: TrainConfig, facts: CardFacts) -> str:
    """Markdown with the metadata block that the hub reads. The same inputs give the same text."""
    training = config.training
    base = config.model.uri + (f" at {config.model.revision}" if config.model.revision else "")
    licence = facts.licence or "see the base model"
    lora = training.lora
    rows = [
        ("base model", base),
        ("run", config.run),
        ("iteration", str(config.iteration)),
        ("epoch", f"{facts.epoch} of {training.epochs}"),
        ("result key", config.key),
        ("training examples", f"{facts.examples} from {config.examples}"),
        ("sha256 of the examples", facts.data_hash),
        ("optimiser steps", str(facts.steps)),
        ("mean loss by epoch", ", ".join(f"{loss:.4f}" for loss in facts.losses)),
        ("method", f"{training.method.value}, loss on the judgment only"),
        ("learning rate", f"{training.learning_rate}, {training.schedule.value}"),
        ("final learning rate ratio", training.final_learning_rate_ratio),
        ("warm-up steps", str(training.warmup_steps)),
        ("batch size", str(training.batch_size)),
        ("AdamW betas", " and ".join(training.betas)),
        ("weight decay", training.weight_decay),
        ("gradient norm", training.max_gradient_norm),
        ("most tokens of an example", str(training.max_length)),
        ("precision", training.precision.value),
        ("seed", str(training.seed)),
        ("adapters", f"rank {lora.rank}, alpha {lora.alpha}, merged" if lora else "none, all weights were trained"),
        ("processes", f"{facts.processes} ({facts.wrapped_as})"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""---
license: {facts.licence or "other"}
library_name: transformers
pipeline_tag: text-generation
tags: [selftaught, llm-judge]
---

# Judge of run {config.run}, iteration {config.iteration}, epoch {facts.epoch}

Compares two answers to an instruction and ends in a verdict, [[A]] or [[B]]. It was fine-tuned on its own
judgments that agreed with how response pairs were built; no human labels were used
(Self-Taught Evaluators, arXiv 2408.02666).

| | |
|---|---|
{table}

Licence: {licence}. The weights derive from the base model, whose licence and terms of use apply to them; those
of the instructions and of the models that wrote the responses may apply too.

Accuracy on a benchmark does not show how a judge does in use: read some of its judgments before relying on it.
"""
