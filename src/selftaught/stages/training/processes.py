"""The processes of a training, and what they must agree on."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from selftaught.errors import TransientError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """One of the processes, and how many there are, as torchrun says in the environment."""

    rank: int
    count: int

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> "Processes":
        """One process when torchrun did not start it."""
        return cls(rank=int(environ.get("RANK", "0")), count=int(environ.get("WORLD_SIZE", "1")))

    @property
    def writes(self) -> bool:
        """Whether this process writes what all share."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.barrier()

    def leave(self) -> None:
        """Wait for all, then close the connections: left to the interpreter's end, they can abort the process."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.barrier()
            torch.distributed.destroy_process_group()

    def from_first(self, value: T) -> T:
        """What process 0 has."""
        if self.count == 1:
            return value
        import torch.distributed

        box: list[Any] = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T]:
        """What each process has, by rank."""
        if self.count == 1:
            return [value]
        import torch.distributed

        boxes: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(boxes, value)
        return boxes

    def agree(self, value: object, what: str) -> None:
        """Raise TransientError unless all processes have the same value."""
        values = self.gather(value)
        if any(other != values[0] for other in values):
            raise TransientError(f"the processes of the training see different {what}; they need one shared storage")
