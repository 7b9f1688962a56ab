"""The prompt templates of a run, frozen in a ConfigMap when the run is first seen: they determine its results."""

from selftaught.api.run import SelfTaughtRun
from selftaught.api.stage_config import PromptTexts
from selftaught.errors import ManifestError
from selftaught.judging.prompts import load
from selftaught_operator.cluster import Cluster, RefusedError
from selftaught_operator.jobs import metadata, run_labels


async def load_prompts(cluster: Cluster, run: SelfTaughtRun) -> PromptTexts:
    """The templates that were frozen, or, the first time, those that the spec names.

    Built-in templates are frozen too: another version of the operator may word them anew. Raises ManifestError if
    they cannot be found or used, ApiError.
    """
    namespace, name = run.metadata.namespace, snapshot_name(run)
    if (frozen := await cluster.config_map(namespace, name)) is not None:
        return load(frozen)
    texts = load(await named_templates(cluster, run))
    data = {f"{key}.txt": text for key, text in texts.model_dump(exclude_none=True).items()}
    meta = metadata(run, name, run_labels(run, "prompts"))
    try:
        created = await cluster.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data, "immutable": True}
        )
    except RefusedError as error:
        raise ManifestError(f"the prompts cannot be kept: {error}") from error
    if created:
        return texts
    return load(await cluster.config_map(namespace, name) or {})


async def named_templates(cluster: Cluster, run: SelfTaughtRun) -> dict[str, str]:
    """The templates of the ConfigMap that the spec names; none if it names none. Raises ManifestError."""
    prompts = run.spec.prompts
    if prompts.uri is not None:
        raise ManifestError("spec.prompts.uri is for local runs; on a cluster put the templates into a ConfigMap")
    if prompts.config_map_ref is None:
        return {}
    name = prompts.config_map_ref.name
    texts = await cluster.config_map(run.metadata.namespace, name)
    if texts is None:
        raise ManifestError(f"there is no ConfigMap {name} in {run.metadata.namespace}; create it with the templates")
    return texts


def snapshot_name(run: SelfTaughtRun) -> str:
    """Name of the ConfigMap with the frozen templates; another for a run of the same name made later."""
    return f"{run.metadata.name}-prompts-{run.metadata.uid[:8]}"
