import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.operator_lab import RIGHTS, OperatorLab
from cluster.stub_kubelet import StubKubelet
from real_cluster import Cluster, connect

SYSTEM = "selftaught-system"


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return connect()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def kubelet(cluster: Cluster) -> Iterator[StubKubelet]:
    with StubKubelet(cluster.kubeconfig) as kubelet:
        yield kubelet
    assert kubelet.wrongs == []


@contextmanager
def installed(cluster: Cluster, kubelet: StubKubelet, folder: Path) -> Iterator[OperatorLab]:
    with cluster.namespace() as name:
        lab = OperatorLab(cluster, name, folder, kubelet)
        lab.install()
        yield lab
        # While the namespace's roles are still there.
        requests = lab.requests()
        assert {request.right for request in requests} <= RIGHTS
        # An API server that has just started refuses what it allows a second later.
        allowed = {request.right for request in requests if request.allowed}
        assert {request.right for request in requests} <= allowed


@pytest.fixture
def lab(cluster: Cluster, kubelet: StubKubelet, tmp_path: Path, no_other_operator: None) -> Iterator[OperatorLab]:
    """A namespace in which no operator works yet."""
    with installed(cluster, kubelet, tmp_path) as lab:
        yield lab


@pytest.fixture(scope="module")
def attended(
    cluster: Cluster, kubelet: StubKubelet, tmp_path_factory: pytest.TempPathFactory, no_other_operator: None
) -> Iterator[OperatorLab]:
    """A namespace in which an operator works; tests have runs of different names in it."""
    with installed(cluster, kubelet, tmp_path_factory.mktemp("attended")) as lab, lab.operator() as operator:
        yield lab
        assert operator.stop() == 0, operator.said


@pytest.fixture(scope="session")
def no_other_operator(cluster: Cluster) -> Iterator[None]:
    """An installed operator watches all namespaces, so it pauses while tests start their own."""
    get = ("get", f"--namespace={SYSTEM}", "deployment", "--output=json", "--ignore-not-found")
    answer = cluster.kubectl(*get, "selftaught-operator")
    replicas = json.loads(answer)["spec"]["replicas"] if answer else 0
    if not replicas:
        yield
        return
    if not cluster.ours:
        pytest.fail(f"an operator is installed in {SYSTEM} and would do the tests' work; scale it to 0")
    runs = json.loads(cluster.kubectl("get", "selftaughtruns", "--all-namespaces", "--output=json"))["items"]
    for run in runs:
        if not run["metadata"]["namespace"].startswith("selftaught-test-"):
            assert run.get("status", {}).get("completionTime"), (
                f"{run['metadata']['name']} still runs; let it end first"
            )
    scale = ("scale", f"--namespace={SYSTEM}", "deployment/selftaught-operator")
    cluster.kubectl(*scale, "--replicas=0")
    selector = "app.kubernetes.io/name=selftaught-operator"
    cluster.kubectl("wait", f"--namespace={SYSTEM}", "pod", f"--selector={selector}", "--for=delete", "--timeout=60s")
    yield
    cluster.kubectl(*scale, f"--replicas={replicas}")
