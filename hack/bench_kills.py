"""Kills each stage at random moments and compares what comes out with an unbroken run.

    python hack/bench_kills.py WORKDIR [--kills 20] [--stages judge,generate,evaluate,train] [--json FILE]

WORKDIR is the folder of a finished local run: its configs say what each stage was told, its artifacts are the unbroken
run. Each stage is done anew in a folder of its own, its process killed with SIGKILL again and again, at moments spread
at random over its work, until the given number of kills is reached; then it may end. Traffic: none but files.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from selftaught.api.results import Stage, StageResult
from selftaught.artifacts import MANIFEST, Store
from selftaught.stages.program import CACHE_VARIABLE, VOLUMES_VARIABLE

TIMEOUT = 900.0
KILLS_AT_ONCE = 5
"""In one run of a stage."""


@dataclass(frozen=True)
class Outcome:
    """What the kills did."""

    stage: str
    kills: int = 0
    rows: int = 0
    missing: int = 0
    added: int = 0
    different: int = 0
    duplicates: int = 0
    half_rows: int = 0
    tokens: int = 0
    """Of the unbroken run (train: tokens trained on)."""
    repeated_tokens: int = 0
    """Done again because of the kills, as told by the processes' own counters."""
    runs: int = 1
    """Runs of the stage that the kills were spread over."""

    @property
    def repeated_share(self) -> float:
        """Repeated tokens of a kill, as a share of the unbroken run's."""
        return self.repeated_tokens / max(self.tokens, 1) / max(self.kills, 1)

    def and_then(self, other: "Outcome") -> "Outcome":
        """Both together."""
        counted = ("kills", "missing", "added", "different", "duplicates", "half_rows", "repeated_tokens")
        sums = {name: getattr(self, name) + getattr(other, name) for name in counted}
        runs = self.runs + 1 if self.kills else 1
        return replace(other, **sums, runs=runs)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stages", default="generate,judge,evaluate,train,curate,select")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    outcomes = []
    print(
        "| stage | kills, in runs | rows | missing | added | different | duplicates | half rows | repeated per kill |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.stages.split(","):
        rng, outcome = random.Random(arguments.seed), Outcome(name)
        while outcome.kills < arguments.kills:
            once = min(KILLS_AT_ONCE, arguments.kills - outcome.kills)
            outcome = outcome.and_then(broken_run(arguments.workdir, Stage(name), once, rng))
        outcomes.append(outcome)
        print(
            f"| {outcome.stage} | {outcome.kills} in {outcome.runs} | {outcome.rows} | {outcome.missing} "
            f"| {outcome.added} | {outcome.different} | {outcome.duplicates} | {outcome.half_rows} "
            f"| {outcome.repeated_share:.1%} of {outcome.tokens:,} |",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")


def broken_run(workdir: Path, stage: Stage, kills: int, rng: random.Random) -> Outcome:
    """Do a stage anew under kills, and compare."""
    store = Store(workdir / "volumes")
    config = find_config(workdir, stage)
    unbroken = store.folder(config["output"]).local_path
    assert unbroken is not None
    target = store.folder(config["output"] + "-killed")
    target.remove()
    config["output"] = target.uri
    folder = target.local_path
    assert folder is not None
    expected = json.loads((unbroken / MANIFEST).read_text())
    seconds = max(float(expected["result"].get("usage", {}).get("seconds", 1.0)), 0.5)
    done_tokens = 0
    killed = 0
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        while True:
            moment = rng.uniform(0, 2 * seconds / (kills + 1)) if killed < kills else None
            result, tokens, was_killed = one_process(workdir, stage, file.name, moment)
            done_tokens += tokens
            killed += was_killed
            if result is not None:
                break
    before, after = rows_of(unbroken), rows_of(folder)
    tokens = int(expected["result"].get("usage", {}).get("outputTokens", 0))
    shared = before.keys() & after.keys()
    return Outcome(
        stage=stage,
        kills=killed,
        rows=len(before),
        missing=len(before.keys() - after.keys()),
        added=len(after.keys() - before.keys()),
        different=sum(before[key] != after[key] for key in shared),
        duplicates=count_lines(folder) - len(after),
        half_rows=half_lines(folder),
        tokens=tokens,
        repeated_tokens=max(0, done_tokens - tokens),
    )


def one_process(workdir: Path, stage: Stage, config: str, moment: float | None) -> tuple[StageResult | None, int, bool]:
    """Run the stage's process, killed `moment` seconds after its first progress if that is given.

    Its result (if it ended), the output tokens it told, and whether it was killed.
    """
    environment = {
        **os.environ,
        VOLUMES_VARIABLE: str((workdir / "volumes").resolve()),
        CACHE_VARIABLE: str((workdir / "cache").resolve()),
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "selftaught", "stage", stage, "--config", config],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        text=True,
    )
    assert child.stdout is not None
    result: StageResult | None = None
    tokens = 0
    first: dict[str, Any] | None = None
    killer: float | None = None
    deadline = time.monotonic() + TIMEOUT
    import selectors

    selector = selectors.DefaultSelector()
    selector.register(child.stdout, selectors.EVENT_READ)
    buffer = b""
    os.set_blocking(child.stdout.fileno(), False)
    while True:
        now = time.monotonic()
        if (killer is not None and now >= killer) or now > deadline:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return None, tokens, True
        wait = min(killer - now, 0.5) if killer is not None else 0.5
        if not selector.select(wait):
            continue
        block = os.read(child.stdout.fileno(), 1 << 16)
        if not block:
            break
        buffer += block
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            record: dict[str, Any] = json.loads(line)
            if record["type"] == "progress":
                tokens = tokens_of(stage, first, record)
                first = record if first is None else first
                if moment is not None and killer is None:
                    killer = now + moment
            elif record["type"] == "result":
                result = StageResult.model_validate(record["result"])
            elif record["type"] == "failure":
                raise SystemExit(f"{stage} failed: {record['failure']['message']}")
    child.wait()
    return result, tokens, False


def tokens_of(stage: Stage, first: dict[str, Any] | None, record: dict[str, Any]) -> int:
    """Tokens of this process so far. A training tells of all steps: those since its first here count."""
    told = int(record.get("outputTokens", 0))
    if stage is not Stage.TRAIN:
        return told
    done = int(record["done"])
    begun = done if first is None else int(first["done"])
    return round(told * (done - begun + 1) / max(done, 1))


def find_config(workdir: Path, stage: Stage) -> dict[str, Any]:
    """The config of the stage's last iteration in a finished run."""
    found = sorted((workdir / "configs").glob(f"*-{stage}-a*.json"))
    if not found:
        raise SystemExit(f"{workdir} has no finished {stage} stage; finish a run there first")
    # The seed's evaluation: candidates of later ones may have been pruned.
    chosen = found[0] if stage is Stage.EVALUATE else found[-1]
    config: dict[str, Any] = json.loads(chosen.read_text())
    return config


def rows_of(folder: Path) -> dict[str, Any]:
    """What the stage wrote, by identity: rows by id; for weights, file hashes."""
    rows: dict[str, Any] = {}
    for path in sorted(folder.glob("rows-*.jsonl")):
        for line in path.read_text().split("\n"):
            if line:
                row = json.loads(line)
                rows.setdefault(identity(row), row)
    if not rows:
        manifest = json.loads((folder / MANIFEST).read_text())
        rows = {entry["name"]: entry["sha256"] for entry in manifest["files"] if entry["name"].endswith(".safetensors")}
    return rows


def identity(row: dict[str, Any]) -> str:
    """What makes a row the same row."""
    if "id" in row:
        return str(row["id"])
    return "/".join(str(row.get(key)) for key in ("benchmark", "checkpoint", "pair_id", "order", "index"))


def count_lines(folder: Path) -> int:
    """Lines of row files, or files of weights."""
    lines = sum(path.read_bytes().count(b"\n") for path in folder.glob("rows-*.jsonl"))
    return lines or len(rows_of(folder))


def half_lines(folder: Path) -> int:
    """Row files that do not end in a newline."""
    contents = (path.read_bytes() for path in folder.glob("rows-*.jsonl"))
    return sum(bool(content) and not content.endswith(b"\n") for content in contents)


if __name__ == "__main__":
    main()
