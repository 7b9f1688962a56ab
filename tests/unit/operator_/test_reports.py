"""What pods tell, and what it comes to: whatever is sent, and in whatever order."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selftaught.loop.observed import AttemptProgress
from selftaught_operator.reports import MOST, AttemptPod, ProgressBoard, Report, ReportError, merged, parse_report

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def minutes(number: float) -> datetime:
    return NOW + timedelta(minutes=number)


def body(metrics: dict[str, Any] | None = None, **status: Any) -> bytes:
    if metrics is not None:
        status["metrics"] = [{"name": name, "value": value} for name, value in metrics.items()]
    return json.dumps({"trainerStatus": status}).encode()


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(
            body(
                {"done": "57", "total": "100", "inputTokens": "10", "outputTokens": "20", "tokensPerSecond": "812.5"},
                progressPercentage=57,
                estimatedRemainingSeconds=30,
                lastUpdatedTime="2026-01-01T00:00:00+00:00",
            ),
            Report(
                own=True,
                fraction=0.57,
                done=57,
                total=100,
                remaining_seconds=30,
                input_tokens=10,
                output_tokens=20,
                tokens_per_second=812.5,
            ),
            id="a-stage",
        ),
        pytest.param(
            body({"loss": "0.3", "current_step": "7", "total_steps": "9"}, progressPercentage=77),
            Report(fraction=0.77, done=7, total=9),
            id="transformers-callback",
        ),
        pytest.param(body({"total_steps": "9"}, progressPercentage=0), Report(fraction=0.0), id="callback-begins"),
        pytest.param(body({"done": 3, "total": 4}), Report(own=True, done=3, total=4), id="numbers-for-strings"),
        pytest.param(body(), Report(), id="says-nothing"),
        pytest.param(body(metrics=None, metrics_=1, phase={"a": []}), Report(), id="fields-of-tomorrow"),
        pytest.param(body(progressPercentage=250), Report(fraction=1.0), id="more-than-all"),
        pytest.param(body(progressPercentage=-3), Report(fraction=0.0), id="less-than-nothing"),
        pytest.param(body(progressPercentage=float("nan")), Report(), id="nan"),
        pytest.param(body(progressPercentage=float("inf")), Report(fraction=1.0), id="infinite"),
        pytest.param(body(estimatedRemainingSeconds=-1), Report(remaining_seconds=0), id="should-have-ended"),
        pytest.param(body({"done": "nan", "total": "9"}), Report(own=True), id="nan-done"),
        pytest.param(body({"done": "3", "total": "0"}), Report(own=True), id="of-nothing"),
        pytest.param(body({"outputTokens": "-5"}), Report(output_tokens=0), id="negative-tokens"),
        pytest.param(body({"outputTokens": "1e300"}), Report(output_tokens=int(MOST)), id="too-many-tokens"),
        pytest.param(body({"loss": "high"}), Report(), id="metric-of-no-interest"),
    ],
)
def test_a_report_is_read(sent: bytes, expected: Report) -> None:
    assert parse_report(sent) == expected


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut-off"),
        pytest.param(b"\xff\xfe", id="binary"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"{}", id="no-status"),
        pytest.param(b"[" * 10000, id="deep"),
        pytest.param(body(progressPercentage="much"), id="percentage"),
        pytest.param(body({"done": "most", "total": "9"}), id="done"),
        pytest.param(b'{"trainerStatus": {"metrics": {"done": "1"}}}', id="metrics-as-object"),
        pytest.param(body({f"m{number}": "1" for number in range(257)}), id="too-many-metrics"),
    ],
)
def test_what_is_no_report_is_refused(sent: bytes) -> None:
    with pytest.raises(ReportError) as refused:
        parse_report(sent)
    assert len(str(refused.value)) <= 200


METRIC = st.sampled_from(["done", "total", "inputTokens", "outputTokens", "tokensPerSecond", "current_step", "loss"])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SENT = st.fixed_dictionaries(
    {},
    optional={
        "progressPercentage": JUNK,
        "estimatedRemainingSeconds": JUNK,
        "metrics": st.lists(st.fixed_dictionaries({"name": METRIC, "value": JUNK}), max_size=6) | JUNK,
    },
)


@given(st.binary(max_size=64) | SENT.map(lambda status: json.dumps({"trainerStatus": status}).encode()))
@example(b'{"trainerStatus": {"progressPercentage": 1e999}}')
def test_whatever_is_sent_is_read_or_refused(sent: bytes) -> None:
    try:
        report = parse_report(sent)
    except ReportError:
        return
    assert report.fraction is None or 0 <= report.fraction <= 1
    for value in (report.done, report.total, report.remaining_seconds, report.input_tokens, report.tokens_per_second):
        assert value is None or 0 <= value <= MOST
    assert report.total != 0
    assert (report.done is None) == (report.total is None)


def pod(index: int = 0, attempt: str = "judge-i1-judge-a1", namespace: str = "team") -> AttemptPod:
    return AttemptPod(namespace=namespace, run="judge", attempt=attempt, index=index)


def own(done: float, total: float = 100, **more: Any) -> Report:
    return Report(own=True, done=done, total=total, **more)


CALLBACK_BEGINS = Report(fraction=0.0)
CALLBACK_ENDS = Report(fraction=1.0, remaining_seconds=0)


def callback(step: float, total: float = 100, remaining: float = 7) -> Report:
    return Report(fraction=int(100 * step / total) / 100, done=step, total=total, remaining_seconds=remaining)


@pytest.mark.parametrize(
    ("told", "fraction", "rose"),
    [
        pytest.param([("a", own(0))], 0.0, 0, id="begins"),
        pytest.param([("a", own(5)), ("a", own(6))], 0.06, 1, id="gets-on"),
        pytest.param([("a", own(5)), ("a", own(5)), ("a", own(5))], 0.05, 0, id="repeats-itself"),
        pytest.param([("a", own(5)), ("a", own(6)), ("a", own(5))], 0.06, 1, id="late-report"),
        pytest.param([("a", own(50)), ("a", own(50, 200))], 0.25, 0, id="more-to-do"),
        pytest.param([("a", own(50)), ("a", own(51, 200))], 0.255, 1, id="more-done-and-more-to-do"),
        pytest.param([("a", own(80)), ("b", own(50))], 0.5, 0, id="new-pod-from-a-checkpoint"),
        pytest.param([("a", own(80)), ("b", own(50)), ("b", own(51))], 0.51, 2, id="new-pod-gets-on"),
        pytest.param([("a", own(51)), ("b", own(51)), ("c", own(51))], 0.51, 0, id="crashes-at-the-same-place"),
        pytest.param([("a", own(51)), ("b", CALLBACK_BEGINS), ("b", own(51))], 0.51, 0, id="crashes-in-training"),
        pytest.param([("a", own(51)), ("b", own(52))], 0.52, 1, id="new-pod-found-more-than-was-told"),
        pytest.param([("a", CALLBACK_BEGINS), ("a", own(1))], 0.01, 1, id="first-step"),
        pytest.param([("a", own(7)), ("a", callback(7))], 0.07, 0, id="callback-tells-the-same"),
        pytest.param([("a", own(7)), ("a", callback(8))], 0.08, 1, id="callback-is-ahead"),
        pytest.param([("a", own(60)), ("a", CALLBACK_ENDS)], 0.6, 0, id="callback-is-interrupted"),
        pytest.param([("a", Report(fraction=0.4)), ("a", Report(fraction=0.5))], 0.5, 1, id="percentage-alone"),
        pytest.param([("a", Report(fraction=0.4)), ("a", Report(fraction=0.4))], 0.4, 0, id="same-percentage"),
        pytest.param([("a", own(7)), ("a", Report())], 0.07, 0, id="says-nothing"),
    ],
)
def test_only_work_done_is_a_sign_of_life(told: list[tuple[str, Report]], fraction: float, rose: int) -> None:
    shard = None
    for minute, (uid, report) in enumerate(told):
        shard = merged(shard, report, uid, minutes(minute))
    assert shard is not None
    assert shard.fraction == pytest.approx(fraction)
    assert shard.rose == minutes(rose)


def test_the_callback_adds_steps_and_keeps_what_the_stage_said() -> None:
    shard = merged(
        None, own(7, input_tokens=3, output_tokens=40, tokens_per_second=9.0, remaining_seconds=60), "a", NOW
    )
    shard = merged(shard, callback(8, remaining=2), "a", NOW)
    assert (shard.done, shard.remaining_seconds) == (8, 60)
    assert (shard.input_tokens, shard.output_tokens, shard.tokens_per_second) == (3, 40, 9.0)


def test_the_callback_alone_is_believed() -> None:
    shard = merged(None, callback(8, remaining=2), "a", NOW)
    assert shard.remaining_seconds == 2


def test_tokens_of_pods_that_are_gone_still_count() -> None:
    board = ProgressBoard()
    for uid, tokens in [("a", 10), ("a", 30), ("b", 5), ("b", 7), ("c", 1)]:
        board.take(pod(), uid, own(1, input_tokens=tokens, output_tokens=2 * tokens), NOW)
    told = board.progress("team", pod().attempt, 1)
    assert told is not None
    assert (told.input_tokens, told.output_tokens) == (38, 76)


def test_shards_are_merged() -> None:
    board = ProgressBoard()
    board.take(pod(0), "a", own(50, remaining_seconds=10, output_tokens=5, tokens_per_second=800), minutes(1))
    board.take(pod(1), "b", own(10, 40, remaining_seconds=90, output_tokens=6, tokens_per_second=412.4), minutes(3))
    board.take(pod(2), "c", own(40, 40, remaining_seconds=0, output_tokens=7, tokens_per_second=999), minutes(2))
    assert board.progress("team", pod().attempt, 5) == AttemptProgress(
        fraction=(0.5 + 0.25 + 1) / 5,
        time=minutes(3),
        remaining_seconds=90,
        throughput="1,212 tokens/s",  # a shard that is done makes no more
        output_tokens=18,
    )


def test_an_ended_attempt_keeps_its_pace_and_no_pace_is_not_told() -> None:
    board = ProgressBoard()
    board.take(pod(), "a", own(100, tokens_per_second=812), NOW)
    board.take(pod(attempt="curate"), "b", own(1), NOW)
    ended, curating = board.progress("team", pod().attempt, 1), board.progress("team", "curate", 1)
    assert ended is not None
    assert curating is not None
    assert (ended.fraction, ended.throughput) == (1.0, "812 tokens/s")
    assert curating.throughput == ""


def test_what_nobody_told_is_not_known() -> None:
    board = ProgressBoard()
    board.take(pod(), "a", own(1), NOW)
    board.take(pod(3), "b", own(1), NOW)
    assert board.progress("other", pod().attempt, 1) is None
    assert board.progress("team", "judge-i1-judge-a2", 1) is None
    told = board.progress("team", pod().attempt, 2)
    assert told is not None
    assert told.fraction == pytest.approx(0.005)  # a shard beyond the last is no shard


def test_news_are_news_only_once() -> None:
    board = ProgressBoard()
    assert [board.take(pod(), "a", report, NOW) for report in (own(1), own(1), own(2), Report())] == [
        True,
        False,
        True,
        False,
    ]


def test_attempts_are_forgotten_by_namespace() -> None:
    board = ProgressBoard()
    for namespace, attempt in [("team", "a"), ("team", "b"), ("other", "b")]:
        board.take(pod(attempt=attempt, namespace=namespace), "uid", own(1), NOW)
    board.forget("team", {"a"})
    known = [(name, attempt) for name in ("team", "other") for attempt in "ab" if board.progress(name, attempt, 1)]
    assert known == [("team", "a"), ("other", "b")]


NUMBER = st.none() | st.integers(0, 50)
REPORTS = st.builds(
    lambda own, done, total, **more: Report(own=own, done=done, total=None if done is None else total, **more),
    own=st.booleans(),
    done=NUMBER,
    total=st.integers(1, 40),
    fraction=st.none() | st.floats(0, 1),
    remaining_seconds=NUMBER,
    output_tokens=NUMBER,
    tokens_per_second=NUMBER,
)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), REPORTS), min_size=1, max_size=30))
def test_whatever_is_told_the_board_makes_sense(told: list[tuple[int, str, Report]]) -> None:
    board = ProgressBoard()
    before: AttemptProgress | None = None
    for minute, (index, uid, report) in enumerate(told):
        news = board.take(pod(index), uid, report, minutes(minute))
        assert not board.take(pod(index), uid, report, minutes(minute + 0.5))
        after = board.progress("team", pod().attempt, 4)
        assert after is not None
        assert 0 <= after.fraction <= 1
        assert news or after == before
        if before is not None:
            assert after.time >= before.time
            assert after.output_tokens >= before.output_tokens
            assert after.time in (before.time, minutes(minute))
        before = after
