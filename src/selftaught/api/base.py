"""What all API models share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

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


DecimalString = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$", max_length=32)]
"""A number that is not negative, written as a string, as the Kubernetes API conventions ask for fractions."""

RatioString = Annotated[str, StringConstraints(pattern=r"^(0(\.[0-9]+)?|1(\.0+)?)$", max_length=32)]
"""A fraction from 0 to 1, written as a string."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
"""A DNS label (RFC 1123)."""


def cel(*rules: tuple[str, str]) -> dict[str, JsonValue]:
    """Schema extension that has an API server check CEL rules, given as (rule, message)."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


def broken_rule(field: str, message: str, hint: str) -> PydanticCustomError:
    """The error for a rule between fields: `field` (camelCase) is the one to change."""
    return PydanticCustomError("rule", "{message}", {"field": field, "message": message, "hint": hint})


def repeated(names: list[str]) -> str | None:
    """The first name that comes a second time."""
    return next((name for index, name in enumerate(names) if name in names[:index]), None)


def _stays_inside(uri: str) -> str:
    if "/../" in uri or uri.endswith("/.."):
        raise broken_rule("", "must not contain a '..' segment", "write the path that is meant")
    return uri


Uri = Annotated[
    str,
    StringConstraints(pattern=r"^(hf|pvc|s3|gs|file)://[^\s]+$", max_length=1024),
    AfterValidator(_stays_inside),
    Field(
        json_schema_extra=cel(
            ("!self.contains('/../') && !self.endsWith('/..')", "must not contain a '..' segment"),
        )
    ),
]
"""Where a model or data set lies: `hf://owner/name`, `pvc://claim/path`, `s3://bucket/path`, `gs://…` or
`file:///path`."""

Fraction = Annotated[float, Field(ge=0, le=1)]
