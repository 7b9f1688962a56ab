"""Makes and deletes the volumes of the `standard` storage class: folders below `.cluster/volumes`.

Any number of pods may share one, which is what ReadWriteMany claims ask for on a cluster of one node. The folders are
writable by everybody, because the kubelet applies no fsGroup to host paths.
"""

import http.client
import shutil
import time
from pathlib import Path

from hack.cluster.api import Api, RequestError, Resource
from hack.cluster.configs import PROVISIONER
from hack.cluster.layout import Layout
from hack.cluster.probes import tls

CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
CLASS = "standard"
WATCH_SECONDS = 8
"""Shorter than the connection's time-out; each round begins with a whole listing, so nothing is ever missed."""


class _Metadata(Resource):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""


class _ListMetadata(Resource):
    resource_version: str


class _Requests(Resource):
    storage: str = "1Gi"


class _Resources(Resource):
    requests: _Requests = _Requests()


class _ClaimSpec(Resource):
    storage_class_name: str | None = None
    access_modes: tuple[str, ...] = ()
    volume_name: str = ""
    resources: _Resources = _Resources()


class _Claim(Resource):
    metadata: _Metadata
    spec: _ClaimSpec


class _ClaimList(Resource):
    metadata: _ListMetadata
    items: tuple[_Claim, ...]


class _HostPath(Resource):
    path: str


class _VolumeSpec(Resource):
    storage_class_name: str | None = None
    host_path: _HostPath | None = None


class _VolumeStatus(Resource):
    phase: str = ""


class _Volume(Resource):
    metadata: _Metadata
    spec: _VolumeSpec
    status: _VolumeStatus = _VolumeStatus()


class _VolumeList(Resource):
    items: tuple[_Volume, ...]


def serve(place: Layout) -> None:
    """Provision and delete for ever; trouble with the API server is waited out."""
    while True:
        try:
            with Api(tls(place, "volumes")) as api:
                _round(place, api)
        except (OSError, http.client.HTTPException, RequestError) as error:
            print(f"trying again: {error}", flush=True)
            time.sleep(0.5)


def _round(place: Layout, api: Api) -> None:
    claims = _ClaimList.model_validate_json(api.request("GET", CLAIMS))
    for claim in claims.items:
        if claim.spec.storage_class_name == CLASS and not claim.spec.volume_name:
            _provision(place, api, claim)
    for volume in _VolumeList.model_validate_json(api.request("GET", VOLUMES)).items:
        if volume.spec.storage_class_name == CLASS and volume.status.phase == "Released":
            _delete(place, api, volume)
    for _ in api.watch(CLAIMS, claims.metadata.resource_version, WATCH_SECONDS):
        return  # something changed: look at everything anew


def _provision(place: Layout, api: Api, claim: _Claim) -> None:
    owner = claim.metadata
    folder = place.volumes / f"{owner.namespace}-{owner.name}-{owner.uid[:8]}"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": f"pvc-{owner.uid}",
            "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
        },
        "spec": {
            "storageClassName": CLASS,
            "capacity": {"storage": claim.spec.resources.requests.storage},
            "accessModes": claim.spec.access_modes,
            "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": str(folder)},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": owner.namespace,
                "name": owner.name,
                "uid": owner.uid,
            },
        },
    }
    try:
        api.request("POST", VOLUMES, volume)
    except RequestError as error:
        if error.status != http.client.CONFLICT:
            raise


def _delete(place: Layout, api: Api, volume: _Volume) -> None:
    if volume.spec.host_path is not None:
        folder = Path(volume.spec.host_path.path)
        if folder.parent == place.volumes:
            shutil.rmtree(folder, ignore_errors=True)
    api.request("DELETE", f"{VOLUMES}/{volume.metadata.name}")
