"""TRL's SFTTrainer with planned batches, a loss on the target tokens alone, and hooks after each step."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PrinterCallback
from transformers.integrations import KubeflowCallback
from trl import SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from selftaught.stages.training.background import BackgroundCallback
from selftaught.stages.training.batches import BatchPlan
from selftaught.stages.training.rows import IGNORED, TokenRow


def has_fast_fused_head(device: torch.device) -> bool:
    """Whether TRL's fused output head skips prompt tokens there; on a CPU it computes all of them, in pieces."""
    return bool(device.type == "cuda")


class PlannedRows(Dataset):  # type: ignore[misc]
    """Rows by number; `~number` is the same row without loss."""

    def __init__(self, rows: tuple[TokenRow, ...]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        row = self._rows[number if number >= 0 else ~number]
        labels = row.labels if number >= 0 else [IGNORED] * len(row.input_ids)
        return {"input_ids": list(row.input_ids), "labels": labels}


class PlannedBatches(Sampler):  # type: ignore[misc]
    """The micro batches of one process in the current epoch."""

    def __init__(self, plan: BatchPlan, rank: int) -> None:
        self._plan = plan
        self._rank = rank
        self._epoch = 0

    @property
    def batch_sampler(self) -> "PlannedBatches":
        """Where the Trainer looks for something that wants to know the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._plan.micro_batches_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        return self._plan.micro_batches(self._epoch, self._rank)


class JudgeTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains on judgments.

    `rows` are whole and tokenised, `plan` says how they are batched. `after_wrapping` gets the model as it is spread
    over processes, `after_step` is called when a step's loss is in the history, and `restore` puts the `weights`,
    `moments` and `random` states of a checkpoint back when the Trainer asks for them.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        rows: tuple[TokenRow, ...],
        plan: BatchPlan,
        rank: int,
        after_step: Callable[["JudgeTrainer"], None],
        restore: "Callable[[JudgeTrainer, str], None]",
        after_wrapping: Callable[[Any], None],
        **arguments: Any,
    ) -> None:
        from datasets import Dataset as Table

        # What TRL is shown to find that rows are tokenised; the loader below serves all of them.
        shown = Table.from_list([{"input_ids": list(rows[0].input_ids), "labels": rows[0].labels}])
        super().__init__(train_dataset=shown, **arguments)
        self.remove_callback(PrinterCallback)
        if (reports := self.pop_callback(KubeflowCallback)) is not None:
            self.add_callback(BackgroundCallback(reports))
        self._planned_rows = PlannedRows(rows)
        self._planned_batches = PlannedBatches(plan, rank)
        self._after_step = after_step
        self._restore = restore
        self._after_wrapping = after_wrapping
        self._steps_seen = -1
        self._targets: torch.Tensor | None = None
        causal = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        self._fused = has_fast_fused_head(self.args.device)
        if self._fused:
            # Without entropy and accuracy, which nobody reads.
            add_fused_lm_head(causal, outputs=("log_probs",))
        else:
            causal.get_output_embeddings().register_forward_pre_hook(self._only_targets)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Planned batches, each process its own."""
        return DataLoader(
            self._planned_rows, batch_sampler=self._planned_batches, collate_fn=self.data_collator, num_workers=0
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Sum of the target tokens' losses over the number of target tokens of the whole step.

        Logits are computed where a target is and nowhere else. `inputs` holds `input_ids` and `labels`, both
        (rows, tokens).
        """
        del return_outputs
        if num_items_in_batch is None:
            raise ValueError("the number of target tokens of a step must be known")
        inputs = {**inputs, "use_cache": False}
        if self._fused:
            total = -model(**inputs, fused_lm_head=True).log_probs.sum()
        else:
            following = torch.nn.functional.pad(inputs.pop("labels")[:, 1:], (0, 1), value=IGNORED)
            self._targets = following != IGNORED
            logits = model(**inputs).logits[0]
            total = cross_entropy(logits.float(), following[self._targets], reduction="sum")
            self._targets = None
        # DDP and FSDP average over processes, the number of target tokens is that of all.
        return total * self.accelerator.num_processes / num_items_in_batch

    def _only_targets(self, _module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> Any:
        """Hidden states (rows, tokens, width) → (1, targets, width), before the output head."""
        if self._targets is None:
            return arguments
        return (arguments[0][self._targets].unsqueeze(0), *arguments[1:])

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        targets = sum((batch["labels"][:, 1:] != IGNORED).sum() for batch in batch_samples)
        return self.accelerator.gather(torch.as_tensor(targets, device=device).reshape(1)).sum().clamp(min=1)

    def _prepare_for_training(self, *arguments: Any, **keywords: Any) -> Any:
        wrapped, loader = super()._prepare_for_training(*arguments, **keywords)
        self._after_wrapping(wrapped)
        return wrapped, loader

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: nobody reads it, and counting takes a walk over all weights for each batch."""
        del inputs
        return 0

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's own log; TRL adds metrics that are not computed here."""
        super(SFTTrainer, self).log(logs, start_time)

    def _maybe_log_save_evaluate(self, *arguments: Any, **keywords: Any) -> None:
        super()._maybe_log_save_evaluate(*arguments, **keywords)
        if self.state.global_step != self._steps_seen:
            self._steps_seen = self.state.global_step
            self._after_step(self)

    # The Trainer asks for a checkpoint's parts in this order: weights, (its own state,) moments, random states.

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        del resume_from_checkpoint, model
        self._restore(self, "weights")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self._restore(self, "moments")

    def _load_scaler(self, checkpoint: str | None) -> None:
        del checkpoint

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self._restore(self, "random")
