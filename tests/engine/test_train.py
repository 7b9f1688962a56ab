"""The train stage with the real trainer on a tiny Llama."""

import errno
import http.server
import json
import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import fsspec
import pytest

import tiny_llama
import training_world as world
from selftaught.api.judging import Lora, Parallelism, ParallelStrategy, Precision, Training
from selftaught.api.outcomes import FailureRecord, ResultRecord
from selftaught.api.references import ModelSource
from selftaught.api.results import StageResult
from selftaught.api.stage_config import TrainConfig
from selftaught.artifacts import Folder, Store
from selftaught.errors import DataError, Interrupted, ModelError, ResourceError, StorageError
from selftaught.records import Example
from selftaught.stages import launch, models, train
from selftaught.stages.training import checkpoints, export, session, state
from selftaught.stages.training.batches import BatchPlan
from selftaught.stages.training.model import load_model
from selftaught.stages.training.processes import Processes

SETTINGS = Training(
    learning_rate="3e-3",
    warmup_steps=2,
    batch_size=8,
    micro_batch_size=3,
    max_length=120,
    precision=Precision.FP32,
    gradient_checkpointing=False,
    save_steps=2,
)
ROWS = 25
"""Three steps of eight rows and one of a single row: with two processes, one of them has nothing to do in it."""
STEPS = 8


@dataclass
class World:
    """Volumes with a seed model and examples."""

    volumes: Path
    examples: list[Example]

    def config(self, output: str, **changes: Any) -> TrainConfig:
        training = SETTINGS.model_copy(update=changes.pop("training", {}))
        values: dict[str, Any] = {
            "run": "team/judge",
            "iteration": 1,
            "key": "a" * 64,
            "output": f"pvc://claim/{output}",
            "model": ModelSource(uri="pvc://claim/seed"),
            "examples": "pvc://claim/examples",
            "training": training,
            "keep_all_epochs": True,
            **changes,
        }
        return TrainConfig(**values)

    def folder(self, output: str) -> Path:
        return self.volumes / "claim" / output

    def run(self, config: TrainConfig, progress: world.RecordedProgress | None = None) -> StageResult:
        return train.run(config, world.context(self.volumes, progress or world.RecordedProgress()))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Two threads for a tiny model wait for each other more than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def saving_by_steps_alone() -> Iterator[None]:
    """Checkpoints that come when they are cheap depend on the machine's mood."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "SAVING_SHARE", 0.0)
        yield


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> World:
    volumes = tmp_path_factory.mktemp("volumes")
    tiny_llama.build(volumes / "claim" / "seed", seed=0)
    rng = random.Random(1)
    examples = [world.example(number, rng) for number in range(ROWS)]
    too_long = [world.example(number, rng, words=200) for number in range(ROWS, ROWS + 2)]
    world.write_examples(Store(volumes), "pvc://claim/examples", [*examples, *too_long])
    return World(volumes, examples)


@pytest.fixture(scope="module")
def unbroken(here: World) -> tuple[StageResult, world.RecordedProgress]:
    progress = world.RecordedProgress()
    return here.run(here.config("unbroken"), progress), progress


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def hashes(result: StageResult) -> list[str]:
    return [checkpoint.sha256 for checkpoint in result.checkpoints]


class TestResult:
    def test_counts(self, unbroken: tuple[StageResult, world.RecordedProgress]) -> None:
        result, progress = unbroken
        stats = result.training
        assert stats is not None
        assert (stats.examples, stats.dropped, stats.steps) == (ROWS, 2, STEPS)
        assert (stats.wrapped_as, stats.processes) == ("None", 1)
        assert result.dropped == {"VerdictCutOff": 2}
        assert (result.rows, result.usage.output_tokens) == (ROWS, stats.tokens)
        assert [done for done, *_ in progress.updates] == list(range(1, STEPS + 1))
        assert progress.updates[-1] == (STEPS, STEPS, "steps", stats.tokens)

    def test_folders_can_be_served(self, here: World, unbroken: tuple[StageResult, world.RecordedProgress]) -> None:
        result, _ = unbroken
        seed, output = here.folder("seed"), here.folder("unbroken")
        assert sorted(path.name for path in output.iterdir()) == ["epoch-1", "epoch-2", "manifest.json"]
        manifest = Store(here.volumes).folder("pvc://claim/unbroken").manifest()
        assert manifest is not None
        assert manifest.result == result
        for checkpoint in result.checkpoints:
            folder = output / f"epoch-{checkpoint.epoch}"
            models.vet(folder)
            for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
                assert (folder / name).read_bytes() == (seed / name).read_bytes()
            assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
            assert folder.stat().st_mode & 0o777 == 0o755
            entries = [checkpoints.file_entry(path) for path in folder.iterdir()]
            assert checkpoint.sha256 == checkpoints.folder_hash(tuple(entry for entry in entries if entry is not None))
            assert checkpoint.uri == f"pvc://claim/unbroken/epoch-{checkpoint.epoch}"
            card = (folder / "README.md").read_text()
            for fact in ("pvc://claim/seed", "team/judge", f"{checkpoint.epoch} of 2", "3e-3", "Licence"):
                assert fact in card
        assert hashes(result)[0] != hashes(result)[1]

    def test_a_finished_training_is_not_done_again(
        self, here: World, unbroken: tuple[StageResult, world.RecordedProgress]
    ) -> None:
        progress = world.RecordedProgress()
        assert here.run(here.config("unbroken"), progress) == unbroken[0]
        assert progress.updates == []

    def test_only_the_last_epoch_is_kept_unless_asked(self, here: World) -> None:
        result = here.run(here.config("last", keep_all_epochs=False, training={"save_steps": 100}))
        assert [checkpoint.epoch for checkpoint in result.checkpoints] == [2]
        assert sorted(path.name for path in here.folder("last").iterdir()) == ["epoch-2", "manifest.json"]


def test_weights_are_those_of_a_plain_loop(here: World, unbroken: tuple[StageResult, world.RecordedProgress]) -> None:
    """The same training in bare torch, with the mask found from the text and all logits computed."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    seed = here.folder("seed")
    tokenizer = AutoTokenizer.from_pretrained(seed)
    model = AutoModelForCausalLM.from_pretrained(seed, dtype=torch.float32)
    rows = []
    for example in here.examples:
        prompt_ids = tokenizer(f"<user> {example.prompt[0]['content']} <end> <assistant>")["input_ids"]
        ids = prompt_ids + tokenizer(f"{example.completion[0]['content']} <end>")["input_ids"]
        rows.append((torch.tensor(ids), len(prompt_ids)))
    norms = [parameter for name, parameter in model.named_parameters() if "norm" in name]
    others = [parameter for name, parameter in model.named_parameters() if "norm" not in name]
    optimizer = torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}], lr=3e-3, betas=(0.9, 0.95)
    )
    plan = BatchPlan(tuple(len(ids) for ids, _ in rows), 8, 3, 1, 0)
    step = 0
    for batches in (plan.steps(0), plan.steps(1)):
        for batch in batches:
            scale = step / 2 if step < 2 else 0.2 + 0.8 * 0.5 * (1 + torch.tensor((step - 2) / 6 * torch.pi).cos())
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * float(scale)
            losses = []
            for number in batch:
                ids, prompt = rows[number]
                logits = model(ids[None]).logits[0, prompt - 1 : -1]
                losses.append(torch.nn.functional.cross_entropy(logits, ids[prompt:], reduction="none"))
            torch.cat(losses).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    trained = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    assert largest_difference(weights(here.folder("unbroken") / "epoch-2"), trained) < 2e-5
    assert largest_difference(weights(seed), trained) > 1e-2
    assert unbroken[0].training is not None


def test_the_loss_of_gpus_is_the_same(
    here: World, unbroken: tuple[StageResult, world.RecordedProgress], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There TRL's fused head computes it; its fallback runs on a CPU."""
    from selftaught.stages.training import trainer

    monkeypatch.setattr(trainer, "has_fast_fused_head", lambda _: True)
    result = here.run(here.config("fused", keep_all_epochs=False))
    assert (result.training and unbroken[0].training) is not None
    one = weights(here.folder("fused") / "epoch-2")
    assert largest_difference(one, weights(here.folder("unbroken") / "epoch-2")) < 2e-5


def test_an_exported_model_gives_the_logits_it_was_trained_to(here: World, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = load_model(here.folder("seed"), SETTINGS, Processes(0, 1))
    ids = torch.arange(6, 60)[None]
    export.write_folder(tmp_path / "out", here.folder("seed"), model, "card", Processes(0, 1))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(model(ids).logits, loaded(ids).logits)


def test_merged_adapters_answer_like_the_adapters(here: World, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    training = SETTINGS.model_copy(update={"lora": Lora(rank=4, alpha=8)})
    model = load_model(here.folder("seed"), training, Processes(0, 1)).eval()
    adapters = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(adapters) == 2 * 2 * 7
    torch.manual_seed(1)
    for _, parameter in adapters:
        torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.arange(6, 60)[None]
    export.write_folder(tmp_path / "out", here.folder("seed"), model, "card", Processes(0, 1))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    seed = AutoModelForCausalLM.from_pretrained(here.folder("seed"))
    with torch.no_grad():
        expected = model(ids).logits
        assert float((loaded(ids).logits - expected).abs().max()) < 1e-4
        assert float((seed(ids).logits - expected).abs().max()) > 1e-1
    assert not list((tmp_path / "out").glob("adapter*"))


def test_training_adapters_in_bfloat16_with_checkpointed_activations(here: World) -> None:
    changes = {"lora": Lora(rank=4, alpha=8), "precision": Precision.BF16, "gradient_checkpointing": True}
    result = here.run(here.config("lora", keep_all_epochs=False, training=changes))
    models.vet(here.folder("lora") / "epoch-2")
    difference = largest_difference(weights(here.folder("lora") / "epoch-2"), weights(here.folder("seed")))
    assert 1e-3 < difference < 0.2
    assert result.training is not None


def test_bfloat16_learns_what_float32_learns(here: World, unbroken: tuple[StageResult, world.RecordedProgress]) -> None:
    changes = {"precision": Precision.BF16, "gradient_checkpointing": True}
    result = here.run(here.config("bf16", keep_all_epochs=False, training=changes))
    assert result.training is not None
    assert unbroken[0].training is not None
    assert result.training.loss == pytest.approx(unbroken[0].training.loss, rel=0.02)
    assert weights(here.folder("bf16") / "epoch-2")["model.norm.weight"].dtype.itemsize == 4


class Killed(BaseException):
    """Stands for SIGKILL where a process of its own would take too long."""


def die(*_: object, **__: object) -> bool:
    raise Killed


class TestResume:
    @pytest.mark.parametrize("step", [1, 4, 5, 7])
    def test_stopped_and_started_again(
        self, here: World, unbroken: tuple[StageResult, world.RecordedProgress], step: int
    ) -> None:
        config = here.config(f"stopped-{step}")
        with pytest.raises(Interrupted, match=f"step {step} of {STEPS}"):
            here.run(config, world.RecordedProgress(stop_after=step))
        assert not (here.folder(f"stopped-{step}") / "manifest.json").exists()
        progress = world.RecordedProgress()
        result = here.run(config, progress)
        assert [done for done, *_ in progress.updates] == list(range(step + 1, STEPS + 1))
        assert hashes(result) == hashes(unbroken[0])
        assert result.training == unbroken[0].training
        assert not (here.folder(f"stopped-{step}") / ".work").exists()

    def test_killed_and_started_again(self, here: World, unbroken: tuple[StageResult, world.RecordedProgress]) -> None:
        config = here.config("killed")
        child = os.fork()
        if child == 0:
            here.run(config, world.RecordedProgress(kill_after=5))
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        progress = world.RecordedProgress()
        result = here.run(config, progress)
        assert progress.updates[0][0] == 5
        assert hashes(result) == hashes(unbroken[0])

    @pytest.mark.parametrize(
        ("where", "calls", "resumes_after"),
        [
            pytest.param((state, "save_tensors"), 2, 2, id="before-the-tensors"),
            pytest.param((state, "write_progress"), 2, 2, id="before-the-progress"),
            pytest.param((checkpoints, "finish"), 2, 2, id="before-the-marker"),
            pytest.param((checkpoints, "sync_folder"), 1, 2, id="after-the-rename"),
            pytest.param((checkpoints, "sync_folder"), 2, 4, id="after-the-second-rename"),
            pytest.param((export, "synced_entry"), 3, 2, id="in-the-weights-of-an-epoch"),
            pytest.param((export, "sync_folder"), 2, 2, id="after-the-weights-of-an-epoch"),
            pytest.param((Folder, "complete"), 1, 6, id="before-the-manifest"),
        ],
    )
    def test_killed_while_writing(
        self,
        here: World,
        unbroken: tuple[StageResult, world.RecordedProgress],
        where: Any,
        calls: int,
        resumes_after: int,
    ) -> None:
        owner, function = where
        config = here.config(f"writing-{getattr(owner, '__name__', owner)}-{function}-{calls}".lower())
        original = getattr(owner, function)
        left = calls

        def counted(*arguments: Any, **keywords: Any) -> Any:
            nonlocal left
            left -= 1
            return die() if left == 0 else original(*arguments, **keywords)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, function, counted)
            with pytest.raises(Killed):
                here.run(config)
        progress = world.RecordedProgress()
        result = here.run(config, progress)
        assert progress.updates[0][0] == resumes_after + 1
        assert hashes(result) == hashes(unbroken[0])

    def test_cheap_checkpoints_come_more_often_than_asked(self, here: World, monkeypatch: pytest.MonkeyPatch) -> None:
        config = here.config("cheap", training={"save_steps": 100})
        monkeypatch.setattr(session, "SAVING_SHARE", 1e9)
        dying = world.RecordedProgress(stop_after=5)
        monkeypatch.setattr(dying, "stopping", lambda: len(dying.updates) == 5 and die())
        with pytest.raises(Killed):
            here.run(config, dying)
        progress = world.RecordedProgress()
        here.run(config, progress)
        assert progress.updates[0][0] == 5

    def test_a_damaged_checkpoint_is_not_believed(
        self, here: World, unbroken: tuple[StageResult, world.RecordedProgress]
    ) -> None:
        config = here.config("damaged")
        with pytest.raises(Interrupted):
            here.run(config, world.RecordedProgress(stop_after=5))
        path = here.folder("damaged") / ".work" / "step-00000005" / state.tensor_file(0)
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)
        progress = world.RecordedProgress()
        result = here.run(config, progress)
        assert progress.updates[0][0] == 5
        assert hashes(result) == hashes(unbroken[0])

    def test_checkpoints_of_others_are_not_believed(
        self, here: World, unbroken: tuple[StageResult, world.RecordedProgress]
    ) -> None:
        with pytest.raises(Interrupted):
            here.run(here.config("other", key="b" * 64), world.RecordedProgress(stop_after=4))
        foreign = here.folder("other") / ".work" / "checkpoint-999"
        foreign.mkdir()
        (foreign / "optimizer.pt").write_bytes(b"not ours")
        progress = world.RecordedProgress()
        result = here.run(here.config("other"), progress)
        assert progress.updates[0][0] == 1
        assert hashes(result) == hashes(unbroken[0])


def run_processes(here: World, config: TrainConfig, tmp_path: Path, *step: str) -> ResultRecord | FailureRecord:
    path = tmp_path / f"{config.output.rsplit('/', 1)[-1]}.json"
    path.write_text(config.model_dump_json())
    command = [sys.executable, world.__file__, str(path), str(here.volumes), *step]
    return launch.launch(config.training.parallelism, command, StringIO())


# torchrun leaves the log files of its processes to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
class TestTwoProcesses:
    def test_ddp(self, here: World, unbroken: tuple[StageResult, world.RecordedProgress], tmp_path: Path) -> None:
        config = here.config("ddp", training={"parallelism": Parallelism(processes_per_node=2)})
        record = run_processes(here, config, tmp_path)
        assert isinstance(record, ResultRecord), record
        stats = record.result.training
        assert stats is not None
        assert (stats.wrapped_as, stats.processes, stats.steps) == ("DDP", 2, STEPS)
        for epoch in (1, 2):
            one = weights(here.folder("ddp") / f"epoch-{epoch}")
            assert largest_difference(one, weights(here.folder("unbroken") / f"epoch-{epoch}")) < 2e-5

    def test_fsdp_shards_and_resumes(
        self, here: World, unbroken: tuple[StageResult, world.RecordedProgress], tmp_path: Path
    ) -> None:
        parallelism = Parallelism(processes_per_node=2, strategy=ParallelStrategy.FSDP)
        config = here.config("fsdp", training={"parallelism": parallelism})
        failure = run_processes(here, config, tmp_path, "5")
        assert isinstance(failure, FailureRecord)
        assert failure.failure.reason == "ProcessFailed"
        assert not failure.failure.permanent
        saved = checkpoints.found(here.folder("fsdp") / ".work", config.key)[0].path
        sizes = [(saved / state.tensor_file(rank)).stat().st_size for rank in range(2)]
        whole = sum(tensor.nbytes for tensor in weights(here.folder("seed")).values())
        assert all(size < 3 * whole * 0.6 for size in sizes)  # weights and two moments, half of each

        record = run_processes(here, config, tmp_path)
        assert isinstance(record, ResultRecord), record
        stats = record.result.training
        assert stats is not None
        assert (stats.wrapped_as, stats.processes) == ("FSDP2", 2)
        for epoch in (1, 2):
            one = weights(here.folder("fsdp") / f"epoch-{epoch}")
            assert largest_difference(one, weights(here.folder("unbroken") / f"epoch-{epoch}")) < 2e-5


class MemoryStore(Store):
    """The output lies in an object store in memory."""

    def folder(self, uri: str) -> Folder:
        if uri.startswith("s3://"):
            return Folder(fsspec.filesystem("memory"), "/" + uri.partition("://")[2], uri)
        return super().folder(uri)


@pytest.fixture
def bucket() -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/bucket", recursive=True)


def test_an_object_store_gets_the_checkpoints_and_the_weights(
    here: World, unbroken: tuple[StageResult, world.RecordedProgress], bucket: Any, tmp_path: Path
) -> None:
    config = here.config("unused").model_copy(update={"output": "s3://bucket/out"})
    store = MemoryStore(here.volumes)
    with pytest.raises(Interrupted):
        train.run(config, world.context(here.volumes, world.RecordedProgress(stop_after=5), store))
    assert any(name.endswith("step-00000005/complete.json") for name in bucket.find("/bucket"))
    progress = world.RecordedProgress()
    result = train.run(config, world.context(here.volumes, progress, store))
    assert progress.updates[0][0] == 6
    assert hashes(result) == hashes(unbroken[0])
    names = {name.removeprefix("/bucket/out/") for name in bucket.find("/bucket/out")}
    assert {"manifest.json", "epoch-1/model.safetensors", "epoch-2/README.md"} <= names
    assert not any(".work" in name for name in names)


class TestFailures:
    def test_every_row_too_long(self, here: World) -> None:
        with pytest.raises(DataError, match=r"all 27 examples are longer than 16 tokens.*maxLength"):
            here.run(here.config("short", training={"max_length": 16}))

    def test_no_examples(self, here: World) -> None:
        with pytest.raises(DataError, match="no training examples"):
            here.run(here.config("none", examples="pvc://claim/absent"))

    def test_a_verdict_that_the_tokenizer_does_not_know(self, here: World, tmp_path: Path) -> None:
        folder = here.folder("blind")
        shutil.copytree(here.folder("seed"), folder)
        path = folder / "tokenizer.json"
        path.write_text(path.read_text().replace("[[A]]", "((A))").replace("[[B]]", "((B))"))
        with pytest.raises(DataError, match="its verdict"):
            here.run(here.config("blinded", model=ModelSource(uri="pvc://claim/blind")))

    def test_a_loss_that_is_not_finite(self, here: World) -> None:
        with pytest.raises(ModelError, match=r"loss is nan at step [34]; lower training\.learningRate"):
            here.run(here.config("nan", training={"learning_rate": "1e38", "max_gradient_norm": "1e38"}))

    @pytest.mark.parametrize("function", ["sync_folder", "write_atomically"])
    def test_a_full_disk(self, here: World, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(checkpoints, function, full)
        with pytest.raises(StorageError, match="no space left"):
            here.run(here.config(f"full-{function}"))

    def test_a_full_disk_while_tensors_are_written(self, here: World, monkeypatch: pytest.MonkeyPatch) -> None:
        import safetensors

        def full(*_: object, **__: object) -> None:
            raise safetensors.SafetensorError("Error while serializing: I/O error: No space left (os error 28)")

        monkeypatch.setattr(state, "save_tensors", full)
        with pytest.raises(StorageError, match="no space left"):
            here.run(here.config("full-tensors"))

    def test_no_memory(self, here: World, monkeypatch: pytest.MonkeyPatch) -> None:
        def exhausted(*_: object) -> None:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )

        monkeypatch.setattr(session, "load_model", exhausted)
        with pytest.raises(ResourceError, match="microBatchSize"):
            here.run(here.config("memory"))

    def test_a_model_that_is_not_spread_as_asked(self, here: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session, "asked_wrapping", lambda *_: "FSDP2")
        with pytest.raises(ModelError, match="should be spread as FSDP2 but is as None"):
            here.run(here.config("spread"))


def test_nothing_is_printed(here: World, capfd: pytest.CaptureFixture[str]) -> None:
    here.run(here.config("quiet", keep_all_epochs=False, training={"epochs": 1}))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_kubeflow_is_told(here: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    received: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        (tmp_path / "token").write_text("t")
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", f"http://127.0.0.1:{server.server_port}/status")
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(tmp_path / "token"))
        here.run(here.config("kubeflow", keep_all_epochs=False, training={"epochs": 1}))
        server.shutdown()
        thread.join()
    assert received[0]["trainerStatus"]["progressPercentage"] == 0
    assert received[-1]["trainerStatus"]["progressPercentage"] == 100
    assert os.environ["KUBEFLOW_TRAINER_SERVER_URL"]
