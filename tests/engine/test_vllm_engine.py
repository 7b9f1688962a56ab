"""The real engine, on tiny random models. One process, one start, weights swapped; a restart only where it is due."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_llama
from kills import Killed, killed_at
from selftaught.api.judging import Judging
from selftaught.api.placement import Dtype
from selftaught.api.placement import Engine as EngineSettings
from selftaught.api.references import ModelSource, Sampling
from selftaught.api.results import Stage
from selftaught.api.stage_config import JudgeConfig
from selftaught.errors import DataError, ModelError, TransientError
from selftaught.judging.prompts import load
from selftaught.records import Judgment, ResponsePair, Verdict
from selftaught.stages import judge
from selftaught.stages.context import Shard, StageContext
from selftaught.stages.engine import Completion, Request
from selftaught.stages.engine_holder import EngineHolder
from selftaught.stages.vllm_engine import VllmEngine
from stub_context import StubWorld, write_artifact

pytestmark = [
    pytest.mark.filterwarnings("ignore:max_rollback_tokens is deprecated:DeprecationWarning"),  # vLLM calls xgrammar
]

SETTINGS = EngineSettings(max_num_seqs=64, cpu_kv_cache_gib=1, dtype=Dtype.FLOAT32)
MESSAGES = [" ".join(f"w{(7 * number + 13 * word) % 200}" for word in range(20 + number)) for number in range(40)]
LONG = [" ".join(f"w{(number + word) % 200}" for word in range(440)) for number in range(30)]
GREEDY = Sampling(temperature=0, top_p=1, max_tokens=40)
RANDOM = Sampling(temperature=0.7, top_p=0.9, max_tokens=40)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_llama.build(folder / "first", seed=1)
    tiny_llama.build(folder / "second", seed=2)
    tiny_llama.build(folder / "wider", seed=3, hidden_size=96)
    tiny_llama.build(folder / "base", seed=4, chat_template=False)
    return folder


@pytest.fixture(scope="module")
def holder() -> Iterator[EngineHolder]:
    holder = EngineHolder()
    yield holder
    holder.close()


@pytest.fixture
def engine(holder: EngineHolder, models: Path) -> VllmEngine:
    engine = holder.engine(models / "first", SETTINGS)
    assert isinstance(engine, VllmEngine)
    return engine


def request(number: int, message: str, sampling: Sampling = RANDOM, **fields: object) -> Request:
    return Request(**({"id": f"r{number}", "message": message, "sampling": sampling, "seed": number} | fields))  # type: ignore[arg-type]


def answers(engine: VllmEngine, requests: list[Request]) -> dict[str, Completion]:
    for one in requests:
        engine.submit(one)
    found: dict[str, Completion] = {}
    while engine.active:
        found.update((completion.id, completion) for completion in engine.step())
    return found


def texts(engine: VllmEngine, requests: list[Request]) -> dict[str, str]:
    return {name: completion.text for name, completion in answers(engine, requests).items()}


def reference(folder: Path, messages: list[str]) -> list[list[str]]:
    """Words of greedy answers by transformers, a loader and kernels apart from the engine's."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for message in messages:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**prompt, max_new_tokens=GREEDY.max_tokens, do_sample=False)
        found.append(tokenizer.decode(output[0][prompt["input_ids"].shape[1] :], skip_special_tokens=True).split())
    return found


def test_a_seed_gives_the_same_text_whatever_else_is_in_the_batch(engine: VllmEngine) -> None:
    requests = [request(number, message) for number, message in enumerate(MESSAGES)]
    together = texts(engine, requests)
    assert texts(engine, requests[::-1]) == together
    for one in requests[::8]:
        assert texts(engine, [one]) == {one.id: together[one.id]}
    assert len({texts(engine, [request(0, MESSAGES[0], seed=seed)])["r0"] for seed in range(5)}) == 5


def test_more_prompts_than_one_step_takes_keep_their_seeds(engine: VllmEngine) -> None:
    """Half prefilled prompts with a seed crash vLLM on a CPU; here none are ever half prefilled."""
    requests = [request(number, message) for number, message in enumerate(LONG)]
    assert sum(engine.count_tokens(message) for message in LONG) > 2 * 4096
    together = texts(engine, requests)
    assert {one.id: texts(engine, [one])[one.id] for one in requests[::10]} == {
        one.id: together[one.id] for one in requests[::10]
    }


def test_greedy_answers_are_those_of_another_implementation(engine: VllmEngine, models: Path) -> None:
    found = texts(engine, [request(number, message, GREEDY) for number, message in enumerate(MESSAGES[:8])])
    assert [found[f"r{number}"].split() for number in range(8)] == reference(models / "first", MESSAGES[:8])


def test_swapped_weights_answer_as_if_freshly_started(holder: EngineHolder, models: Path) -> None:
    """The prompts fill a block of the prefix cache, which still holds the work of the other weights."""
    requests = [request(number, message, GREEDY) for number, message in enumerate(MESSAGES[-8:])]
    found: dict[str, dict[str, str]] = {}
    for name in ("first", "second", "first", "second"):
        engine = holder.engine(models / name, SETTINGS)
        assert isinstance(engine, VllmEngine)
        found.setdefault(name, texts(engine, requests))
        assert texts(engine, requests) == found[name]
        assert [found[name][f"r{number}"].split() for number in range(8)] == reference(models / name, MESSAGES[-8:])
    assert holder.starts == 1
    assert found["first"] != found["second"]


def test_each_text_is_handed_over_as_soon_as_it_is_done(engine: VllmEngine) -> None:
    order: list[str] = []
    for number in range(8):
        length = 40 - 5 * number
        engine.submit(request(number, MESSAGES[number], Sampling(max_tokens=length), pattern=r"(w1){100}"))
    while engine.active:
        order.extend(completion.id for completion in engine.step())
    assert order == [f"r{number}" for number in reversed(range(8))]


def test_texts_that_are_cut_off_say_so(engine: VllmEngine) -> None:
    found = answers(engine, [request(0, MESSAGES[0], Sampling(max_tokens=3), pattern=r"(w1){100}")])["r0"]
    assert (found.finish_reason, found.output_tokens) == ("length", 3)


def test_a_guided_text_matches_its_pattern(engine: VllmEngine) -> None:
    found = answers(
        engine,
        [request(number, message, pattern=r"w1w2(w3)?\[\[[AB]\]\]") for number, message in enumerate(MESSAGES)],
    )
    assert {completion.finish_reason for completion in found.values()} == {"stop"}
    assert {completion.text.strip() for completion in found.values()} <= {
        f"w1 w2{middle} [[{letter}]]" for middle in ("", " w3") for letter in "AB"
    }


def test_a_pattern_that_cannot_be_written_is_an_error_and_the_engine_goes_on(engine: VllmEngine) -> None:
    with pytest.raises(TransientError, match="r0"):
        answers(engine, [request(0, MESSAGES[0], pattern="ä+")])
    engine.abort_all()
    assert texts(engine, [request(1, MESSAGES[1])]).keys() == {"r1"}


def test_the_samples_of_a_prompt_compute_it_once(engine: VllmEngine) -> None:
    found = answers(engine, [request(number, LONG[0] + " w1 w2 w3", seed=number) for number in range(16)])
    length = engine.count_tokens(LONG[0] + " w1 w2 w3")
    computed = [completion.input_tokens - completion.cached_tokens for completion in found.values()]
    assert {completion.input_tokens for completion in found.values()} == {length}
    assert sum(computed) <= length + 15 * 32
    assert all(0 < rest <= 32 for rest in sorted(computed)[:-1])


def test_counters_add_up(engine: VllmEngine) -> None:
    before = engine.input_tokens, engine.cached_tokens, engine.output_tokens
    found = answers(engine, [request(number, message) for number, message in enumerate(MESSAGES)]).values()
    assert engine.input_tokens - before[0] == sum(completion.input_tokens for completion in found)
    assert engine.cached_tokens - before[1] == sum(completion.cached_tokens for completion in found)
    assert engine.output_tokens - before[2] == sum(completion.output_tokens for completion in found)


@pytest.mark.parametrize("spare", [-1, 0])
def test_a_prompt_that_leaves_no_room_is_refused(engine: VllmEngine, spare: int) -> None:
    frame = engine.count_tokens("w1") - 1
    message = " ".join(["w1"] * (engine.max_model_len - frame - spare))
    with pytest.raises(DataError, match=r"r7 has 51[23] tokens, the context 512"):
        engine.submit(request(7, message))
    assert engine.active == 0


def test_a_prompt_that_leaves_little_room_gets_a_short_answer(engine: VllmEngine) -> None:
    frame = engine.count_tokens("w1") - 1
    message = " ".join(["w1"] * (engine.max_model_len - frame - 2))
    found = answers(engine, [request(0, message, pattern=r"(w1){100}")])["r0"]
    assert (found.finish_reason, found.output_tokens) == ("length", 2)


def test_forgotten_requests_do_not_come_back(engine: VllmEngine) -> None:
    for number, message in enumerate(MESSAGES):
        engine.submit(request(number, message))
    engine.step()
    engine.abort_all()
    assert (engine.active, engine.step()) == (0, [])
    assert texts(engine, [request(99, MESSAGES[0])]).keys() == {"r99"}


def test_only_weights_can_be_swapped(engine: VllmEngine, models: Path) -> None:
    assert engine.fits(models / "second", SETTINGS)
    assert not engine.fits(models / "wider", SETTINGS)
    assert not engine.fits(models / "second", SETTINGS.model_copy(update={"max_num_seqs": 8}))
    with pytest.raises(ModelError, match="more than its weights"):
        engine.swap(models / "wider")
    assert not engine.broken


def test_a_model_without_chat_template_is_refused_before_anything_is_loaded(models: Path) -> None:
    with pytest.raises(ModelError, match=r"no chat template; use an instruction-tuned model"):
        VllmEngine(models / "base", SETTINGS)


def test_what_is_no_model_is_refused_in_one_line(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        VllmEngine(tmp_path, SETTINGS)
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (models / "first").iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[: 100 if file.suffix == ".safetensors" else None])
    with pytest.raises(ModelError, match="cut off") as refusal:
        VllmEngine(broken, SETTINGS)
    assert "\n" not in str(refusal.value)


def test_judging_with_the_real_engine_survives_a_kill(holder: EngineHolder, models: Path, tmp_path: Path) -> None:
    pairs = [
        ResponsePair(
            id=f"p{number}",
            instruction_id=f"p{number}",
            instruction=MESSAGES[number],
            chosen="w1 w2",
            rejected="w3",
            modified_instruction="w4",
        )
        for number in range(8)
    ]

    def context(folder: Path) -> StageContext:
        world = StubWorld(folder)
        write_artifact(world.store.folder("pvc://scratch/pairs"), Stage.GENERATE, pairs)
        return StageContext(
            store=world.store,
            shard=Shard(0, 1),
            progress=world.progress,
            now=world.context().now,
            models=lambda source: models / source.uri.rpartition("/")[2],
            engine=holder.engine,
            stopping=lambda: False,
        )

    config = JudgeConfig(
        run="lab/demo",
        iteration=1,
        key="a" * 64,
        output="pvc://scratch/judgments",
        model=ModelSource(uri="pvc://models/second"),
        engine=SETTINGS,
        prompts=load({"judge": "{{instruction}} {{response_a}} {{response_b}}"}),
        pairs="pvc://scratch/pairs",
        judging=Judging(samples_per_pair=6, sampling=Sampling(max_tokens=30), guided_verdict=True),
    )

    def rows(folder: Path) -> dict[str, Judgment]:
        return {row.id: row for row in StubWorld(folder).store.folder(config.output).rows(Judgment)}

    result = judge.run(config, context(tmp_path / "unbroken"))
    expected = rows(tmp_path / "unbroken")
    with killed_at(len(expected) // 2, half_line=True), pytest.raises(Killed):
        judge.run(config, context(tmp_path / "killed"))
    assert judge.run(config, context(tmp_path / "killed")).rows == result.rows == len(expected)
    assert rows(tmp_path / "killed") == expected
    assert {Verdict.A, Verdict.B} <= {row.verdict for row in expected.values()}
    assert holder.starts == 1


def test_other_settings_get_a_new_engine_and_none_stays_behind(holder: EngineHolder, models: Path) -> None:
    requests = [request(number, message, GREEDY) for number, message in enumerate(MESSAGES[:8])]
    swapped = holder.engine(models / "second", SETTINGS)
    assert isinstance(swapped, VllmEngine)
    found = texts(swapped, requests)
    fresh = holder.engine(models / "second", SETTINGS.model_copy(update={"max_num_seqs": 8}))
    assert isinstance(fresh, VllmEngine)
    assert (holder.starts, fresh.capacity) == (2, 8)
    assert texts(fresh, requests) == found
    holder.close()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    alive = [pid for pid in children if "vllm" in Path(f"/proc/{pid}/cmdline").read_text().lower()]
    assert alive == []
