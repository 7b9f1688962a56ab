"""Measures training side by side: the train stage, a bare torch loop on the same batches, and TRL as it comes.

    python hack/bench_training.py [--smollm2 FOLDER] [--repeats 3] [--steps 4] [--batch-size 8] [--json FILE]

The micro model is always measured; SmolLM2 too if its folder is given (see `selftaught.stages.smollm2`). All count
non-padding tokens from the end of the first step to the end of the last, in one process and in turns, so that whatever
else the machine does hits all alike. Beside tokens per second there are tokens per second of processor time, which
others on the same machine disturb less. Prompts and judgments of SmolLM2 are as long as those it wrote
itself about LLMBar and MT-Bench pairs (`trace_lengths.json`); those of the micro model are the micro world's.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from selftaught.api.judging import Precision, Training
from selftaught.api.references import ModelSource
from selftaught.api.results import Stage, StageResult
from selftaught.api.stage_config import TrainConfig
from selftaught.artifacts import Store
from selftaught.records import Example, Verdict
from selftaught.stages import train
from selftaught.stages.context import Shard, StageContext
from selftaught.stages.training.batches import CPU_TOKENS, BatchPlan, micro_batch_size
from selftaught.stages.training.model import end_token_ids
from selftaught.stages.training.quiet import quiet_libraries
from selftaught.stages.training.rows import TokenRow, tokenise

LENGTHS = Path(__file__).with_name("trace_lengths.json")


@dataclass
class Clock:
    """Times at the end of each step: of the wall, of the processors."""

    ends: list[tuple[float, float]] = field(default_factory=list)

    def update(self, **_: Any) -> None:
        """The train stage's progress."""
        self.ends.append((time.perf_counter(), time.process_time()))

    def speed(self, tokens: int) -> "Speed":
        """From the end of the first step on."""
        (wall, cpu), (last_wall, last_cpu) = self.ends[0], self.ends[-1]
        return Speed(tokens / (last_wall - wall), tokens / (last_cpu - cpu))


@dataclass(frozen=True)
class Speed:
    """Tokens per second."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Case:
    """A model and what it is trained on."""

    name: str
    volumes: Path
    examples: list[Example]
    training: Training
    large: bool = False
    """Whether TRL without recomputed activations would need 18 GB, and is left out."""

    @property
    def model(self) -> Path:
        """Its folder."""
        return self.volumes / "claim" / "seed"

    def rows(self) -> tuple[TokenRow, ...]:
        """Tokenised, in the order of the train stage."""
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        examples = sorted(self.examples, key=lambda example: example.id)
        return tokenise(examples, tokenizer, end_token_ids(self.model, tokenizer), self.training.max_length).rows

    def plan(self, rows: tuple[TokenRow, ...]) -> BatchPlan:
        """The batches of the train stage."""
        lengths = tuple(len(row.input_ids) for row in rows)
        micro = micro_batch_size(self.training.batch_size, 1, max(lengths), CPU_TOKENS)
        return BatchPlan(lengths, self.training.batch_size, micro, 1, self.training.seed)

    def timed_tokens(self) -> int:
        """Non-padding tokens of all steps but the first."""
        rows = self.rows()
        _, *steps = self.plan(rows).steps(0)
        return sum(len(rows[row].input_ids) for step in steps for row in step)


def train_stage(case: Case) -> Speed:
    """Tokens per second of the stage itself: TRL's trainer as set up here, progress and checkpoints included."""
    clock = Clock()
    output = f"pvc://claim/out-{time.perf_counter_ns()}"
    config = TrainConfig(
        run="bench/bench",
        iteration=1,
        key="0" * 64,
        output=output,
        model=ModelSource(uri="pvc://claim/seed"),
        examples="pvc://claim/examples",
        training=case.training,
    )
    context = StageContext(
        store=Store(case.volumes),
        shard=Shard(0, 1),
        progress=clock,
        now=lambda: datetime.now(UTC),
        models=lambda _: case.model,
        engine=lambda *_: (_ for _ in ()).throw(AssertionError),
        stopping=lambda: False,
    )
    train.run(config, context)
    return clock.speed(case.timed_tokens())


def bare_loop(case: Case, *, targets_only: bool) -> Speed:
    """Tokens per second of a plain loop; `targets_only`: it too computes logits at target tokens alone."""
    rows = case.rows()
    plan = case.plan(rows)
    model = AutoModelForCausalLM.from_pretrained(case.model, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    micro_batches = plan.micro_batches(0, 0)
    losses = []
    clock = Clock()
    for step in plan.steps(0):
        targets = sum(len(rows[row].input_ids) - rows[row].prompt_tokens for row in step)
        left = len(step)
        total = torch.zeros(())
        while left:
            batch = [rows[row] for row in next(micro_batches) if row >= 0]
            left -= len(batch)
            inputs = padded([list(row.input_ids) for row in batch], 0)
            labels = padded([row.labels for row in batch], -100)
            mask = padded([[1] * len(row.input_ids) for row in batch], 0)
            with torch.autocast("cpu", torch.bfloat16, enabled=case.training.precision is Precision.BF16):
                if targets_only:
                    hidden = model.model(input_ids=inputs, attention_mask=mask, use_cache=False).last_hidden_state
                    wanted = labels[:, 1:] != -100
                    logits = model.lm_head(hidden[:, :-1][wanted])
                    loss = torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][wanted], reduction="sum")
                    loss = loss / targets
                else:
                    loss = model(
                        input_ids=inputs,
                        attention_mask=mask,
                        labels=labels,
                        use_cache=False,
                        num_items_in_batch=targets,
                    ).loss
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(total.item())
        clock.update()
    return clock.speed(case.timed_tokens())


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    """(rows, longest)."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def trl(case: Case, *, checkpointing: bool) -> Speed:
    """Tokens per second of TRL with the settings it comes with (and without recomputed activations)."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    clock = Clock()
    tokens: list[int] = []

    class Timer(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.update()
            tokens.append(trainer._total_train_tokens)

    columns = [example.model_dump(include={"prompt", "completion"}) for example in case.examples]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SFTConfig(
            output_dir=scratch,
            num_train_epochs=1,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            bf16=case.training.precision is Precision.BF16,
            **({} if checkpointing else {"gradient_checkpointing": False}),
        )
        with contextlib.redirect_stdout(None):
            trainer = SFTTrainer(
                str(case.model), args=arguments, train_dataset=Dataset.from_list(columns), callbacks=[Timer()]
            )
            trainer.train()
    return clock.speed(tokens[-1] - tokens[0])


KEPT = "TRL's defaults, activations kept"
CONTESTANTS: dict[str, Callable[[Case], Speed]] = {
    "train stage": train_stage,
    "bare loop, all logits": lambda case: bare_loop(case, targets_only=False),
    "bare loop, logits of targets": lambda case: bare_loop(case, targets_only=True),
    "TRL's defaults": lambda case: trl(case, checkpointing=True),
    KEPT: lambda case: trl(case, checkpointing=False),
}


def micro_case(volumes: Path, steps: int, batch_size: int) -> Case:
    """A random model of the micro world's size, and judgments of the micro world."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from selftaught.microworld.seed import judgment_exchange
    from selftaught.microworld.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(volumes / "claim" / "seed")
    tokenizer.save_pretrained(volumes / "claim" / "seed")
    rng = random.Random(0)
    examples: list[Example] = []
    while len(examples) < steps * batch_size:
        exchange = judgment_exchange(rng)
        found = [verdict for verdict in (Verdict.A, Verdict.B) if f"[[{verdict.value}]]" in exchange.completion]
        if len(found) == 1:
            examples.append(example(len(examples), exchange.prompt, exchange.completion, found[0]))
    training = Training(
        learning_rate="1e-6", batch_size=batch_size, epochs=1, precision=Precision.FP32, gradient_checkpointing=False
    )
    return prepared(Case("micro Llama, 0.5 M, FP32", volumes, examples, training))


def smollm2_case(volumes: Path, folder: Path, steps: int, batch_size: int) -> Case:
    """SmolLM2 and texts of the lengths of its own judgments."""
    (volumes / "claim").mkdir(parents=True)
    (volumes / "claim" / "seed").symlink_to(folder.resolve())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = [
        token[1:] for token in tokenizer.get_vocab() if token[0] == "Ġ" and token[1:].isascii() and token[1:].islower()
    ]
    words = sorted(word for word in words if len(tokenizer(f" {word} {word}")["input_ids"]) == 2)
    rng = random.Random(0)
    empty = tokenizer.apply_chat_template(
        [{"role": "user", "content": ""}], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    examples = []
    lengths = json.loads(LENGTHS.read_text())
    for number in range(steps * batch_size):
        prompt, completion = rng.choice(lengths)
        verdict = rng.choice((Verdict.A, Verdict.B))
        asked = " ".join(rng.choices(words, k=prompt - len(empty)))
        trace = " ".join(rng.choices(words, k=max(1, completion - 4)))
        examples.append(example(number, asked, f"{trace} [[{verdict.value}]]", verdict))
    training = Training(learning_rate="1e-6", batch_size=batch_size, epochs=1, gradient_checkpointing=False)
    return prepared(Case("SmolLM2-135M, BF16", volumes, examples, training, large=True))


def example(number: int, prompt: str, completion: str, verdict: Verdict) -> Example:
    """A training row."""
    return Example(
        id=f"p{number:05d}/ChosenFirst/0",
        prompt=[{"role": "user", "content": prompt}],
        completion=[{"role": "assistant", "content": completion}],
        verdict=verdict,
    )


def prepared(case: Case) -> Case:
    """Write the examples where the train stage reads them."""
    folder = Store(case.volumes).folder("pvc://claim/examples")
    with folder.writer(0, 1) as writer:
        for row in case.examples:
            writer.append(row)
    now = datetime.now(UTC)
    folder.complete(StageResult(stage=Stage.CURATE, iteration=1, key="0" * 64), now, now)
    return case


def measure(case: Case, repeats: int) -> dict[str, list[Speed]]:
    """Speeds of each contestant, in turns."""
    speeds: dict[str, list[Speed]] = {name: [] for name in CONTESTANTS if not (case.large and name == KEPT)}
    for repeat in range(repeats):
        for name, measured in speeds.items():
            speed = CONTESTANTS[name](case)
            print(f"  {case.name} {repeat}: {name}: {speed.wall:,.0f} tokens/s, {speed.cpu:,.0f} by cpu", flush=True)
            measured.append(speed)
    return speeds


def table(case: Case, speeds: dict[str, list[Speed]]) -> str:
    """Medians, and how many times as fast the stage is, by round."""
    lines = [
        f"| {case.name} | tokens/s | stage is … times as fast (rounds) | tokens/CPU s | stage is … times as fast |",
        "|---|---|---|---|---|",
    ]
    for name, values in speeds.items():
        cells = [name]
        for clock in ("wall", "cpu"):
            theirs = [getattr(speed, clock) for speed in values]
            ours = [getattr(speed, clock) for speed in speeds["train stage"]]
            ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
            rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            cells += [f"{statistics.median(theirs):,.0f}", f"{statistics.median(ratios):.2f} ({rounds})"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@contextlib.contextmanager
def volumes() -> Iterator[Path]:
    """A folder that lasts as long as the measurement."""
    with tempfile.TemporaryDirectory(prefix="selftaught-bench-") as path:
        yield Path(path)


def main() -> None:
    """Measure and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", type=Path, help="folder of SmolLM2-135M-Instruct as safetensors")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps, the first not counted")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--skip-micro", action="store_true")
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    arguments = parser.parse_args()
    if "OMP_WAIT_POLICY" not in os.environ:  # as the train stage sets it, here for all contestants
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    numbers = {}
    tables = []
    with quiet_libraries(), volumes() as first, volumes() as second:
        cases = [] if arguments.skip_micro else [micro_case(first, 4 * arguments.steps, 4 * arguments.batch_size)]
        if arguments.smollm2 is not None:
            cases.append(smollm2_case(second, arguments.smollm2, arguments.steps, arguments.batch_size))
        for case in cases:
            speeds = measure(case, arguments.repeats)
            numbers[case.name] = {name: [asdict(speed) for speed in values] for name, values in speeds.items()}
            tables.append(table(case, speeds))
    print("\n\n".join(tables))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
