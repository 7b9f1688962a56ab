"""What `status` and `list` print, and what is made of a run of another version."""

from io import StringIO
from textwrap import dedent
from typing import Any

import pytest
from rich.console import Console

from builders import a_manifest, at
from selftaught.plugin.cluster import JsonObject, RefusedError
from selftaught.plugin.runs import read_run
from selftaught.plugin.views import print_list, print_status


def score(accuracy: float) -> JsonObject:
    interval = [f"{accuracy - 0.05:.3f}", f"{accuracy + 0.05:.3f}"]
    return {
        "benchmark": "choice",
        "accuracy": f"{accuracy:.3f}",
        "consistentAccuracy": "0.500",
        "confidenceInterval": interval,
        "unparsable": "0.010",
        "pairs": 100,
    }


def a_raw_run(name: str = "demo", **status: Any) -> JsonObject:
    raw = a_manifest()
    raw["metadata"] |= {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": []}
    raw["status"] = {
        "phase": "AwaitingApproval",
        "baseline": [score(0.6)],
        "iterations": [
            {"index": 0},
            {"index": 1, "scores": [score(0.7)], "decision": "AwaitingApproval", "usage": {"outputTokens": 1234}},
        ],
        "best": {"iteration": 0, "benchmark": "choice", "accuracy": "0.600"},
        "summary": {"iteration": "1/2", "baseline": "0.600", "reason": "AwaitingApproval: iteration 1"},
        **status,
    }
    return raw


def printed(width: int = 80) -> tuple[Console, StringIO]:
    text = StringIO()
    return Console(file=text, width=width, highlight=False), text


def told(text: StringIO) -> str:
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def test_status() -> None:
    console, text = printed()
    print_status(console, read_run(a_raw_run()).run)
    assert told(text) == dedent("""\
        demo  namespace lab  iteration 1/2
        judge        choice (95 %)           both orders  kept  time  decision
        seed         0.600 (0.550 to 0.650)        0.500
        iteration 1  0.700 (0.650 to 0.750)        0.500              AwaitingApproval

        accuracy on choice, with its 95 % interval (┊ the seed)
                     0.55                                              0.75
        seed         ├────────────●────────────┤                             0.600  best
        iteration 1               ┊            ├─────────────●────────────┤  0.700

        AwaitingApproval  AwaitingApproval: iteration 1
        iteration 1 awaits a decision: kubectl selftaught approve demo --iteration 1   (or the same with --reject)
        best judge: seed, 0.600 on choice: the seed model
        more: kubectl selftaught why demo""")


def test_list() -> None:
    console, text = printed(100)
    running = a_raw_run(
        "long",
        phase="Running",
        summary={"iteration": "2/5", "stage": "judge", "progress": "43%", "best": "0.853 (i1)", "reason": "Running"},
    )
    raws = [running, a_raw_run(), a_raw_run("other", phase="Dreaming")]
    print_list(console, raws, at(7300), everywhere=True)
    assert told(text) == dedent("""\
        namespace  name   phase             iteration  stage  progress  best                age
        lab        demo   AwaitingApproval  1/2                         0.600 (seed)  2 h 1 min
        lab        long   Running           2/5        judge       43%  0.853 (i1)    2 h 1 min
        lab        other  Dreaming                                                    2 h 1 min
        note: run other cannot be read by selftaught 0.1.0: status.phase: unknown value 'Dreaming'; upgrade, \
or look with: kubectl get selftaughtruns other -o yaml""")


@pytest.mark.parametrize(
    ("change", "unknown"),
    [
        pytest.param({"spec": {"dreams": 1}}, ("spec.dreams",), id="in the spec"),
        pytest.param(
            {"status": {"baseline": [score(0.6) | {"mood": "fine"}]}}, ("status.baseline[0].mood",), id="deep"
        ),
    ],
)
def test_unknown_fields_are_left_out_and_told(change: JsonObject, unknown: tuple[str, ...]) -> None:
    raw = a_raw_run()
    for part, fields in change.items():
        raw[part] |= fields
    read = read_run(raw)
    assert read.unknown == unknown
    assert read.run.status.baseline[0].accuracy == "0.600"
    assert read.remark is not None
    assert unknown[0] in read.remark


def test_a_value_that_this_version_cannot_read_is_told_in_a_line() -> None:
    with pytest.raises(
        RefusedError, match=r"run demo cannot be read by selftaught .*: status\.phase: unknown value 'Dreaming'"
    ):
        read_run(a_raw_run(phase="Dreaming"))
