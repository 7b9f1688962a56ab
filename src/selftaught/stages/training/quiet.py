"""Keeps libraries off the terminal, and turns their failures into errors that say what to do."""

import errno
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from selftaught.errors import ResourceError, SelfTaughtError, StorageError

LOGGERS = ("accelerate", "datasets", "peft", "torch", "transformers", "trl")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars, notes or warnings of libraries; errors still come through."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import transformers

    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        datasets.disable_progress_bars()
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def library_errors(output: str) -> Iterator[None]:
    """Raise ResourceError for lack of memory and StorageError for a full disk, whatever the library called it."""
    try:
        yield
    except MemoryError as error:
        raise _no_memory() from error
    except SelfTaughtError:
        raise
    except Exception as error:
        text = str(error)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in text:
            raise StorageError(
                f"no space left for the training's files in {output}; free some, then start again: checkpoints are kept"
            ) from error
        if isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text):
            raise _no_memory() from error
        raise


def _no_memory() -> ResourceError:
    return ResourceError(
        "the training does not fit into memory; lower training.microBatchSize or maxLength, "
        "switch gradientCheckpointing on, use lora, or shard with strategy FSDP over more processes"
    )
