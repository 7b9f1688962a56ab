"""judgments → training examples. One process, no model: what is kept is decided by `judging.curation`."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from selftaught.api.judging import Orders
from selftaught.api.results import StageResult
from selftaught.api.stage_config import CurateConfig
from selftaught.artifacts import ROWS, Folder, fingerprint
from selftaught.errors import DataError, Interrupted
from selftaught.judging import prompts
from selftaught.judging.curation import Curation, ExampleSamples, Kept, Sample, curate
from selftaught.judging.dataset_card import dataset_card
from selftaught.records import Example, Judgment, Order, ResponsePair, Verdict
from selftaught.stages import shards
from selftaught.stages.context import StageContext

STATISTICS = "statistics.json"
CARD = "README.md"

T = TypeVar("T")


def run(config: CurateConfig, context: StageContext) -> StageResult:
    """Write the kept judgments as rows of `Example`, `statistics.json` and a data card.

    With no judgment kept, the result says so and what may help; whether that ends the run is the planner's to
    decide. Raises DataError when an input is incomplete or the two do not fit together.
    """
    folder = context.store.folder(config.output)
    if (result := shards.finished(folder, config.key)) is not None:
        return result
    partial = StageResult(stage=config.stage, iteration=config.iteration, key=config.key)
    if context.shard.index > 0:
        return shards.finish(folder, context, partial)
    with shards.Clock(folder, config.key, context) as clock:
        pairs_folder, judgments_folder = context.store.folder(config.pairs), context.store.folder(config.judgments)
        hashes = {
            "response pairs": _content_hash(pairs_folder, "generate"),
            "judgments": _content_hash(judgments_folder, "judge"),
            "judge prompt": fingerprint(config.prompts.judge),
            "all that determines this data": config.key,
        }
        pairs = {pair.id: pair for pair in _watched(pairs_folder.rows(ResponsePair), context, clock)}
        curation = curate(
            _examples(pairs, _watched(judgments_folder.rows(Judgment), context, clock), config),
            config.judging,
            config.iteration,
        )
        _write_rows(folder, _watched(_rows(pairs, judgments_folder, curation, config), context, clock))
        statistics = curation.statistics
        folder.write(STATISTICS, statistics.model_dump_json(indent=1).encode())
        folder.write(CARD, dataset_card(config, statistics, hashes).encode())
    dropped = {
        "unsolved": statistics.unsolved,
        "belowAgreement": statistics.below_agreement,
        "balance": statistics.left_out_for_balance,
    }
    partial = partial.model_copy(
        update={
            "rows": statistics.counts.kept,
            "dropped": {reason: count for reason, count in dropped.items() if count},
            "curation": statistics.counts,
            "message": _advice(curation, config),
        }
    )
    context.progress.update(done=statistics.counts.kept, total=statistics.counts.kept, unit="examples")
    return shards.finish(folder, context, partial)


def _examples(
    pairs: dict[str, ResponsePair], judgments: Iterable[Judgment], config: CurateConfig
) -> list[ExampleSamples]:
    orders = tuple(Order) if config.judging.orders is Orders.BOTH else (Order.CHOSEN_FIRST,)
    samples: dict[tuple[str, Order], list[Sample]] = {(pair_id, order): [] for pair_id in pairs for order in orders}
    for judgment in judgments:
        found = samples.get((judgment.pair_id, judgment.order))
        if found is None:
            raise DataError(
                f"{config.judgments} judges {judgment.pair_id} ({judgment.order}), which is not asked for in "
                f"{config.pairs}; judge these pairs again"
            )
        found.append(Sample(judgment.index, judgment.verdict, judgment.output_tokens))
    return [
        ExampleSamples(
            pair_id=pair_id,
            order=order,
            samples=tuple(sorted(found, key=lambda sample: sample.index)),
            length_difference=len(pairs[pair_id].chosen) - len(pairs[pair_id].rejected),
        )
        for (pair_id, order), found in sorted(samples.items())
    ]


def _rows(
    pairs: dict[str, ResponsePair], judgments: Folder, curation: Curation, config: CurateConfig
) -> Iterator[Example]:
    """Kept rows in their order. The texts are read once more: only those that are kept are held in memory."""
    wanted = {kept.judgment_id for kept in curation.kept}
    texts = {row.id: row.text for row in judgments.rows(Judgment) if row.id in wanted}
    for kept in curation.kept:
        yield _example(pairs[kept.example.pair_id], kept, texts[kept.judgment_id], config)


def _example(pair: ResponsePair, kept: Kept, text: str, config: CurateConfig) -> Example:
    message = prompts.judge_message(config.prompts, pair.instruction, pair.chosen, pair.rejected, kept.example.order)
    return Example(
        prompt=[{"role": "user", "content": message}],
        completion=[{"role": "assistant", "content": text}],
        id=kept.judgment_id,
        verdict=kept.sample.verdict,
    )


def _write_rows(folder: Folder, rows: Iterable[Example]) -> None:
    """Write from the beginning: what a killed process left is cheap to make again."""
    for name in folder.names():
        if name.startswith(f"{ROWS}-"):
            folder.delete(name)
    with folder.writer(0, 1) as writer:
        for row in rows:
            writer.append(row)


def _watched(rows: Iterable[T], context: StageContext, clock: shards.Clock) -> Iterator[T]:
    for row in rows:
        if context.stopping():
            raise Interrupted("asked to stop; curation begins anew at the next start")
        clock.tick()
        yield row


def _content_hash(folder: Folder, stage: str) -> str:
    manifest = folder.manifest()
    if manifest is None:
        raise DataError(f"{folder.uri} is not complete; run the stage {stage} first")
    if manifest.pruned:
        raise DataError(f"the rows of {folder.uri} were deleted; delete its manifest and run the stage {stage} again")
    return fingerprint([(entry.name, entry.sha256) for entry in manifest.files])


def _advice(curation: Curation, config: CurateConfig) -> str:
    """What to do when there is nothing to train on, or when labels cannot be balanced."""
    statistics, counts = curation.statistics, curation.statistics.counts
    if counts.kept:
        if config.judging.orders is Orders.CHOSEN_FIRST:
            return "every kept verdict is A, since only one order was judged; use orders: Both to balance labels"
        return ""
    nothing = f"no judgment kept of {counts.samples}"
    if counts.samples == 0:
        return f"{nothing}: there were none; check that pairs were made"
    if counts.unparsable * 2 > counts.samples:
        return (
            f"{nothing}: {counts.unparsable} have no verdict; set judging.guidedVerdict: true, raise "
            "judging.sampling.maxTokens, or choose a stronger seed"
        )
    if counts.solved == 0:
        return f"{nothing}: no verdict is right; raise judging.samplesPerPair or choose a stronger seed"
    if statistics.left_out_for_balance:
        side = Verdict.A if statistics.pass_rate_chosen_first > statistics.pass_rate_rejected_first else Verdict.B
        return (
            f"{nothing}: right verdicts are all {side}, so labels cannot be balanced; the judge decides by position: "
            "choose a stronger seed or raise judging.samplesPerPair"
        )
    return f"{nothing}: too few samples agree; lower judging.minAgreement or raise judging.samplesPerPair"
