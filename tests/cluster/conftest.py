from collections.abc import Iterator

import pytest

from real_cluster import Cluster, connect


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return connect()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace() as name:
        yield name
