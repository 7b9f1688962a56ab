"""The header of a safetensors file, read without any loader.

Layout (safetensors format, version 0.x): 8 bytes little-endian header length, a JSON object of that length that
maps tensor names to dtype, shape and byte range, then the data, without gaps, to the end of the file.
"""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from selftaught.errors import ModelError

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}
"""Size of one element."""

TORCH_FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Tensors by name, each with `dtype`, `shape` and `data_offsets`. Raises ModelError if anything is off."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise ModelError(f"{path} is not a safetensors file or is cut off; fetch it again")
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the header of {path} is damaged; fetch it again") from error
    if not isinstance(header, dict):
        raise ModelError(f"the header of {path} is damaged; fetch it again")
    header.pop("__metadata__", None)
    _check_ranges(path, header, size - 8 - length)
    return header


def float_dtype(folder: Path) -> str:
    """The number format of most weights in a folder, by torch's name."""
    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        counts.update(str(tensor["dtype"]) for tensor in read_header(path).values())
    for dtype, _ in counts.most_common():
        if dtype in TORCH_FLOATS:
            return TORCH_FLOATS[dtype]
    raise ModelError(f"{folder} has no weights in float32, float16 or bfloat16; use an unquantised model")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _check_ranges(path: Path, header: dict[str, Any], data_bytes: int) -> None:
    ranges = []
    for name, tensor in header.items():
        try:
            begin, end = tensor["data_offsets"]
            shape = tensor["shape"]
            bits = BITS[tensor["dtype"]] * math.prod(shape)
            fine = (
                all(type(value) is int and value >= 0 for value in (begin, end, *shape))
                and bits % 8 == 0
                and end - begin == bits // 8
            )
        except (TypeError, KeyError, ValueError):
            fine = False
        if not fine:
            raise ModelError(f"tensor {name[:80]!r} in {path} is not described rightly; fetch the file again")
        ranges.append((begin, end))
    position = 0
    for begin, end in sorted(ranges):
        if begin != position:
            raise ModelError(f"tensors in {path} overlap or leave gaps; fetch the file again")
        position = end
    if position != data_bytes:
        raise ModelError(
            f"{path} holds {data_bytes} bytes of weights and should hold {position}: it is cut off; fetch it again"
        )
