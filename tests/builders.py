"""Small, valid things that tests start from; every field can be overridden."""

from datetime import UTC, datetime, timedelta
from typing import Any

from selftaught.api.results import (
    Checkpoint,
    CurationStats,
    Score,
    Stage,
    StageResult,
    TrainingStats,
    Usage,
)
from selftaught.api.run import SelfTaughtRun
from selftaught.api.spec import Approval, Decision
from selftaught.api.stage_config import PromptTexts
from selftaught.artifacts import Manifest
from selftaught.loop.observed import Attempt, AttemptProgress, AttemptState, Failure, FailureKind, Observed

T0 = datetime(2026, 1, 1, tzinfo=UTC)
"""A time; tests count from here."""

PROMPTS = PromptTexts(
    categorise="Which category? {{instruction}}",
    respond="{{instruction}}",
    modify="Change {{instruction}}, answered by {{response}}.",
    judge="Which is better for {{instruction}}: {{response_a}} or {{response_b}}?",
)

JsonObject = dict[str, Any]


def at(seconds: float) -> datetime:
    """A time after T0."""
    return T0 + timedelta(seconds=seconds)


def a_manifest(**spec: Any) -> JsonObject:
    """A run manifest as YAML would give it: one Selection and one Gate benchmark, two iterations."""
    return {
        "apiVersion": "selftaught.dev/v1alpha1",
        "kind": "SelfTaughtRun",
        "metadata": {"name": "demo", "namespace": "lab", "generation": 1},
        "spec": {
            "iterations": 2,
            "seed": {"model": {"uri": "pvc://models/seed"}},
            "instructions": {"sources": [{"name": "chat", "uri": "pvc://data/chat.jsonl"}]},
            "evaluation": {
                "benchmarks": [
                    {"name": "choice", "uri": "pvc://data/choice.jsonl", "role": "Selection"},
                    {"name": "guard", "uri": "pvc://data/guard.jsonl", "role": "Gate", "maxDrop": "0.02"},
                ]
            },
            "storage": {"uri": "pvc://artifacts/runs"},
            **spec,
        },
    }


def a_run(*, name: str = "demo", annotations: dict[str, str] | None = None, **spec: Any) -> SelfTaughtRun:
    """A run; keywords replace fields of its spec (camelCase, as in a manifest)."""
    manifest = a_manifest(**spec)
    manifest["metadata"] |= {"name": name, "annotations": annotations or {}}
    return SelfTaughtRun.model_validate(manifest)


def a_score(benchmark: str = "choice", accuracy: float = 0.7, **fields: Any) -> Score:
    """A score with an interval of 0.05 to each side."""
    defaults: JsonObject = {
        "pairs": 100,
        "low": max(0.0, accuracy - 0.05),
        "high": min(1.0, accuracy + 0.05),
        "consistent_accuracy": accuracy / 2,
        "prefers_first": 0.5,
        "prefers_longer": 0.5,
        "longer_baseline": 0.5,
        "unparsable": 0.1,
    }
    return Score(benchmark=benchmark, accuracy=accuracy, **(defaults | fields))


def a_checkpoint(iteration: int = 1, epoch: int = 1, **fields: Any) -> Checkpoint:
    """A checkpoint whose hash tells iteration and epoch."""
    defaults: JsonObject = {
        "uri": f"pvc://artifacts/runs/lab/demo/i{iteration}-train/epoch-{epoch}",
        "sha256": f"{iteration:032x}{epoch:032x}",
    }
    return Checkpoint(epoch=epoch, **(defaults | fields))


def some_curation(kept: int = 80, **fields: Any) -> CurationStats:
    """Curation of 100 pairs in both orders."""
    defaults: JsonObject = {
        "pairs": 100,
        "examples": 200,
        "samples": 400,
        "correct": 180,
        "unparsable": 20,
        "solved": 100,
        "kept_a": kept // 2,
        "kept_b": kept - kept // 2,
        "prefers_a": 0.5,
        "mean_length": 60.0,
    }
    return CurationStats(kept=kept, **(defaults | fields))


def a_result(stage: Stage, iteration: int = 0, key: str = "", **fields: Any) -> StageResult:
    """What a stage says that ended well: 1,000 output tokens, and what the stages after it need."""
    defaults: JsonObject = {"rows": 100, "usage": Usage(input_tokens=5000, output_tokens=1000, seconds=60.0)}
    match stage:
        case Stage.CURATE:
            defaults |= {"curation": some_curation(), "usage": Usage(seconds=1.0)}
        case Stage.TRAIN:
            training = TrainingStats(
                examples=80, dropped=0, steps=10, tokens=8000, loss=0.5, wrapped_as="None", processes=1
            )
            defaults |= {"training": training, "checkpoints": (a_checkpoint(iteration),)}
        case Stage.EVALUATE:
            defaults |= {
                "scores": (a_score("choice", min(0.95, 0.6 + 0.05 * iteration)), a_score("guard", 0.6)),
                "checkpoint": a_checkpoint(iteration) if iteration else None,
            }
    return StageResult(stage=stage, iteration=iteration, key=key, **(defaults | fields))


def an_entry(result: StageResult, start: datetime = T0, seconds: float = 60.0, **fields: Any) -> Manifest:
    """The ledger entry of a finished stage."""
    return Manifest(
        result=result, files=(), start_time=start, completion_time=start + timedelta(seconds=seconds), **fields
    )


def a_failure(kind: FailureKind = FailureKind.PROGRAM, reason: str = "Storage", message: str = "it broke") -> Failure:
    """Why an attempt failed."""
    return Failure(reason=reason, message=message, kind=kind)


def an_attempt(
    stage: Stage, iteration: int = 0, number: int = 1, state: AttemptState = AttemptState.RUNNING, **fields: Any
) -> Attempt:
    """An attempt that began at T0; one that ended did so a minute later."""
    waits = state in (AttemptState.PENDING, AttemptState.QUEUED)
    over = state in (AttemptState.SUCCEEDED, AttemptState.FAILED)
    defaults: JsonObject = {
        "name": f"demo-i{iteration}-{stage}-a{number}" if iteration else f"demo-{stage}-a{number}",
        "key": "0" * 64,
        "start_time": None if waits else T0,
        "end_time": at(60) if over else None,
        "queued_since": T0 if state is AttemptState.QUEUED else None,
        "failure": a_failure() if state is AttemptState.FAILED else None,
    }
    return Attempt(stage=stage, iteration=iteration, number=number, state=state, **(defaults | fields))


def some_progress(fraction: float = 0.43, seconds: float = 30.0, **fields: Any) -> AttemptProgress:
    """Progress told some seconds after T0."""
    return AttemptProgress(fraction=fraction, time=at(seconds), **fields)


def an_approval(iteration: int = 1, decision: Decision = Decision.APPROVED, **fields: Any) -> Approval:
    """A person's decision."""
    return Approval(iteration=iteration, decision=decision, by=fields.pop("by", "jane"), **fields)


def observed(*attempts: Attempt, **fields: Any) -> Observed:
    """What a planner knows, with the test prompts."""
    return Observed(prompts=fields.pop("prompts", PROMPTS), attempts=attempts, **fields)
