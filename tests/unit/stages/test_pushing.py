"""Records are pushed to a real server over real TLS, and whatever happens to it, the stage does not notice."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from progress_world import ProgressWorld, eventually, progress_world, token
from selftaught.api.results import Stage
from selftaught.stages.pushing import Pusher, Receiver, trainer_status
from selftaught.stages.reporting import ProgressRecord
from selftaught_operator.reports import Report, parse_report

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
INTERVAL = 0.05


def record(done: int, total: int = 100, **more: Any) -> ProgressRecord:
    return ProgressRecord(stage=Stage.JUDGE, iteration=1, done=done, total=total, unit="pairs", time=NOW, **more)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[ProgressWorld]:
    with progress_world(tmp_path) as world:
        yield world


@pytest.fixture
def pusher(here: ProgressWorld) -> Iterator[Pusher]:
    receiver = Receiver.of(here.environment)
    assert receiver is not None
    made = Pusher(receiver, interval=INTERVAL)
    before = set(threading.enumerate())
    yield made
    made.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # it may be at its last attempt, which nobody else waits for


def done(world: ProgressWorld) -> float | None:
    told = world.progress()
    return None if told is None else round(100 * told.fraction, 3)


def test_a_record_as_kubeflow_writes_it() -> None:
    body = trainer_status(
        record(57, input_tokens=10, output_tokens=20, tokens_per_second=812.5, remaining_seconds=30.7)
    )
    assert json.loads(body) == {
        "trainerStatus": {
            "lastUpdatedTime": "2026-01-02T03:04:05+00:00",
            "progressPercentage": 57,
            "estimatedRemainingSeconds": 30,
            "metrics": [
                {"name": "done", "value": "57"},
                {"name": "total", "value": "100"},
                {"name": "inputTokens", "value": "10"},
                {"name": "outputTokens", "value": "20"},
                {"name": "tokensPerSecond", "value": "812.5"},
            ],
        }
    }


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(
            record(1, 3, output_tokens=5, remaining_seconds=9.9),
            Report(True, 0.33, 1, 3, 9, 0, 5, 0.0),
            id="under-way",
        ),
        pytest.param(record(5, 4), Report(True, 1.0, 5, 4, None, 0, 0, 0.0), id="more-than-all"),
        pytest.param(record(0, 0), Report(True, None, None, None, None, 0, 0, 0.0), id="nothing-to-do"),
    ],
)
def test_the_operator_reads_what_a_stage_writes(told: ProgressRecord, expected: Report) -> None:
    assert parse_report(trainer_status(told)) == expected


ENVIRONMENT = {
    "KUBEFLOW_TRAINER_SERVER_URL": "https://operator:8443/progress",
    "KUBEFLOW_TRAINER_SERVER_CA_CERT": "/ca",
    "KUBEFLOW_TRAINER_SERVER_TOKEN": "/token",
}


def test_three_variables_make_a_pusher() -> None:
    assert Receiver.of(ENVIRONMENT) is not None


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
def test_without_one_of_them_there_is_none(name: str) -> None:
    assert Pusher.of({**ENVIRONMENT, name: ""}) is None


@pytest.mark.parametrize(
    "url", ["http://operator:8443/progress", "https://", "https://operator:99999/", "operator:8443", "https://[x/"]
)
def test_a_token_is_never_sent_openly(url: str, caplog: pytest.LogCaptureFixture) -> None:
    assert Pusher.of({**ENVIRONMENT, "KUBEFLOW_TRAINER_SERVER_URL": url}) is None
    assert len(caplog.messages) == 1


def test_records_arrive(here: ProgressWorld, pusher: Pusher) -> None:
    pusher.push(record(7, input_tokens=3, output_tokens=40, tokens_per_second=9.0, remaining_seconds=60))
    assert eventually(lambda: done(here) == 7)
    told = here.progress()
    assert told is not None
    assert (told.input_tokens, told.output_tokens) == (3, 40)
    assert (told.throughput, told.remaining_seconds) == ("9 tokens/s", 60)


def test_only_the_newest_is_pushed_and_the_last_word_at_once(here: ProgressWorld) -> None:
    receiver = Receiver.of(here.environment)
    assert receiver is not None
    pusher = Pusher(receiver, interval=3600)
    pusher.push(record(1))
    assert eventually(lambda: done(here) == 1)
    for number in range(2, 90):
        pusher.push(record(number))
    time.sleep(0.1)
    assert done(here) == 1
    pusher.close(wait=10)
    assert done(here) == 89
    assert len(here.woken) == 2


def test_no_record_no_thread(here: ProgressWorld) -> None:
    before = threading.active_count()
    pusher = Pusher.of(here.environment)
    assert pusher is not None
    assert threading.active_count() == before
    pusher.close()
    assert not here.reviewed


def test_a_server_that_comes_and_goes(here: ProgressWorld, pusher: Pusher, caplog: pytest.LogCaptureFixture) -> None:
    here.stop()
    pusher.push(record(1))
    assert eventually(lambda: caplog.messages)
    time.sleep(6 * INTERVAL)  # it tries again and again, and says no more
    here.start()
    assert eventually(lambda: done(here) == 1)
    pusher.push(record(2))
    assert eventually(lambda: done(here) == 2)
    where = f"localhost:{here.port}"
    assert [message.split(":")[0] for message in caplog.messages] == [
        "progress does not get through to localhost",
        "progress gets through to localhost",
    ]
    assert all(where in message for message in caplog.messages)
    assert token().split(".")[1][:20] not in caplog.text


def test_a_renewed_certificate_changes_nothing(
    here: ProgressWorld, pusher: Pusher, caplog: pytest.LogCaptureFixture
) -> None:
    pusher.push(record(1))
    assert eventually(lambda: done(here) == 1)
    here.loop.call_soon_threadsafe(here.certificate.renew)
    pusher.push(record(2))
    assert eventually(lambda: done(here) == 2)
    assert not caplog.messages


def test_a_new_authority_is_read_when_it_is_mounted(
    here: ProgressWorld, pusher: Pusher, caplog: pytest.LogCaptureFixture
) -> None:
    pusher.push(record(1))
    assert eventually(lambda: done(here) == 1)
    here.stop()
    here.new_certificate(mounted=False)
    here.start()
    pusher.push(record(2))
    assert eventually(lambda: any("CERTIFICATE_VERIFY_FAILED" in message for message in caplog.messages))
    assert done(here) == 1
    here.mount()
    assert eventually(lambda: done(here) == 2)


def test_a_new_token_is_read(here: ProgressWorld, pusher: Pusher) -> None:
    first = here.token_file.read_text("utf-8").strip()
    pusher.push(record(1))
    assert eventually(lambda: done(here) == 1)
    second = token(expiry=time.time() + 7200)
    here.token_file.write_text(second, "utf-8")
    pusher.push(record(2))
    assert eventually(lambda: done(here) == 2)
    assert here.reviewed == [first, second]


def test_what_was_too_much_is_told_later(here: ProgressWorld, pusher: Pusher, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1, 7):  # the server takes four at once
        pusher.push(record(number))
        time.sleep(1.5 * INTERVAL)
    assert eventually(lambda: done(here) == 6)
    assert not caplog.messages


def broken(world: ProgressWorld, what: str) -> None:
    if what == "token":
        world.token_file.unlink()
    elif what == "authority":
        world.ca_file.write_text("nonsense", "utf-8")
    elif what == "token-with-newline":
        world.token_file.write_text("a\nb", "utf-8")
    else:
        world.token_file.write_text(token("nobody"), "utf-8")


@pytest.mark.parametrize("what", ["token", "authority", "token-with-newline", "refused"])
def test_nothing_that_is_wrong_is_raised(
    here: ProgressWorld, pusher: Pusher, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken(here, what)
    pusher.push(record(1))
    assert eventually(lambda: caplog.messages)
    time.sleep(3 * INTERVAL)
    assert len(caplog.messages) == 1


@pytest.fixture
def black_hole(here: ProgressWorld) -> Iterator[dict[str, str]]:
    """An address that accepts connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        url = f"https://localhost:{listening.getsockname()[1]}/progress"
        yield {**here.environment, "KUBEFLOW_TRAINER_SERVER_URL": url}


def test_a_silent_server_delays_nothing(black_hole: dict[str, str]) -> None:
    pusher = Pusher.of(black_hole)
    assert pusher is not None
    began = time.monotonic()
    for number in range(1000):
        pusher.push(record(number))
    assert time.monotonic() - began < 1.0
    began = time.monotonic()
    pusher.close(wait=0.2)
    assert time.monotonic() - began < 1.0


def stage(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A stage process whose config cannot be read."""
    return subprocess.run(
        [sys.executable, "-m", "selftaught", "stage", "judge", "--config", "absent"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_stage_that_has_nothing_to_tell_ends_as_ever(tmp_path: Path, black_hole: dict[str, str]) -> None:
    began = time.monotonic()
    ended = stage(tmp_path, black_hole)
    assert ended.returncode == 64
    assert json.loads(ended.stdout)["type"] == "failure"
    assert time.monotonic() - began < 10
