"""What all API models share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

GROUP = "selftaught.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "SelfTaughtRun"
PLURAL = "selftaughtruns"


class ApiModel(BaseModel):
    """A frozen model with camelCase keys in JSON and YAML; an unknown key is an error."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )


DecimalString = Annotated[str, StringConstraints(pattern=r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$", max_length=32)]
"""A number written as a string, as the Kubernetes API conventions ask for fractions."""

RatioString = Annotated[str, StringConstraints(pattern=r"^(0(\.[0-9]+)?|1(\.0+)?)$", max_length=32)]
"""A fraction from 0 to 1, written as a string."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
"""A DNS label (RFC 1123)."""

Uri = Annotated[
    str,
    StringConstraints(pattern=r"^(hf|pvc|s3|gs|file)://[^\s]+$", max_length=1024),
    Field(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "!self.contains('/../') && !self.endsWith('/..')",
                    "message": "must not contain a '..' segment",
                }
            ]
        }
    ),
]
"""Where a model or data set lies: `hf://owner/name`, `pvc://claim/path`, `s3://bucket/path`, `gs://…` or
`file:///path`."""

Fraction = Annotated[float, Field(ge=0, le=1)]
