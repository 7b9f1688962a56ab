"""What an administrator decides, from environment variables `SELFTAUGHT_OPERATOR_…` (the chart sets them)."""

import os
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from selftaught.errors import ManifestError

PREFIX = "SELFTAUGHT_OPERATOR_"


def none_if_so_called(value: object) -> object:
    """None for the word; an empty variable means the default."""
    return None if value == "none" else value


class Settings(BaseModel):
    """Settings of the operator."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    image: str
    """Image of stages that name none."""
    image_pull_policy: str = "IfNotPresent"
    """Pull policy of all stages."""
    namespaces: str = ""
    """Namespaces that are watched, with commas between; all if empty."""
    pod_namespace: str = "selftaught-system"
    """Namespace of the operator."""
    pod_name: str = "selftaught-operator"
    """Name of this replica; identifies it in the Lease."""
    pod_ip: str = "127.0.0.1"
    """Address of this replica."""
    user_id: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(none_if_so_called)] = 10001
    """User and group of stage pods; `none` leaves the choice to the cluster (OpenShift)."""
    progress_port: Annotated[int, Field(ge=0, le=65535)] = 8443
    """Port that pods tell their progress to."""
    progress_host: str = ""
    """Host name that pods reach it by; no progress is pushed if empty."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port of metrics and probes."""
    resync_seconds: Annotated[float, Field(gt=0)] = 300.0
    """A run is looked at again after this time, whatever happens."""
    status_seconds: Annotated[float, Field(ge=0)] = 10.0
    """Least time between two status writes that only tell progress."""
    retry_seconds: Annotated[float, Field(gt=0)] = 15.0
    """How long to wait after a start that the cluster refused (quota)."""
    leader_election: bool = True
    """Whether replicas agree on one that works."""
    lease_seconds: Annotated[int, Field(ge=3)] = 15
    """How long a leader that is gone keeps others waiting."""
    cluster_domain: str = "cluster.local"
    """DNS domain of the cluster."""
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)] = "INFO"
    """Level of the log: `DEBUG`, `INFO`, `WARNING` or `ERROR`."""


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the environment. Raises ManifestError that names the variable."""
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and value != ""
    }
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        raise ManifestError(f"{name}: {first['msg']}; correct it in the operator's Deployment") from error
