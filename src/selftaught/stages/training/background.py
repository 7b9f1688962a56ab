"""Runs a callback of the Trainer in a thread of its own, so that training never waits for it.

transformers' Kubeflow callback posts from within the training loop; a receiver that does not answer would hold up every
step for five seconds.
"""

import copy
import threading
from typing import Any

from transformers import TrainerCallback

EVENTS = ("on_train_begin", "on_log", "on_step_end", "on_train_end")


class BackgroundCallback(TrainerCallback):  # type: ignore[misc]
    """Passes on when training begins and ends, and the newest step and log; what comes while it is busy is replaced.

    The callback is told counters and logs, and neither the model nor anything else that it could hold on to.
    """

    def __init__(self, inner: TrainerCallback) -> None:
        self._inner = inner
        self._changed = threading.Condition()
        self._pending: dict[str, tuple[Any, ...]] = {}
        self._thread: threading.Thread | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the Trainer, as are the others."""
        self._thread = threading.Thread(target=self._run, name="trainer-reports", daemon=True)
        self._thread.start()
        self._tell("on_train_begin", args, state, control, None)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        self._tell("on_log", args, state, control, dict(logs or {}))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tell("on_step_end", args, state, control, None)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tell("on_train_end", args, state, control, None)

    def _tell(self, event: str, args: Any, state: Any, control: Any, logs: dict[str, float] | None) -> None:
        with self._changed:
            self._pending[event] = (args, copy.copy(state), copy.copy(control), logs)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._pending))
                pending, self._pending = self._pending, {}
            for event in EVENTS:
                if event in pending:
                    args, state, control, logs = pending[event]
                    getattr(self._inner, event)(args, state, control, logs=logs)
            if "on_train_end" in pending:
                return
