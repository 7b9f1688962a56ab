"""A real progress server with real TLS on the loopback, and the files that a pod would have."""

import asyncio
import base64
import json
import selectors
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from selftaught.loop.observed import AttemptProgress
from selftaught_operator.certificate import Certificate
from selftaught_operator.progress import PodIdentity, ProgressServer
from selftaught_operator.reports import AttemptPod, ProgressBoard

T = TypeVar("T")
ATTEMPT = "judge-i1-train-a1"


def token(name: str = "pod-0", expiry: float | None = None) -> str:
    """A JWT of a pod, signed by nobody."""
    claims = {"sub": name, "exp": time.time() + 3600 if expiry is None else expiry}
    return ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b"{}", _json(claims), b"signature")
    )


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@dataclass
class ProgressWorld:
    """The server runs in a thread. Pods are named in their tokens; `stray` belongs to no run, `nobody` is refused."""

    folder: Path
    now: Callable[[], datetime]
    board: ProgressBoard = field(default_factory=ProgressBoard)
    reviewed: list[str] = field(default_factory=list)
    woken: list[AttemptPod] = field(default_factory=list)
    review_error: Exception | None = None
    port: int = 0

    def __post_init__(self) -> None:
        self.token_file, self.ca_file = self.folder / "token", self.folder / "ca.crt"
        self._selector = selectors.DefaultSelector()
        self.loop = asyncio.SelectorEventLoop(self._selector)
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.token_file.write_text(token() + "\n", "utf-8")
        self.new_certificate()
        self.start()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/progress"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "KUBEFLOW_TRAINER_SERVER_URL": self.url,
            "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(self.ca_file),
            "KUBEFLOW_TRAINER_SERVER_TOKEN": str(self.token_file),
        }

    def new_certificate(self, *, mounted: bool = True) -> None:
        """Another authority, from the next start on; pods have it if `mounted`."""
        self.certificate = Certificate(["localhost"], ["127.0.0.1"])
        if mounted:
            self.mount()

    def mount(self) -> None:
        self.ca_file.write_text(self.certificate.ca_pem, "utf-8")

    def start(self) -> None:
        self.server = ProgressServer(
            board=self.board, review=self._review, owner_of=self._owner_of, told=self.woken.append, now=self.now
        )
        self.port = self.call(self.server.start("127.0.0.1", self.port, self.certificate.context))

    def stop(self) -> None:
        self.call(self.server.stop())

    def close(self) -> None:
        self.stop()
        # All connections are closed when the loop listens to nothing but itself.
        assert eventually(lambda: len(self._selector.get_map()) == 1)
        self.call(asyncio.sleep(0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def progress(self, shards: int = 1) -> AttemptProgress | None:
        return self.board.progress("team", ATTEMPT, shards)

    async def _review(self, sent: str) -> PodIdentity | None:
        self.reviewed.append(sent)
        await asyncio.sleep(0.01)
        if self.review_error is not None:
            raise self.review_error
        payload = sent.split(".")[1]
        name = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]
        return None if name == "nobody" else PodIdentity("team", name, f"uid-of-{name}")

    def _owner_of(self, identity: PodIdentity) -> AttemptPod | None:
        if identity.pod_name == "stray":
            return None
        return AttemptPod(identity.namespace, "judge", ATTEMPT, int(identity.pod_name.removeprefix("pod-")))


@contextmanager
def progress_world(folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Iterator[ProgressWorld]:
    """A server until the end of the block."""
    world = ProgressWorld(folder, now)
    try:
        yield world
    finally:
        world.close()


def eventually(holds: Callable[[], object], seconds: float = 10.0) -> bool:
    """Whether something comes true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return False
