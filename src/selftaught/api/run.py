"""The resource."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from selftaught.api.base import ApiModel
from selftaught.api.spec import RunSpec
from selftaught.api.status import RunStatus

RunName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
"""Name of a run: a DNS label that leaves room for `-i03-evaluate-a12`."""


class Metadata(ApiModel):
    """The part of metav1.ObjectMeta that matters here; the rest is ignored."""

    model_config = {**ApiModel.model_config, "extra": "ignore"}

    name: RunName
    """Name, at most 40 characters."""
    namespace: str = "default"
    """Namespace."""
    uid: str = ""
    """Identity of this very object."""
    generation: int = 0
    """Counts changes of the spec."""
    labels: dict[str, str] = {}
    """Labels; Kueue's are passed on to the Jobs."""
    annotations: dict[str, str] = {}
    """Annotations; approvals by hand are among them."""
    creation_timestamp: datetime | None = None
    """When it was made."""
    deletion_timestamp: datetime | None = None
    """When its deletion began."""


class SelfTaughtRun(ApiModel):
    """Trains an LLM judge without human labels: judge, curate, train, evaluate, and again (arXiv 2408.02666)."""

    api_version: Literal["selftaught.dev/v1alpha1"] = "selftaught.dev/v1alpha1"
    """API version."""
    kind: Literal["SelfTaughtRun"] = "SelfTaughtRun"
    """Kind."""
    metadata: Metadata
    """Metadata."""
    spec: Annotated[RunSpec, Field()]
    """What a user asks for."""
    status: RunStatus = RunStatus()
    """What is known about it."""
