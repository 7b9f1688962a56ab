"""Model intake: from a source in the manifest to a local folder that may be loaded."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from selftaught.api.references import ModelSource
from selftaught.artifacts import Folder, Store, storage_errors, write_atomically
from selftaught.errors import ModelError, StorageError
from selftaught.stages.model_vetting import check_names, vet

__all__ = ["local_folder", "vet"]

FETCHED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "README.md", "LICENSE*", "NOTICE*")
"""What is asked of the hub: weights as safetensors, configs, tokenizer, licence. Pickles and code stay there."""
COMPLETE = "complete"


def local_folder(source: ModelSource, store: Store, cache: Path) -> Path:
    """The folder of a model, safe and fit to be loaded: in place on a file system, else fetched once to the cache.

    Raises ModelError if it does not exist, cannot be had or is refused, StorageError if fetching may work later.
    """
    folder = _fetched(source, store, cache)
    vet(folder)
    return folder


def _fetched(source: ModelSource, store: Store, cache: Path) -> Path:
    scheme, _, name = source.uri.partition("://")
    if scheme == "hf":
        if source.revision is None:
            raise ModelError(f"{source.uri} needs a revision (a commit), so that the run means the same tomorrow")
        with _cached(cache, f"{source.uri}@{source.revision}") as (target, partial):
            if partial is not None:
                _from_hub(name, source.revision, partial)
        return target
    folder = store.folder(source.uri)
    if folder.local_path is not None:
        if not folder.local_path.is_dir():
            raise ModelError(f"there is no model folder {folder.local_path} ({source.uri}); check the model's uri")
        return folder.local_path
    with _cached(cache, source.uri) as (target, partial):
        if partial is not None:
            _from_store(folder, partial)
    return target


@contextmanager
def _cached(cache: Path, identity: str) -> Iterator[tuple[Path, Path | None]]:
    """The folder of something in the cache, and a folder to fetch it to if it is not there yet.

    One process fetches, others wait. What was fetched stays when that is cut short.
    """
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    target, partial, marker = cache / name, cache / f"{name}.partial", cache / f"{name}.{COMPLETE}"
    with storage_errors(str(cache)):
        cache.mkdir(parents=True, exist_ok=True)
        lock = os.open(cache / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.exists() and target.is_dir():
            yield target, None
            return
        partial.mkdir(exist_ok=True)
        yield target, partial
        with storage_errors(str(cache)):
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
            write_atomically(marker, identity.encode())
    finally:
        os.close(lock)


def _from_store(folder: Folder, partial: Path) -> None:
    files = folder.files()
    if not files:
        raise ModelError(f"there is no model at {folder.uri}; check the model's uri")
    check_names(folder.uri, files)
    for name, size in files.items():
        path = partial / name
        if not path.resolve().is_relative_to(partial.resolve()):
            raise ModelError(f"{folder.uri} holds a file with the name {name!r}, which leads outside; remove it")
        if not path.is_file() or path.stat().st_size != size:
            folder.download(name, path)


def _from_hub(name: str, revision: str, partial: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Fetch a revision of a model. The token, if any, is in the environment (HF_TOKEN)."""
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(name, revision=revision, local_dir=partial, allow_patterns=list(FETCHED))
    except (hub.OfflineModeIsEnabled, hub.LocalEntryNotFoundError) as error:
        if environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
            raise ModelError(
                f"hf://{name} is not here and HF_HUB_OFFLINE is set; use file:// or pvc://, or unset it"
            ) from error
        raise StorageError(f"cannot reach the hub for hf://{name}; check the network, then start again") from error
    except hub.GatedRepoError as error:
        raise ModelError(f"hf://{name} is gated; ask for access and set tokenSecretRef (HF_TOKEN)") from error
    except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.HFValidationError) as error:
        raise ModelError(f"there is no hf://{name} at revision {revision}, or it needs a token (HF_TOKEN)") from error
    except (hub.HfHubHTTPError, OSError) as error:
        raise StorageError(f"fetching hf://{name} failed: {str(error).splitlines()[0]}; start again") from error
    if not any(partial.glob("*.safetensors")):
        raise ModelError(f"hf://{name} has no safetensors at revision {revision}; only those are loaded")
    shutil.rmtree(partial / ".cache", ignore_errors=True)  # the hub client's notes on the download
