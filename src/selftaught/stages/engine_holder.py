"""Keeps one engine per process: a start costs half a minute, other weights in a running engine cost milliseconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from selftaught.api.placement import Engine as EngineSettings
from selftaught.errors import ModelError, TransientError
from selftaught.stages.engine import Engine


class SwappableEngine(Engine, Protocol):
    """An engine whose weights can be replaced. `vllm_engine.VllmEngine` is one."""

    @property
    def broken(self) -> bool:
        """Whether it has failed and must be replaced."""
        ...

    def fits(self, folder: Path, settings: EngineSettings) -> bool:
        """Whether the model in a folder differs in its weights only."""
        ...

    def swap(self, folder: Path) -> None:
        """Load the weights in a folder."""
        ...

    def close(self) -> None:
        """Shut down."""
        ...


class EngineHolder:
    """The engine of this process, for one model after another."""

    def __init__(self, start: Callable[[Path, EngineSettings], SwappableEngine] | None = None) -> None:
        self._start = start or _start_vllm
        self._engine: SwappableEngine | None = None
        self._serves: object = None
        self.starts = 0
        """Engines started so far."""
        self.swaps = 0
        """Times that weights were swapped so far."""

    def engine(self, folder: Path, settings: EngineSettings) -> Engine:
        """An engine that serves the model in a folder: the running one, with its weights swapped, or a new one.

        Raises ModelError when the model cannot be served.
        """
        wanted = (_stamp(folder), settings)
        if self._engine is not None and not self._engine.broken:
            if self._serves == wanted:
                return self._engine
            if self._engine.fits(folder, settings) and self._swapped(self._engine, folder):
                self._serves = wanted
                return self._engine
        self.close()
        self._engine = self._start(folder, settings)
        self._serves = wanted
        self.starts += 1
        return self._engine

    def close(self) -> None:
        """Shut the engine down, if there is one."""
        engine, self._engine, self._serves = self._engine, None, None
        if engine is not None:
            engine.close()

    def _swapped(self, engine: SwappableEngine, folder: Path) -> bool:
        try:
            engine.swap(folder)
        except (ModelError, TransientError):
            return False  # a fresh engine says what is wrong, if anything is
        self.swaps += 1
        return True


def _start_vllm(folder: Path, settings: EngineSettings) -> SwappableEngine:
    from selftaught.stages.vllm_engine import VllmEngine

    return VllmEngine(folder, settings)


def _stamp(folder: Path) -> object:
    """Changes when the files in a folder do, so that a folder written anew is loaded anew."""
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    return folder, tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
