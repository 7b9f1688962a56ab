"""One training from start to end: what happens before, after each step, and when it is asked to stop."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from selftaught.api.results import Checkpoint, TrainingStats
from selftaught.api.stage_config import TrainConfig
from selftaught.errors import Interrupted, ModelError, TransientError
from selftaught.stages.context import StageContext
from selftaught.stages.safetensors_header import float_dtype
from selftaught.stages.training import checkpoints, state
from selftaught.stages.training.batches import CPU_TOKENS, GPU_TOKENS, BatchPlan, micro_batch_size
from selftaught.stages.training.card import CardFacts, base_licence, model_card
from selftaught.stages.training.export import write_folder
from selftaught.stages.training.model import (
    asked_wrapping,
    context_length,
    end_token_ids,
    is_sharded,
    load_model,
    load_tokenizer,
    on_gpu,
    wrapped_as,
)
from selftaught.stages.training.processes import Processes
from selftaught.stages.training.rows import TokenRows, tokenise
from selftaught.stages.training.settings import sft_config
from selftaught.stages.training.storage import WorkFolder

SAVING_SHARE = 0.02
"""Checkpoints are written more often than `saveSteps` asks while that takes no more than this share of the time."""
GUESSED_BYTES_PER_SECOND = 200e6
"""How fast a checkpoint is written, until the first one has shown it."""


@dataclass(frozen=True)
class Outcome:
    """What a training came to."""

    candidates: tuple[Checkpoint, ...]
    stats: TrainingStats
    seconds: float
    message: str


@dataclass
class Session:
    """A training. `examples_hash` names its data in the model card."""

    config: TrainConfig
    context: StageContext
    examples: tuple[Any, ...]
    examples_hash: str
    work: WorkFolder
    processes: Processes
    clock: Callable[[], float] = time.monotonic
    _candidates: tuple[Checkpoint, ...] = ()
    _resumed: checkpoints.Checkpoint | None = None
    _earlier_seconds: float = 0.0
    _saved_at: float = 0.0
    _save_seconds: float = 0.0
    _saved_step: int = 0
    _wrapped: str = "None"
    _stopped: bool = False

    def run(self) -> Outcome:
        """Train. Raises Interrupted after saving when asked to stop."""
        self._started = self._saved_at = self.clock()
        config, training = self.config, self.config.training
        self._base = self.context.models(config.model)
        float_dtype(self._base)  # what cannot be written in the end is refused now
        tokenizer = load_tokenizer(self._base)
        self._rows = self._tokenise(tokenizer)
        self._plan = plan = self._plan_batches()
        arguments = sft_config(training, plan, self.processes, self.work.local / "trainer")
        self.processes.agree((self.examples_hash, len(self._rows.rows), plan), "examples")
        self._resume()
        trainer = self._trainer(load_model(self._base, training, self.processes), tokenizer, arguments)
        resumed = self._resumed
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed.path))
        if self._stopped:
            raise Interrupted(f"stopped after step {trainer.state.global_step} of {trainer.state.max_steps}, saved")
        return self._outcome(trainer)

    def _tokenise(self, tokenizer: Any) -> TokenRows:
        most = self.config.training.max_length
        context = context_length(self._base)
        return tokenise(
            self.examples,
            tokenizer,
            end_token_ids(self._base, tokenizer),
            most if context is None else min(most, context),
        )

    def _plan_batches(self) -> BatchPlan:
        training = self.config.training
        lengths = tuple(len(row.input_ids) for row in self._rows.rows)
        batch_size = min(training.batch_size, len(lengths))
        tokens = GPU_TOKENS if on_gpu() else CPU_TOKENS
        return BatchPlan(
            lengths=lengths,
            batch_size=batch_size,
            micro_batch_size=training.micro_batch_size
            or micro_batch_size(batch_size, self.processes.count, max(lengths), tokens),
            processes=self.processes.count,
            seed=training.seed,
        )

    def _resume(self) -> None:
        """Find the last checkpoint to go on from; each process looks at the files that it needs."""
        names = {state.tensor_file(self._weights_rank), state.tensor_file(self.processes.rank)}
        names |= {state.STATE, state.TRAINER_STATE}
        found = {checkpoint.step: checkpoint for checkpoint in self.work.found(self.config.key)}
        for step in self.processes.from_first(sorted(found, reverse=True)):
            checkpoint = found.get(step)
            whole = checkpoint is not None and self.work.ready(checkpoint, names)
            if checkpoint is None or not all(self.processes.gather(whole)):
                continue
            progress = state.read_progress(checkpoint.path)
            if not all(self.processes.from_first([self.work.has(candidate) for candidate in progress.candidates])):
                continue
            self._resumed = checkpoint
            self._candidates = progress.candidates
            self._earlier_seconds = progress.seconds
            self._saved_step = step
            break
        self.processes.barrier()
        if self.processes.writes:
            checkpoints.clear(self.work.local, self._resumed)
        self.processes.barrier()

    @property
    def _weights_rank(self) -> int:
        """Whose file holds this process's weights."""
        return self.processes.rank if is_sharded(self.config.training, self.processes) else 0

    def _trainer(self, model: Any, tokenizer: Any, arguments: Any) -> Any:
        from selftaught.stages.training.trainer import JudgeTrainer

        return JudgeTrainer(
            rows=self._rows.rows,
            plan=self._plan,
            rank=self.processes.rank,
            after_step=self._after_step,
            restore=self._restore,
            after_wrapping=self._check_wrapping,
            model=model,
            args=arguments,
            processing_class=tokenizer,
        )

    def _check_wrapping(self, wrapped: Any) -> None:
        self._save_seconds = state.size(wrapped) / GUESSED_BYTES_PER_SECOND
        self._wrapped = wrapped_as(wrapped)
        asked = asked_wrapping(self.config.training, self.processes)
        if self._wrapped != asked:
            raise ModelError(f"the model should be spread as {asked} but is as {self._wrapped}; use another strategy")

    def _restore(self, trainer: Any, part: str) -> None:
        if self._resumed is None:
            return
        path = self._resumed.path
        weights = path / state.tensor_file(self._weights_rank)
        if part == "weights":
            state.load_weights(weights, trainer.model)
        elif part == "moments":
            state.load_moments(weights, trainer.model, trainer.optimizer.optimizer)
            trainer.lr_scheduler.load_state_dict(state.read_progress(path).scheduler)
            for group, rate in zip(trainer.optimizer.param_groups, trainer.lr_scheduler.get_last_lr(), strict=True):
                group["lr"] = rate
        else:
            state.load_random(path / state.tensor_file(self.processes.rank))

    def _after_step(self, trainer: Any) -> None:
        step, last = trainer.state.global_step, trainer.state.max_steps
        loss = trainer.state.log_history[-1]["loss"]
        if not math.isfinite(loss):
            raise ModelError(f"the loss is {loss} at step {step}; lower training.learningRate or use precision FP32")
        if self.processes.writes:
            self.context.progress.update(done=step, total=last, unit="steps", output_tokens=self._tokens[step])
        epoch, rest = divmod(step, self._plan.steps_per_epoch)
        if rest == 0 and (self.config.keep_all_epochs or step == last):
            self._write_candidate(trainer, epoch)
        stop, save = self._decide(step)
        if step == last:
            return
        if stop or save:
            self._save(trainer)
        if stop:
            self._stopped = True
            trainer.control.should_training_stop = True

    def _decide(self, step: int) -> tuple[bool, bool]:
        """Whether to stop and whether to save: all processes do the same thing at the same step."""
        since = self.clock() - self._saved_at
        save = step - self._saved_step >= self.config.training.save_steps or since * SAVING_SHARE > self._save_seconds
        wishes = self.processes.gather((self.context.stopping(), save))
        return any(stop for stop, _ in wishes), wishes[0][1]

    def _save(self, trainer: Any) -> None:
        began = self.clock()
        step = trainer.state.global_step
        path = self.work.local / f"{checkpoints.UNFINISHED}{step:08d}"
        if self.processes.writes:
            checkpoints.begin(self.work.local, step)
        self.processes.barrier()
        path.mkdir(parents=True, exist_ok=True)  # a node with a scratch disk of its own
        tensors = path / state.tensor_file(self.processes.rank)
        state.save_tensors(
            tensors,
            trainer.model,
            trainer.optimizer.optimizer,
            weights=self._weights_rank == self.processes.rank,
        )
        entries = self.processes.gather(checkpoints.synced_entry(tensors))
        self.work.keep_file(tensors, step)
        if self.processes.writes:
            trainer.state.save_to_json(str(path / state.TRAINER_STATE))
            progress = state.Progress(
                candidates=self._candidates, scheduler=trainer.lr_scheduler.state_dict(), seconds=self._seconds()
            )
            state.write_progress(path, progress)
            for name in (state.STATE, state.TRAINER_STATE):
                self.work.keep_file(path / name, step)
        self.processes.barrier()
        if self.processes.writes:
            self.work.keep(checkpoints.finish(path, self.config.key, step, entries))
        self.processes.barrier()
        self._saved_at = self.clock()
        self._save_seconds = self._saved_at - began
        self._saved_step = step

    def _write_candidate(self, trainer: Any, epoch: int) -> None:
        facts = CardFacts(
            epoch=epoch,
            examples=len(self._rows.rows),
            data_hash=self.examples_hash,
            steps=trainer.state.global_step,
            losses=tuple(self._epoch_loss(trainer, number) for number in range(1, epoch + 1)),
            licence=base_licence(self._base),
            processes=self.processes.count,
            wrapped_as=self._wrapped,
        )
        name = f"epoch-{epoch}"
        card = model_card(self.config, facts)
        entries = write_folder(self.work.candidate(name), self._base, trainer.model, card, self.processes)
        if self.processes.writes:
            self.work.keep_candidate(name)
        digest = self.processes.from_first(checkpoints.folder_hash(entries))
        candidate = Checkpoint(uri=f"{self.work.output.uri}/{name}", sha256=digest, epoch=epoch)
        self._candidates = (*(other for other in self._candidates if other.epoch != epoch), candidate)

    def _epoch_loss(self, trainer: Any, epoch: int) -> float:
        """Mean over the steps of an epoch (from 1)."""
        steps = self._plan.steps_per_epoch
        losses = [
            entry["loss"]
            for entry in trainer.state.log_history
            if "loss" in entry and (epoch - 1) * steps < entry["step"] <= epoch * steps
        ]
        return float(sum(losses) / len(losses))

    @cached_property
    def _tokens(self) -> list[int]:
        """Non-padding tokens trained on after so many steps."""
        steps = (rows for epoch in range(self.config.training.epochs) for rows in self._plan.steps(epoch))
        return [0, *accumulate(sum(self._plan.lengths[row] for row in rows) for rows in steps)]

    def _seconds(self) -> float:
        return self._earlier_seconds + self.clock() - self._started

    def _outcome(self, trainer: Any) -> Outcome:
        training = self.config.training
        steps = trainer.state.max_steps
        if not self._candidates:
            raise TransientError("the training ended without a checkpoint; start it again")
        stats = TrainingStats(
            examples=len(self._rows.rows),
            dropped=self._rows.cut_off,
            steps=steps,
            tokens=self._rows.tokens * training.epochs,
            loss=self._epoch_loss(trainer, training.epochs),
            wrapped_as=self._wrapped,
            processes=self.processes.count,
        )
        short = training.warmup_steps >= steps
        return Outcome(
            candidates=self._candidates,
            stats=stats,
            seconds=self._seconds(),
            message=f"the warm-up of {training.warmup_steps} steps is as long as the whole training ({steps} steps)"
            if short
            else "",
        )
