"""Everything this project raises on purpose.

    SelfTaughtError
    ├── PermanentError            can never work as asked: exit code 64, never retried
    │   ├── ManifestError         the run manifest is wrong
    │   ├── DataError             instructions, pairs or benchmark rows are unusable
    │   ├── ModelError            the model folder is refused or lacks something
    │   └── BudgetError           going on would exceed a budget of the run
    └── TransientError            may work next time: exit code 75, retried within the run's budget
        ├── StorageError          the artifact store failed (full disk, network)
        ├── ResourceError         memory ran out
        └── Interrupted           asked to stop; what was finished is kept

A message names the cause and the next step in one line.
"""

PERMANENT_EXIT_CODE = 64
"""Reserved: `podFailurePolicy` turns it into FailJob. Retrying cannot help (EX_USAGE of sysexits.h)."""

TRANSIENT_EXIT_CODE = 75
"""Worth another attempt (EX_TEMPFAIL of sysexits.h)."""

INTERRUPTED_EXIT_CODE = 143
"""Stopped by SIGTERM after saving what was finished (128 + 15)."""


class SelfTaughtError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = TRANSIENT_EXIT_CODE

    @property
    def reason(self) -> str:
        """CamelCase word for a condition's `reason`."""
        return type(self).__name__.removesuffix("Error")


class PermanentError(SelfTaughtError):
    """Another attempt with the same input would fail in the same way."""

    exit_code = PERMANENT_EXIT_CODE


class ManifestError(PermanentError):
    """The run manifest is wrong."""


class DataError(PermanentError):
    """Instructions, response pairs or benchmark rows are unusable."""


class ModelError(PermanentError):
    """A model folder is refused or lacks something the loop needs."""


class BudgetError(PermanentError):
    """Going on would exceed a budget of the run."""


class TransientError(SelfTaughtError):
    """The same attempt may work later."""


class StorageError(TransientError):
    """The artifact store failed."""


class ResourceError(TransientError):
    """Memory ran out, of the machine or of an accelerator."""


class Interrupted(TransientError):
    """The process was asked to stop."""

    exit_code = INTERRUPTED_EXIT_CODE
