"""The server that pods tell their progress to: who may, how often, and what it answers."""

import asyncio
import gzip
import http.client
import json
import logging
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from progress_world import ProgressWorld, eventually, progress_world, token
from selftaught_operator import progress
from selftaught_operator.progress import PodIdentity, Reviews, Throttle, UnavailableError, token_expiry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POD = PodIdentity("team", "pod-0", "uid")
REPORT = json.dumps({"trainerStatus": {"progressPercentage": 40}}).encode()


class StubClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> datetime:
        return self.time

    def pass_seconds(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> StubClock:
    return StubClock()


@pytest.fixture
def here(tmp_path: Path, clock: StubClock) -> Iterator[ProgressWorld]:
    with progress_world(tmp_path, clock) as world:
        yield world


def send(
    world: ProgressWorld,
    body: bytes = REPORT,
    *,
    authorization: str | None = None,
    method: str = "POST",
    path: str = "/progress",
    **headers: str,
) -> int:
    context = ssl.create_default_context(cafile=str(world.ca_file))
    connection = http.client.HTTPSConnection("localhost", world.port, timeout=10, context=context)
    if authorization is None:
        authorization = f"Bearer {world.token_file.read_text('utf-8').strip()}"
    try:
        connection.request(method, path, body, {"Authorization": authorization, **headers})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def begun_post(world: ProgressWorld) -> http.client.HTTPSConnection:
    """A connection that has sent the first byte of its body."""
    context = ssl.create_default_context(cafile=str(world.ca_file))
    connection = http.client.HTTPSConnection("localhost", world.port, timeout=10, context=context)
    connection.putrequest("POST", "/progress")
    connection.putheader("Authorization", f"Bearer {token()}")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"{")
    return connection


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        pytest.param(f"Bearer {token()}", 200, id="pod"),
        pytest.param(f"bearer  {token()} ", 200, id="lower-case"),
        pytest.param("", 401, id="none"),
        pytest.param("Bearer ", 401, id="empty"),
        pytest.param(f"Basic {token()}", 401, id="basic"),
        pytest.param("Bearer é", 401, id="not-ascii"),
        pytest.param(f"Bearer {token('nobody')}", 401, id="refused"),
        pytest.param(f"Bearer {token('stray')}", 403, id="no-run"),
    ],
)
def test_only_pods_of_runs_may_tell(here: ProgressWorld, authorization: str, status: int) -> None:
    assert send(here, authorization=authorization) == status
    assert (here.progress() is not None) == (status == 200)
    assert [pod.index for pod in here.woken] == ([0] if status == 200 else [])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"{}", 400, id="no-status"),
        pytest.param(b"\x00", 400, id="binary"),
        pytest.param(REPORT + b" " * (16384 - len(REPORT)), 200, id="as-large-as-allowed"),
        pytest.param(REPORT + b" " * (16385 - len(REPORT)), 413, id="too-large"),
    ],
)
def test_a_body_is_a_small_report(here: ProgressWorld, body: bytes, status: int) -> None:
    assert send(here, body) == status
    assert (here.progress() is not None) == (status == 200)


@pytest.mark.parametrize(
    "body", [pytest.param(b"not gzip", id="broken"), pytest.param(gzip.compress(REPORT), id="whole")]
)
def test_a_compressed_body_is_no_report(here: ProgressWorld, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert send(here, body, **{"Content-Encoding": "gzip"}) == 400
    assert not caplog.messages


def test_a_pod_that_hangs_up_is_not_worth_a_line(here: ProgressWorld, caplog: pytest.LogCaptureFixture) -> None:
    connection = begun_post(here)
    assert eventually(lambda: here.reviewed)
    connection.close()
    assert send(here) == 200
    assert not caplog.messages


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/progress", 405, id="get"),
        pytest.param("PUT", "/progress", 405, id="put"),
        pytest.param("DELETE", "/progress", 405, id="delete"),
        pytest.param("POST", "/", 404, id="root"),
        pytest.param("POST", "/progress/x", 404, id="below"),
    ],
)
def test_there_is_nothing_else(here: ProgressWorld, method: str, path: str, status: int) -> None:
    assert send(here, method=method, path=path) == status
    assert not here.reviewed


def test_a_body_that_does_not_come_is_not_awaited(here: ProgressWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BODY_SECONDS", 0.1)
    connection = begun_post(here)
    answer = connection.getresponse()
    connection.close()
    assert answer.status == 408


def test_a_pod_that_tells_too_often_is_not_heard(here: ProgressWorld, clock: StubClock) -> None:
    assert [send(here) for _ in range(6)] == [200, 200, 200, 200, 429, 429]
    assert send(here, authorization=f"Bearer {token('pod-1')}") == 200
    clock.pass_seconds(1)
    assert [send(here) for _ in range(2)] == [200, 429]


def test_a_dropped_report_is_not_on_the_board(here: ProgressWorld) -> None:
    for _ in range(4):
        send(here)
    assert send(here, json.dumps({"trainerStatus": {"progressPercentage": 90}}).encode()) == 429
    told = here.progress()
    assert told is not None
    assert told.fraction == pytest.approx(0.4)


def test_the_run_is_woken_by_news_alone(here: ProgressWorld) -> None:
    assert [send(here), send(here)] == [200, 200]
    assert len(here.woken) == 1


def test_a_token_is_reviewed_once_while_the_answer_is_fresh(here: ProgressWorld, clock: StubClock) -> None:
    sent = f"Bearer {token(expiry=NOW.timestamp() + 3600)}"
    for seconds, reviews in [(0, 1), (599, 1), (2, 2)]:
        clock.pass_seconds(seconds)
        assert send(here, authorization=sent) == 200
        assert len(here.reviewed) == reviews


def test_an_answer_lives_no_longer_than_the_token(here: ProgressWorld, clock: StubClock) -> None:
    sent = f"Bearer {token(expiry=NOW.timestamp() + 60)}"
    for seconds, reviews in [(0, 1), (59, 1), (2, 2)]:
        clock.pass_seconds(seconds)
        send(here, authorization=sent)
        assert len(here.reviewed) == reviews


def test_a_refusal_is_remembered_for_a_moment(here: ProgressWorld, clock: StubClock) -> None:
    sent = f"Bearer {token('nobody')}"
    for seconds, reviews in [(0, 1), (9, 1), (2, 2)]:
        clock.pass_seconds(seconds)
        assert send(here, authorization=sent) == 401
        assert len(here.reviewed) == reviews


def test_when_reviews_fail_pods_are_told_to_come_again(
    here: ProgressWorld, clock: StubClock, caplog: pytest.LogCaptureFixture
) -> None:
    here.review_error = ConnectionError(f"cannot post {token()}")
    assert [send(here), send(here)] == [503, 503]
    assert len(here.reviewed) == 1
    assert caplog.messages == ["cannot review a token: ConnectionError"]  # and not what is in the error
    here.review_error = None
    clock.pass_seconds(10)
    assert send(here) == 200


def test_one_token_at_once_is_one_review(here: ProgressWorld) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: send(here), range(3))) == [200] * 3
    assert len(here.reviewed) == 1


def test_no_token_is_logged(here: ProgressWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sent = token()
    for body in (REPORT, b"{}"):
        send(here, body, authorization=f"Bearer {sent}")
    send(here, authorization=f"Bearer {sent}", path="/elsewhere")
    assert sent not in caplog.text


def reviews_of(answers: dict[str, PodIdentity | None], asked: list[str], clock: StubClock) -> Reviews:
    async def review(sent: str) -> PodIdentity | None:
        asked.append(sent)
        return answers.get(sent)

    return Reviews(review, clock)


def test_made_up_tokens_cost_the_api_server_little(clock: StubClock) -> None:
    asked: list[str] = []

    async def flood() -> int:
        reviews = reviews_of({}, asked, clock)
        turned_away = 0
        for number in range(1000):
            try:
                await reviews.identity(f"token-{number}")
            except UnavailableError:
                turned_away += 1
        return turned_away

    assert asyncio.run(flood()) == 900
    assert len(asked) == 100


def test_answers_are_bounded_and_the_oldest_go_first(clock: StubClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MAX_ANSWERS", 3)
    asked: list[str] = []
    tokens = [token(f"pod-{number}", NOW.timestamp() + 3600) for number in range(5)]

    async def ask() -> int:
        reviews = reviews_of(dict.fromkeys(tokens, POD), asked, clock)
        for sent in [*tokens, tokens[4], tokens[0]]:
            assert await reviews.identity(sent) == POD
        return len(reviews)

    assert asyncio.run(ask()) == 3
    assert asked == [*tokens, tokens[0]]


def test_an_answer_is_kept_without_its_token(clock: StubClock) -> None:
    async def review(_: str) -> PodIdentity:
        return POD

    async def ask() -> Reviews:
        reviews = Reviews(review, clock)
        assert await reviews.identity(token()) == POD
        return reviews

    kept = repr(vars(asyncio.run(ask())))
    assert "uid" in kept
    assert token().split(".")[1][:20] not in kept


def test_a_token_that_does_not_say_when_it_expires_is_soon_reviewed_again(clock: StubClock) -> None:
    asked: list[str] = []

    async def ask() -> None:
        reviews = reviews_of({"opaque": POD}, asked, clock)
        for seconds in (0, 9, 2):
            clock.pass_seconds(seconds)
            assert await reviews.identity("opaque") == POD

    asyncio.run(ask())
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(token(expiry=NOW.timestamp()), NOW, id="jwt"),
        pytest.param("opaque", None, id="opaque"),
        pytest.param("a.!!!.c", None, id="not-base64"),
        pytest.param("a.e30.c", None, id="no-expiry"),
        pytest.param("a.W10.c", None, id="no-claims"),
        pytest.param("a.eyJleHAiOiJ4In0.c", None, id="expiry-is-text"),
        pytest.param("a.eyJleHAiOjFlMzA4fQ.c", None, id="expiry-out-of-range"),
    ],
)
def test_the_expiry_of_a_token(sent: str, expected: datetime | None) -> None:
    assert token_expiry(sent) == expected


def test_quiet_keys_cost_nothing() -> None:
    throttle = Throttle(rate=1.0, burst=2)
    for second in range(100):
        assert throttle.allows(f"pod-{second}", NOW + timedelta(seconds=second))
    assert len(throttle) <= 2


def test_the_throttle_holds_over_time() -> None:
    throttle = Throttle(rate=1.0, burst=3)
    passed = sum(throttle.allows("pod", NOW + timedelta(seconds=tenth / 10)) for tenth in range(600))
    assert passed == 62  # three at once, then one a second


def test_the_server_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    with progress_world(tmp_path) as world:
        assert send(world) == 200
    assert threading.active_count() == before
