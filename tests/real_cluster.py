"""A real Kubernetes for tests: the one that `KUBECONFIG` names, or the test cluster of this checkout."""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OWN = ROOT / ".cluster"
START_SECONDS = 1200
"""The first start on a machine builds Kubernetes."""


class KubectlError(Exception):
    """kubectl failed; the text is what it said."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that tests may use: nothing outside their own namespaces, except the resource definition."""

    kubeconfig: Path
    program: Path

    @property
    def ours(self) -> bool:
        """The test cluster: its audit log is at hand, and its API server may be killed."""
        return self.kubeconfig == OWN / "kubeconfig"

    @property
    def host_address(self) -> str:
        """Where pods of the test cluster reach a server on this machine that listens on all addresses."""
        return f"10.{123 + int(os.environ.get('SELFTAUGHT_CLUSTER', '0'))}.0.1"

    @property
    def audit_log(self) -> Path:
        return OWN / "audit.log"

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """What kubectl printed.

        Raises:
            KubectlError: it failed.

        """
        done = subprocess.run(
            [self.program, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, namespace: str, manifest: str) -> None:
        """Create or change what the YAML describes."""
        self.kubectl("apply", f"--namespace={namespace}", "--filename=-", stdin=manifest)

    def wait(self, what: Callable[[], bool], seconds: float, why: str) -> None:
        """Until it is so.

        Raises:
            TimeoutError: it never was; the text names `why`.

        """
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not after {seconds:.0f} s: {why}")
            time.sleep(0.2)

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """A new namespace under restricted Pod Security, deleted in the end."""
        name = f"selftaught-test-{uuid.uuid4().hex[:8]}"
        self.kubectl("create", "namespace", name)
        try:
            self.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
            # Pods are refused until their account is there.
            self.kubectl("wait", "--for=create", f"--namespace={name}", "serviceaccount/default", "--timeout=60s")
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")


def connect() -> Cluster:
    """The cluster that `KUBECONFIG` names if it is set, else this checkout's, started if it is down."""
    named = os.environ.get("KUBECONFIG")
    if named and Path(named).resolve() != OWN / "kubeconfig":
        program = shutil.which("kubectl")
        if program is None:
            raise FileNotFoundError("KUBECONFIG is set, but no kubectl is on the PATH")
        return Cluster(Path(named), Path(program))
    subprocess.run(["make", "--silent", "cluster"], cwd=ROOT, check=True, timeout=START_SECONDS)
    return Cluster(OWN / "kubeconfig", OWN / "bin" / "kubectl")
