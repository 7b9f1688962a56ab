import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught.api.stage_config import PromptTexts
from selftaught.errors import PermanentError
from selftaught.judging.modifications import parse_modification
from selftaught.judging.prompts import load
from selftaught.microworld.prompts import PROMPTS
from selftaught.microworld.seed import Exchange, judgment_exchange, modification_exchange, task_exchange
from selftaught.microworld.tasks import FAMILIES, Split, split_of
from selftaught.microworld.tokenizer import CONTEXT_TOKENS, vocabulary
from selftaught.microworld.world import SIZES, Size, benchmark_rows, build, instruction_rows
from selftaught.records import BenchmarkPair

rngs = st.integers(0, 2**32).map(random.Random)


def items_of(instruction: str) -> tuple[str, ...]:
    return tuple(instruction.split()[-4:])


def test_the_templates_are_valid_for_the_project() -> None:
    assert isinstance(load(PROMPTS), PromptTexts)


@pytest.mark.parametrize("size", Size)
def test_no_argument_of_an_evaluation_occurs_in_training(size: Size) -> None:
    settings = SIZES[size]
    pool = {items_of(row["instruction"]) for row in instruction_rows(settings, 0)}
    development = {
        items_of(row["instruction"]) for row in benchmark_rows(settings, Split.DEVELOPMENT, settings.development, 0)
    }
    test = {items_of(row["instruction"]) for row in benchmark_rows(settings, Split.TEST, settings.test, 0)}
    assert not pool & development
    assert not pool & test
    assert not development & test


@given(rngs)
def test_the_seed_is_trained_on_training_arguments_only(rng: random.Random) -> None:
    for make in (task_exchange, modification_exchange, judgment_exchange):
        assert split_of(items_of(make(rng).prompt)) is Split.TRAINING


@pytest.mark.parametrize("size", Size)
def test_rows(size: Size) -> None:
    settings = SIZES[size]
    pool = instruction_rows(settings, 0)
    pairs = [BenchmarkPair(**row) for row in benchmark_rows(settings, Split.TEST, settings.test, 0)]
    assert len(pool) == settings.instructions
    assert len(pairs) == settings.test
    for texts in ([row["instruction"] for row in pool], [pair.instruction for pair in pairs]):
        assert len(set(texts)) == len(texts)
    assert len({row["id"] for row in pool}) == len(pool)
    assert len({pair.id for pair in pairs}) == len(pairs)
    assert all(pair.chosen != pair.rejected for pair in pairs)
    assert {pair.subset for pair in pairs} == {family.name for family in settings.families}


def test_rows_depend_on_the_seed_alone() -> None:
    settings = SIZES[Size.SMALL]
    assert instruction_rows(settings, 1) == instruction_rows(settings, 1)
    assert instruction_rows(settings, 1) != instruction_rows(settings, 2)


@given(rngs)
def test_modifications_have_the_form_that_the_project_parses(rng: random.Random) -> None:
    exchange = modification_exchange(rng)
    modification = parse_modification(exchange.completion)
    assert modification is not None
    assert modification.instruction not in exchange.prompt
    assert f"Response: {modification.response}\n" not in exchange.prompt


@given(rngs, st.sampled_from([task_exchange, modification_exchange, judgment_exchange]))
def test_every_word_is_a_token_and_messages_fit_the_context(rng: random.Random, make: object) -> None:
    assert callable(make)
    exchange = make(rng)
    assert isinstance(exchange, Exchange)
    words = f"{exchange.prompt} {exchange.completion}".split()
    assert set(words) <= set(vocabulary())
    assert len(words) < CONTEXT_TOKENS / 2


def test_no_token_occurs_twice() -> None:
    assert len(set(vocabulary())) == len(vocabulary())


def test_small_families_have_neighbours_among_themselves() -> None:
    small = SIZES[Size.SMALL].families
    names = {family.name for family in small}
    assert set(small) < set(FAMILIES)
    assert all(names & set(family.neighbours) for family in small)


def test_an_unknown_size_is_told(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="unknown size 'huge'; there are small, full"):
        build(tmp_path, size="huge", seed=0, report=print)


def test_importing_the_world_imports_no_model_library() -> None:
    code = (
        "import sys, selftaught.microworld.world; sys.exit(bool({'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
