"""References from the spec to other things. None carries a namespace: a run reaches only its own."""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from selftaught.api.base import ApiModel, Uri, broken_rule, cel

ResourceName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=253)
]


class SecretKeyRef(ApiModel):
    """A key of a Secret in the run's namespace; only pods read it, the operator never does."""

    name: ResourceName
    """Name of the Secret."""
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = "token"
    """Key in the Secret."""


class SecretRef(ApiModel):
    """A Secret in the run's namespace; only pods read it, the operator never does."""

    name: ResourceName
    """Name of the Secret."""


class ConfigMapRef(ApiModel):
    """A ConfigMap in the run's namespace."""

    name: ResourceName
    """Name of the ConfigMap."""


class ModelSource(ApiModel):
    """A model in safetensors form."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!self.uri.startsWith('hf://') || has(self.revision)", "a model on the hub needs a revision (its commit)")
        )
    )

    uri: Uri
    """`hf://owner/name`, `pvc://claim/path`, `s3://bucket/path`, `gs://bucket/path` or `file:///path`."""
    revision: Annotated[str, StringConstraints(pattern=r"^[-._/a-zA-Z0-9]+$", max_length=128)] | None = None
    """Commit of a model on the hub; needed with `hf://`, so that the run means the same tomorrow."""

    @model_validator(mode="after")
    def _hub_needs_revision(self) -> Self:
        if self.uri.startswith("hf://") and self.revision is None:
            raise broken_rule(
                "revision",
                "a model on the hub needs a revision",
                "add `revision:` with a commit of the model, so that the run means the same tomorrow",
            )
        return self


class Judge(ApiModel):
    """A model that answers, modifies and judges."""

    model: ModelSource
    """Where its weights lie."""
    token_secret_ref: SecretKeyRef | None = None
    """Access token for a gated model."""


class Sampling(ApiModel):
    """How text is sampled. The defaults are the paper's (section 4.1)."""

    temperature: Annotated[float, Field(ge=0, le=5)] = 0.7
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Nucleus mass."""
    max_tokens: Annotated[int, Field(ge=1, le=131072)] = 4096
    """Most new tokens of one answer."""
