"""How a shard of a stage says that it has ended: a line of its output, and the termination message of its pod."""

from typing import Annotated, Literal

from pydantic import Field

from selftaught.api.base import ApiModel
from selftaught.api.results import StageFailure, StageResult


class ResultRecord(ApiModel):
    """A shard of a stage ended well."""

    type: Literal["result"] = "result"
    result: StageResult


class FailureRecord(ApiModel):
    """A shard of a stage failed."""

    type: Literal["failure"] = "failure"
    failure: StageFailure
    exit_code: int


OutcomeRecord = Annotated[ResultRecord | FailureRecord, Field(discriminator="type")]
"""Either; parse with `pydantic.TypeAdapter(OutcomeRecord)`."""
