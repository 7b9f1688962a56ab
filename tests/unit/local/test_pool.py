"""What an estimate learns from data on this machine."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from builders import a_run
from selftaught.artifacts import Store
from selftaught.local.pool import pool_of
from selftaught.loop.estimate import estimate


@pytest.fixture
def store(tmp_path: Path) -> Store:
    seed, data = tmp_path / "models/seed", tmp_path / "data"
    seed.mkdir(parents=True)
    data.mkdir()
    save_file({"a": np.zeros((3, 4), dtype=np.float32), "b": np.zeros(5, dtype=np.float32)}, seed / "model.safetensors")
    (data / "chat.jsonl").write_text("".join(json.dumps({"instruction": f"say {n}"}) + "\n" for n in range(7)))
    pair = {"id": "1", "instruction": "say a", "chosen": "a", "rejected": "b"}
    (data / "choice.jsonl").write_text(json.dumps(pair) + "\n")
    return Store(tmp_path)


def test_rows_pairs_and_parameters_are_counted(store: Store) -> None:
    pool = pool_of(a_run(), store)
    assert pool.instructions == 7
    assert dict(pool.benchmarks) == {"choice": 1}, "guard is not there"
    size = pool.models["pvc://models/seed"]
    assert size.total == 17


def test_a_limit_counts(store: Store) -> None:
    run = a_run(instructions={"sources": [{"name": "chat", "uri": "pvc://data/chat.jsonl", "limit": 3}]})
    assert pool_of(run, store).instructions == 3


def test_what_is_not_here_stays_unknown(tmp_path: Path) -> None:
    pool = pool_of(a_run(), Store(tmp_path))
    assert (pool.instructions, dict(pool.benchmarks), dict(pool.models)) == (None, {}, {})


def test_an_estimate_with_data_is_smaller(store: Store) -> None:
    known, assumed = estimate(a_run(), pool_of(a_run(), store)), estimate(a_run())
    assert known.generated_tokens < assumed.generated_tokens / 100
