"""Tells the operator how far a stage is: progress records, pushed over HTTPS in the background.

Kubeflow Trainer's format and variables, so that transformers' own callback reports to the same place. What is lost is
lost: a stage never waits for its reports, and never fails by them.
"""

import http.client
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pydantic import JsonValue

from selftaught.stages.reporting import ProgressRecord

URL_VARIABLE = "KUBEFLOW_TRAINER_SERVER_URL"
CA_VARIABLE = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
TOKEN_VARIABLE = "KUBEFLOW_TRAINER_SERVER_TOKEN"

PUSH_SECONDS = 5.0
TIMEOUT_SECONDS = 5.0
LAST_WORD_SECONDS = 1.0
"""How long the end of a stage waits for its last report, if the one before arrived."""
ACCEPTED, TOO_OFTEN = 200, 429

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Receiver:
    """Where reports go. The files are read for each report, since both change while a stage runs."""

    url: SplitResult
    ca: Path
    """Certificate authority of the receiver (PEM)."""
    token: Path

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> "Receiver | None":
        """None unless all three variables are set and the address is an HTTPS one: a token is never sent openly."""
        values = [environ.get(name) for name in (URL_VARIABLE, CA_VARIABLE, TOKEN_VARIABLE)]
        if not all(values):
            return None
        url, ca, token = (str(value) for value in values)
        try:
            parts = urlsplit(url)
            usable = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 443) > 0
        except ValueError:
            usable = False
        if not usable:
            LOGGER.warning("progress is not pushed: %s is not an https address", URL_VARIABLE)
            return None
        return cls(parts, Path(ca), Path(token))

    def post(self, body: bytes) -> int:
        """Send a report; the HTTP status. Raises OSError, HTTPException or ValueError.

        Neither a proxy nor a redirection is followed: the token is for this address.
        """
        token = self.token.read_text("utf-8").strip()
        connection = http.client.HTTPSConnection(
            self.url.hostname or "",
            self.url.port,
            timeout=TIMEOUT_SECONDS,
            context=ssl.create_default_context(cafile=str(self.ca)),
        )
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        target = (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")
        try:
            connection.request("POST", target, body, headers)
            return connection.getresponse().status
        finally:
            connection.close()


def trainer_status(record: ProgressRecord) -> bytes:
    """A record as the body of a report."""
    status: dict[str, JsonValue] = {"lastUpdatedTime": record.time.isoformat()}
    if record.total > 0:
        status["progressPercentage"] = max(0, min(100, 100 * record.done // record.total))
    if record.remaining_seconds is not None:
        status["estimatedRemainingSeconds"] = max(0, int(record.remaining_seconds))
    metrics = {
        "done": record.done,
        "total": record.total,
        "inputTokens": record.input_tokens,
        "outputTokens": record.output_tokens,
        "tokensPerSecond": record.tokens_per_second,
    }
    status["metrics"] = [{"name": name, "value": str(value)} for name, value in metrics.items()]
    return json.dumps({"trainerStatus": status}).encode()


class Pusher:
    """Pushes the newest record, at most one per `interval` seconds, from a thread of its own.

    The thread begins with the first record, so a process that reports nothing has none.
    """

    def __init__(
        self, receiver: Receiver, *, interval: float = PUSH_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._receiver = receiver
        self._interval = interval
        self._clock = clock
        self._changed = threading.Condition()
        self._newest: ProgressRecord | None = None
        self._closed = False
        self._works = True
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> "Pusher | None":
        """For the receiver that the environment names; none if it names none."""
        receiver = Receiver.of(environ)
        return None if receiver is None else cls(receiver)

    def push(self, record: ProgressRecord) -> None:
        """Have a record pushed soon, unless a newer one comes first. Returns at once."""
        with self._changed:
            self._newest = record
            self._changed.notify()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
                self._thread.start()

    def close(self, wait: float = LAST_WORD_SECONDS) -> None:
        """Push the last record now. Waits a moment for it, unless reports have not been getting through anyway."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            patience = wait if self._works else 0.0
        if self._thread is not None:
            self._thread.join(patience)

    def _run(self) -> None:
        pushed_at = -float("inf")
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._closed)
                # The next report is due; what comes until then takes this one's place.
                self._changed.wait_for(lambda: self._closed, timeout=pushed_at + self._interval - self._clock())
                record, closed = self._newest, self._closed
                self._newest = None
            if record is not None:
                pushed_at = self._clock()
                if not self._push(record):
                    with self._changed:
                        self._newest = self._newest or record
            if closed:
                return

    def _push(self, record: ProgressRecord) -> bool:
        """Whether it arrived."""
        try:
            status = self._receiver.post(trainer_status(record))
            trouble = None if status in (ACCEPTED, TOO_OFTEN) else f"HTTP status {status}"
        except Exception as error:  # reports never harm the work
            status, trouble = 0, f"{type(error).__name__}: {error}"[:200]
        if trouble is not None and self._works:
            LOGGER.warning("progress does not get through to %s: %s", self._receiver.url.netloc, trouble)
        elif trouble is None and not self._works:
            LOGGER.warning("progress gets through to %s again", self._receiver.url.netloc)
        self._works = trouble is None
        return status == ACCEPTED
