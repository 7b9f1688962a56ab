"""What is asked of the API server, and where: rights in a namespace do not reach further."""

import asyncio

import pytest

from selftaught_operator.cluster import Cluster
from simulated_api_server import SimulatedApiServer

RUNS = "/apis/selftaught.dev/v1alpha1"


@pytest.mark.parametrize(
    ("namespaces", "paths"),
    [
        pytest.param((), [f"{RUNS}/selftaughtruns"], id="everywhere"),
        pytest.param(
            ("lab", "shop"),
            [f"{RUNS}/namespaces/lab/selftaughtruns", f"{RUNS}/namespaces/shop/selftaughtruns"],
            id="only in the namespaces that are watched",
        ),
    ],
)
def test_runs_are_listed_first_where_they_are_watched(namespaces: tuple[str, ...], paths: list[str]) -> None:
    server = SimulatedApiServer()
    asyncio.run(Cluster(server).check_installed(namespaces))
    assert server.reads == paths
