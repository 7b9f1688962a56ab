"""What a stage gets besides its config: everything that reaches outside is in here and can be replaced."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from selftaught.api.placement import Engine as EngineSettings
from selftaught.api.references import ModelSource
from selftaught.artifacts import Store
from selftaught.stages.engine import Engine


class ProgressSink(Protocol):
    """Where a stage tells how far it is. Must be cheap, must never fail."""

    def update(self, *, done: int, total: int, unit: str, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """`done` of `total` units (pairs, examples, steps), and the tokens used by this process so far."""
        ...


EngineProvider = Callable[[Path, EngineSettings], Engine]
"""An engine that serves the model in a folder."""


@dataclass(frozen=True)
class Shard:
    """Which part of the rows this process does: those whose position modulo `count` is `index`."""

    index: int
    count: int

    def owns(self, position: int) -> bool:
        """Whether the row at a position is this shard's."""
        return position % self.count == self.index


@dataclass(frozen=True)
class StageContext:
    """The outside world of a stage."""

    store: Store
    """Opens folders by URI."""
    shard: Shard
    """This process's part."""
    progress: ProgressSink
    """Progress."""
    now: Callable[[], datetime]
    """The time, with zone UTC."""
    models: Callable[[ModelSource], Path]
    """The local folder of a model, fetched and vetted. Raises ModelError."""
    engine: EngineProvider
    """An engine that serves the model in a folder: started, or its weights swapped."""
    stopping: Callable[[], bool]
    """Whether the process was asked to stop; a stage then keeps what is finished and raises Interrupted."""
