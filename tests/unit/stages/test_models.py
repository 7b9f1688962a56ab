"""Model intake: hostile and unfit folders are refused before any loader is imported."""

import json
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftaught.api.references import ModelSource
from selftaught.artifacts import Folder, Store
from selftaught.errors import ModelError, StorageError
from selftaught.stages import models
from selftaught.stages.safetensors_header import float_dtype, read_header

REVISION = "0123456789abcdef0123456789abcdef01234567"
NAMES = ("model.embed_tokens.weight", "lm_head.weight")


def safetensors(tensors: dict[str, Any] | None = None, data: bytes = bytes(16)) -> bytes:
    if tensors is None:
        tensors = {
            name: {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8 * number, 8 * number + 8]}
            for number, name in enumerate(NAMES)
        }
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header + data


def build(folder: Path) -> Path:
    """A small folder that is fine."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"auto_map": 7, "a/b_file": 8}}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>", "chat_template": "{{ messages }}"}))
    (folder / "model.safetensors").write_bytes(safetensors())
    (folder / "README.md").write_text("a model")
    return folder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return build(tmp_path / "volumes" / "claim" / "model")


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.system, (f"touch {self.path}",))


def evil_pickle(folder: Path) -> bytes:
    return pickle.dumps(Canary(folder.parent / "canary"))


def evil_code(folder: Path) -> str:
    return f"import pathlib\npathlib.Path({str(folder.parent / 'canary')!r}).touch()\n"


def write_pickle(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(evil_pickle(folder))

    return apply


def write_code(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text(evil_code(folder))
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})


def link_outside(folder: Path) -> None:
    (folder.parent / "secret.json").write_text("{}")
    (folder / "special_tokens_map.json").symlink_to("../secret.json")


def link_folder_outside(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder / "more").symlink_to(folder.parent / "elsewhere")


def link_weights_outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors").symlink_to(folder.parent / "model.safetensors")


def make_socket(folder: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(folder)
    try:
        server.bind("s")
    finally:
        os.chdir(here)
        server.close()


def index(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def split(folder: Path, **changes: str) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index(folder, {**dict.fromkeys(NAMES, "model-00001-of-00001.safetensors"), **changes})


def weights(tensors: dict[str, Any], data: bytes = bytes(16)) -> Callable[[Path], None]:
    return lambda folder: void((folder / "model.safetensors").write_bytes(safetensors(tensors, data)))


def void(_: object) -> None:
    return None


def one(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}}


HOSTILE = [
    pytest.param(write_pickle("pytorch_model.bin"), "pickle", id="pickle-bin"),
    pytest.param(write_pickle("model.PT"), "pickle", id="pickle-pt-upper-case"),
    pytest.param(write_pickle("original/consolidated.00.pth"), "pickle", id="pickle-in-a-subfolder"),
    pytest.param(write_pickle("optimizer.pkl"), "pickle", id="pickle-pkl"),
    pytest.param(write_pickle("last.ckpt"), "pickle", id="pickle-ckpt"),
    pytest.param(lambda f: void((f / "tf_model.h5").write_bytes(b"\x89HDF")), "pickle", id="keras-h5"),
    pytest.param(write_pickle("training_state"), "by its content", id="pickle-without-ending"),
    pytest.param(write_pickle("merges.txt"), "by its content", id="pickle-called-text"),
    pytest.param(write_pickle("model.safetensors"), "safetensors", id="pickle-called-safetensors"),
    pytest.param(write_code, "code", id="code-with-auto-map"),
    pytest.param(lambda f: edit(f / "config.json", auto_map={"AutoModel": "a--b.C"}), "auto_map", id="auto-map"),
    pytest.param(
        lambda f: edit(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["x/y--t.T", None]}),
        "auto_map",
        id="auto-map-of-the-tokenizer",
    ),
    pytest.param(
        lambda f: edit(f / "config.json", text_config={"vision": [{"auto_map": {"AutoConfig": "x.Y"}}]}),
        "auto_map",
        id="auto-map-nested",
    ),
    pytest.param(
        lambda f: void((f / "preprocessor_config.json").write_text('{"auto_map": {"AutoProcessor": "p.P"}}')),
        "auto_map",
        id="auto-map-of-a-processor",
    ),
    pytest.param(lambda f: edit(f / "config.json", custom_code=True), "custom_code", id="custom-code"),
    pytest.param(
        lambda f: edit(f / "tokenizer_config.json", trust_remote_code=True), "remote code", id="trust-remote-code"
    ),
    pytest.param(
        lambda f: edit(f / "config.json", attn_implementation="evil/attention"), "kernel", id="kernel-from-the-hub"
    ),
    pytest.param(
        lambda f: edit(f / "tokenizer_config.json", vocab_file="/etc/passwd"), "outside", id="tokenizer-file-outside"
    ),
    pytest.param(
        lambda f: edit(f / "config.json", transformers_weights="../other.safetensors"), "outside", id="weights-outside"
    ),
    pytest.param(
        lambda f: void((f / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')),
        "adapter",
        id="adapter-of-another-model",
    ),
    pytest.param(link_outside, "leads outside", id="link-outside"),
    pytest.param(link_folder_outside, "leads outside", id="linked-folder-outside"),
    pytest.param(link_weights_outside, "leads outside", id="linked-weights-outside"),
    pytest.param(lambda f: (f / "x.json").symlink_to("absent"), "leads outside", id="link-to-nothing"),
    pytest.param(lambda f: (f / "loop").symlink_to("loop"), "cannot read", id="link-to-itself"),
    pytest.param(lambda f: os.mkfifo(f / "vocab.txt"), "neither a file", id="pipe-that-blocks"),
    pytest.param(make_socket, "neither a file", id="socket"),
    pytest.param(lambda f: (f / "model.safetensors").unlink(), "neither model.safetensors", id="no-weights"),
    pytest.param(lambda f: os.truncate(f / "model.safetensors", 5), "cut off", id="weights-of-five-bytes"),
    pytest.param(
        lambda f: os.truncate(f / "model.safetensors", (f / "model.safetensors").stat().st_size - 1),
        "cut off",
        id="weights-lack-a-byte",
    ),
    pytest.param(
        lambda f: void((f / "model.safetensors").write_bytes(safetensors(data=bytes(17)))),
        "should hold 16",
        id="weights-have-a-byte-too-many",
    ),
    pytest.param(
        lambda f: void((f / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + bytes(64))),
        "cut off",
        id="header-longer-than-the-file",
    ),
    pytest.param(
        lambda f: void((f / "model.safetensors").write_bytes(struct.pack("<Q", 8) + b"notjson!" + bytes(16))),
        "damaged",
        id="header-not-json",
    ),
    pytest.param(
        lambda f: void((f / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]")),
        "damaged",
        id="header-not-an-object",
    ),
    pytest.param(weights(one(dtype="PICKLE")), "not described", id="unknown-dtype"),
    pytest.param(weights(one(shape=[5])), "not described", id="shape-and-bytes-differ"),
    pytest.param(weights(one(shape=[-2, -2])), "not described", id="negative-shape"),
    pytest.param(weights(one(data_offsets=[-16, 0])), "not described", id="negative-range"),
    pytest.param(weights({"a": 3}), "not described", id="tensor-not-an-object"),
    pytest.param(weights({**one(), "b": one()["a"]}), "overlap", id="tensors-overlap"),
    pytest.param(weights(one(data_offsets=[8, 24]), bytes(24)), "gaps", id="gap-before-a-tensor"),
    pytest.param(lambda f: split(f, x="../model.safetensors"), "outside", id="index-leads-outside"),
    pytest.param(lambda f: split(f, x="/etc/model.safetensors"), "outside", id="index-names-an-absolute-path"),
    pytest.param(lambda f: split(f, x="pytorch_model.bin"), "outside", id="index-names-a-pickle"),
    pytest.param(
        lambda f: split(f, x="model-00002-of-00001.safetensors"), "not there", id="index-names-an-absent-file"
    ),
    pytest.param(
        lambda f: split(f, x="model-00001-of-00001.safetensors"), "not there", id="index-names-an-absent-tensor"
    ),
    pytest.param(lambda f: index(f, ["a"]), "weight_map", id="index-without-a-map"),
    pytest.param(lambda f: (f / "config.json").unlink(), "config.json", id="no-config"),
    pytest.param(lambda f: void((f / "config.json").write_text('{"a": ')), "not JSON", id="config-cut-off"),
    pytest.param(lambda f: void((f / "config.json").write_bytes(b"\xff\xfe{}")), "not JSON", id="config-not-utf-8"),
    pytest.param(
        lambda f: void((f / "config.json").write_text("[" * 200_000)), "not JSON", id="config-nested-without-end"
    ),
    pytest.param(lambda f: void((f / "config.json").write_text("[]")), "config.json", id="config-not-an-object"),
    pytest.param(lambda f: os.truncate(f / "config.json", 65 << 20), "65 MiB", id="config-huge"),
    pytest.param(lambda f: (f / "tokenizer.json").unlink(), "no tokenizer", id="no-tokenizer"),
    pytest.param(
        lambda f: void((f / "tokenizer_config.json").write_text("{}")), "no chat template", id="no-chat-template"
    ),
    pytest.param(
        lambda f: void((f / "chat_template.jinja").write_text("x" * (1 << 21))), "larger than 1 MiB", id="template-huge"
    ),
]


@pytest.mark.parametrize(("change", "reason"), HOSTILE)
def test_hostile_and_unfit_folders_are_refused(good: Path, change: Callable[[Path], None], reason: str) -> None:
    change(good)
    with pytest.raises(ModelError, match=reason) as error:
        models.vet(good)
    assert "\n" not in str(error.value)
    assert not (good.parent / "canary").exists()


def test_the_canary_would_sing(good: Path) -> None:
    pickle.loads(evil_pickle(good))
    assert (good.parent / "canary").exists()


def template_in_a_file(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", chat_template=None)
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def link_inside(folder: Path) -> None:
    (folder / "blobs").mkdir()
    (folder / "model.safetensors").rename(folder / "blobs" / "weights")
    (folder / "model.safetensors").symlink_to("blobs/weights")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda f: None, id="plain"),
        pytest.param(split, id="sharded"),
        pytest.param(template_in_a_file, id="template-in-a-file"),
        pytest.param(link_inside, id="link-inside"),
        pytest.param(lambda f: edit(f / "config.json", auto_map=None), id="auto-map-empty"),
        pytest.param(lambda f: edit(f / "tokenizer_config.json", vocab_file="vocab.txt"), id="file-inside"),
        pytest.param(lambda f: edit(f / "config.json", attn_implementation="sdpa"), id="built-in-attention"),
    ],
)
def test_fit_folders_pass(good: Path, change: Callable[[Path], None]) -> None:
    change(good)
    models.vet(good)


def test_a_folder_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        models.vet(tmp_path / "absent")


def test_no_loader_is_imported(good: Path) -> None:
    write_code(good)
    code = (
        "import sys; from pathlib import Path; from selftaught.errors import ModelError\n"
        "from selftaught.stages import models\n"
        "try: models.vet(Path(sys.argv[1]))\n"
        "except ModelError: pass\n"
        "else: raise SystemExit('not refused')\n"
        "loaders = {'torch', 'transformers', 'vllm', 'safetensors', 'tokenizers', 'huggingface_hub', 'peft', 'trl'}\n"
        "print(sorted(loaders & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(good)], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "[]"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_damage_to_a_header_is_a_model_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(safetensors())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 17))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("header") / "model.safetensors"
    path.write_bytes(bytes(whole))
    try:
        header = read_header(path)
    except ModelError:
        return
    assert sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values()) == 16


def test_number_format_of_a_folder(good: Path) -> None:
    assert float_dtype(good) == "bfloat16"
    weights(one(dtype="U8", shape=[16]))(good)
    with pytest.raises(ModelError, match="unquantised"):
        float_dtype(good)


class TestLocalFolder:
    @pytest.mark.parametrize("uri", ["file", "pvc"])
    def test_a_file_system_is_used_in_place(self, good: Path, tmp_path: Path, uri: str) -> None:
        source = ModelSource(uri=f"file://{good}" if uri == "file" else "pvc://claim/model")
        store = Store(tmp_path / "volumes")
        assert models.local_folder(source, store, tmp_path / "cache") == good
        assert not (tmp_path / "cache").exists()

    def test_an_absent_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="pvc://claim/absent"):
            models.local_folder(ModelSource(uri="pvc://claim/absent"), Store(tmp_path), tmp_path / "cache")

    def test_a_hub_model_needs_a_revision(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="revision"):
            models.local_folder(ModelSource.model_construct(uri="hf://a/b"), Store(tmp_path), tmp_path / "cache")


class MemoryStore(Store):
    """Every bucket is in memory."""

    def folder(self, uri: str) -> Folder:
        return Folder(fsspec.filesystem("memory"), "/" + uri.partition("://")[2], uri)


@pytest.fixture
def bucket(good: Path) -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    fs.put(str(good), "/bucket/model", recursive=True)
    yield fs
    fs.rm("/bucket", recursive=True)


class TestObjectStore:
    source = ModelSource(uri="s3://bucket/model")

    def test_it_is_fetched_once(self, bucket: Any, good: Path, tmp_path: Path) -> None:
        folder = models.local_folder(self.source, MemoryStore(tmp_path), tmp_path / "cache")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            path.name: path.read_bytes() for path in good.iterdir()
        }
        bucket.pipe_file("/bucket/model/README.md", b"changed")
        assert models.local_folder(self.source, MemoryStore(tmp_path), tmp_path / "cache") == folder
        assert (folder / "README.md").read_text() == "a model"

    def test_half_a_fetch_is_gone_on_with(self, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cache = tmp_path / "cache"
        download = Folder.download
        fetched: list[str] = []

        def failing(self: Folder, name: str, path: Path) -> None:
            if len(fetched) == 3:
                raise StorageError("the network failed")
            fetched.append(name)
            download(self, name, path)

        monkeypatch.setattr(Folder, "download", failing)
        with pytest.raises(StorageError):
            models.local_folder(self.source, MemoryStore(tmp_path), cache)
        assert not [path for path in cache.iterdir() if path.name.endswith(".complete")]
        first = list(fetched)
        fetched.clear()
        models.vet(models.local_folder(self.source, MemoryStore(tmp_path), cache))
        assert len(first) == 3
        assert not set(first) & set(fetched)

    def test_a_pickle_is_refused_before_it_is_fetched(self, bucket: Any, tmp_path: Path) -> None:
        bucket.pipe_file("/bucket/model/pytorch_model.bin", b"x")
        with pytest.raises(ModelError, match="pickle"):
            models.local_folder(self.source, MemoryStore(tmp_path), tmp_path / "cache")
        assert not list((tmp_path / "cache").rglob("*.bin"))

    def test_an_empty_bucket(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no model at s3://bucket/nothing"):
            models.local_folder(ModelSource(uri="s3://bucket/nothing"), MemoryStore(tmp_path), tmp_path / "cache")


class TestHub:
    source = ModelSource(uri="hf://owner/name", revision=REVISION)

    def fetch(self, tmp_path: Path) -> Path:
        return models.local_folder(self.source, Store(tmp_path), tmp_path / "cache")

    def test_only_safe_files_of_one_revision_are_asked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import huggingface_hub

        calls: list[tuple[str, dict[str, Any]]] = []

        def recorded(name: str, **arguments: Any) -> None:
            calls.append((name, arguments))
            target = arguments["local_dir"]
            target.rmdir()
            build(target)
            (target / ".cache").mkdir()

        monkeypatch.setattr(huggingface_hub, "snapshot_download", recorded)
        folder = self.fetch(tmp_path)
        assert self.fetch(tmp_path) == folder
        ((name, arguments),) = calls
        assert (name, arguments["revision"]) == ("owner/name", REVISION)
        assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in arguments["allow_patterns"][:6])
        assert not (folder / ".cache").exists()

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            pytest.param("OfflineModeIsEnabled", (ModelError, "HF_HUB_OFFLINE"), id="offline"),
            pytest.param("LocalEntryNotFoundError", (StorageError, "cannot reach the hub"), id="no-network"),
            pytest.param("HFValidationError", (ModelError, "there is no hf://owner/name"), id="bad-name"),
        ],
    )
    def test_failures_are_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, expected: tuple[type[Exception], str]
    ) -> None:
        import huggingface_hub
        import huggingface_hub.errors

        def failing(*_: object, **__: object) -> None:
            raise getattr(huggingface_hub.errors, error)("first line\nsecond line")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", failing)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1" if error == "OfflineModeIsEnabled" else "")
        with pytest.raises(expected[0], match=expected[1]) as raised:
            self.fetch(tmp_path)
        assert "\n" not in str(raised.value)

    def test_a_model_without_safetensors(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: None)
        with pytest.raises(ModelError, match="no safetensors"):
            self.fetch(tmp_path)
