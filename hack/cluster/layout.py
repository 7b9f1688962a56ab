"""Where the test cluster keeps its files, and its addresses."""

import os
from dataclasses import dataclass
from pathlib import Path

NUMBER = int(os.environ.get("SELFTAUGHT_CLUSTER", "0"))
"""Tells apart the clusters of several checkouts on one machine; 0 to 9."""

HOST_LINK = f"selftaught{NUMBER}"
"""The host's end of the cable into the cluster's network namespace."""

HOST_ADDRESS = f"10.{123 + NUMBER}.0.1"
NODE_ADDRESS = f"10.{123 + NUMBER}.0.2"
NODE_NETWORK_BITS = 24
POD_NETWORK = f"10.{123 + NUMBER}.64.0/18"
SERVICE_NETWORK = f"10.{123 + NUMBER}.128.0/18"
API_SERVICE_ADDRESS = f"10.{123 + NUMBER}.128.1"
API_PORT = 6443
API_URL = f"https://{NODE_ADDRESS}:{API_PORT}"
NODE_NAME = "node"
CGROUP = f"selftaught-cluster-{NUMBER}" if NUMBER else "selftaught-cluster"
DOMAIN = "cluster.local"
MACHINE_LOCK = Path(f"/run/{CGROUP}.lock")
MACHINE_RECORD = Path(f"/run/{CGROUP}.json")
"""Copy of the record of the cluster that uses these addresses now."""


@dataclass(frozen=True)
class Layout:
    """The folders of one checkout's cluster.

    Inside the cluster's mount namespace `lib` is /var/lib and `logs` is /var/log, so that every program finds its
    usual paths and the host's own folders stay untouched.
    """

    project: Path

    @property
    def state(self) -> Path:
        return self.project / ".cluster"

    @property
    def bin(self) -> Path:
        return self.state / "bin"

    @property
    def certificates(self) -> Path:
        return self.state / "pki"

    @property
    def configs(self) -> Path:
        return self.state / "etc"

    @property
    def lib(self) -> Path:
        return self.state / "lib"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def control(self) -> Path:
        """Where the supervisor writes pids and reads which component is held down."""
        return self.state / "control"

    @property
    def images(self) -> Path:
        return self.state / "images"

    @property
    def volumes(self) -> Path:
        return self.state / "volumes"

    @property
    def audit_log(self) -> Path:
        return self.state / "audit.log"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def record(self) -> Path:
        """Names the process that holds the cluster's namespaces."""
        return self.state / "cluster.json"

    @property
    def complete(self) -> Path:
        """Present once a start has come to its end."""
        return self.state / "complete"

    def kubeconfig_of(self, user: str) -> Path:
        return self.configs / f"{user}.kubeconfig"


def here() -> Layout:
    """The layout of the checkout that this file belongs to."""
    return Layout(Path(__file__).resolve().parents[2])


def cache() -> Path:
    """Built binaries, shared by all checkouts of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "selftaught" / "cluster"
