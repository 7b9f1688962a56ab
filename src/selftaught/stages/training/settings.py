"""The run's training settings in TRL's words."""

from pathlib import Path
from typing import Any

from selftaught.api.judging import Precision, Schedule, Training
from selftaught.stages.training.batches import BatchPlan
from selftaught.stages.training.model import is_sharded, on_gpu, varlen_attention
from selftaught.stages.training.processes import Processes

SCHEDULES = {
    Schedule.COSINE: "cosine_with_min_lr",
    Schedule.LINEAR: "linear",
    Schedule.CONSTANT: "constant_with_warmup",
}


def sft_config(training: Training, plan: BatchPlan, processes: Processes, scratch: Path) -> Any:
    """A `trl.SFTConfig`. Rows come tokenised and whole, so `max_length` is off; saving is our own."""
    from trl import SFTConfig

    cosine = training.schedule is Schedule.COSINE
    return SFTConfig(
        output_dir=str(scratch),
        use_cpu=not on_gpu(),
        seed=training.seed,
        num_train_epochs=training.epochs,
        per_device_train_batch_size=plan.micro_batch_size,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=float(training.learning_rate),
        lr_scheduler_type=SCHEDULES[training.schedule],
        lr_scheduler_kwargs={"min_lr_rate": float(training.final_learning_rate_ratio)} if cosine else None,
        warmup_steps=training.warmup_steps,
        optim="adamw_torch_fused",
        adam_beta1=float(training.betas[0]),
        adam_beta2=float(training.betas[1]),
        weight_decay=float(training.weight_decay),
        max_grad_norm=float(training.max_gradient_norm),
        # Sharded models compute in bf16 by FSDP's own policy; autocast is for the others.
        bf16=training.precision is Precision.BF16 and not is_sharded(training, processes),
        tf32=None,
        gradient_checkpointing=training.gradient_checkpointing,
        max_length=None,
        packing=False,
        padding_free=varlen_attention(training),
        completion_only_loss=True,
        ddp_find_unused_parameters=False,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",  # transformers adds Kubeflow's where the environment names its receiver
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
    )
