"""The card that goes with training examples, as Markdown with the front matter that data hubs read."""

from collections.abc import Mapping

import yaml

from selftaught.api.judging import JudgingStrategy, Orders
from selftaught.api.stage_config import CurateConfig
from selftaught.judging.statistics import CurationStatistics

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(config: CurateConfig, statistics: CurationStatistics, hashes: Mapping[str, str]) -> str:
    """Tell how the examples were made, from what, and how many there are. `hashes` are sha256 by what they are of."""
    counts = statistics.counts
    title = f"Training examples of {config.run}, iteration {config.iteration}"
    front_matter = yaml.safe_dump(
        {
            "pretty_name": title,
            "license": "other",
            "task_categories": ["text-generation"],
            "tags": ["llm-as-a-judge", "self-taught-evaluator", "synthetic"],
            "size_categories": [next((name for limit, name in _SIZES if counts.kept < limit), "n>1M")],
            "configs": [{"config_name": "default", "data_files": "rows-*.jsonl"}],
        },
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
    )
    model = f"`{config.judge_model.uri}`" + (
        f" at revision `{config.judge_model.revision}`" if config.judge_model.revision else ""
    )
    return f"""---
{front_matter}---

# {title}

Judgments of response pairs, written by a language model and kept because their verdict agrees with how the pair was
built. No person labelled anything. They are for training a judge as in *Self-Taught Evaluators*
(arXiv 2408.02666), and were made by `selftaught`.

## A row

- `prompt`: one user message, which asks to compare two responses, A and B
- `completion`: one assistant message, the judgment, with its verdict `[[A]]` or `[[B]]`
- `verdict`: the same verdict on its own
- `id`: pair, order and sample index of the judgment

Rows are sorted by `id`.

## How it was made

1. In each pair, one response answers the instruction; the other answers a modified instruction and is therefore the
   worse answer to the original one.
2. {model} judged {_orders(config)}, {_samples(config)}.
   {_sampling(config)}
3. Of each example (a pair in one order) {_kept(config)} was kept{_threshold(config)}.
4. {_balance(config)}

| | |
|---|---:|
| pairs | {counts.pairs} |
| examples | {counts.examples} |
| judgments drawn | {counts.samples} |
| without a verdict | {counts.unparsable} |
| examples with a correct judgment | {counts.solved} |
| below the agreement threshold | {statistics.below_agreement} |
| left out for balance | {statistics.left_out_for_balance} |
| kept | {counts.kept} |
| of these, A wins / B wins | {counts.kept_a} / {counts.kept_b} |
| mean length of a kept judgment, tokens | {counts.mean_length:.1f} |
| pass rate | {statistics.pass_rate:.3f} |
| share of A among verdicts | {counts.prefers_a:.3f} |

Pass rate and share of A are over {statistics.basis}. More figures are in `statistics.json`.

## What to keep in mind

The better response is better *by construction*; how often that is wrong was not measured here. A kept judgment has
the right verdict, which does not make its reasoning right.

## Where it comes from

| sha256 of | |
|---|---|
{chr(10).join(f"| {what} | `{value}` |" for what, value in sorted(hashes.items()))}

## Licence

The texts come from language models and from the instructions they were given. The licences of the instruction
sources and the terms of the generator and of the judge ({model}) apply to them; check these before passing the data
on.
"""


def _orders(config: CurateConfig) -> str:
    if config.judging.orders is Orders.BOTH:
        return "each pair in both orders, each an example of its own"
    return "each pair with the better response first"


def _sampling(config: CurateConfig) -> str:
    sampling = config.judging.sampling
    guided = " Texts were constrained to end in a verdict." if config.judging.guided_verdict else ""
    return (
        f"Sampling: temperature {sampling.temperature}, top-p {sampling.top_p}, "
        f"at most {sampling.max_tokens} new tokens.{guided}"
    )


def _samples(config: CurateConfig) -> str:
    number = config.judging.samples_per_pair
    if config.judging.strategy is JudgingStrategy.ADAPTIVE:
        return f"up to {number} times, until it was decided which judgment is kept"
    return f"{number} times"


def _kept(config: CurateConfig) -> str:
    adaptive = config.judging.strategy is JudgingStrategy.ADAPTIVE
    return "the first correct judgment by sample index" if adaptive else "one random correct judgment"


def _threshold(config: CurateConfig) -> str:
    least = config.judging.min_agreement
    return f", if at least {least:g} of the {config.judging.samples_per_pair} samples were correct" if least else ""


def _balance(config: CurateConfig) -> str:
    if config.judging.orders is Orders.BOTH:
        return "Random examples of the more frequent verdict were left out, so that A and B win equally often."
    return "Labels were not balanced: with the better response always first, A always wins."
