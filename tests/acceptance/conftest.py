"""Clusters shared by the acceptance tests, one for each set of flags."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, port_is_free
from tests.acceptance.examples import Model
from titan_sdk import TitanClient

PAGE_PORT = 9090
EXAMPLES_SLOTS = 2


@pytest.fixture(scope="session")
def page_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The documentation page's cluster: port 9090, a GPU."""
    if not port_is_free(PAGE_PORT):
        pytest.fail(f"port {PAGE_PORT} is taken: the page's first block names it, so stop what listens there")
    home = tmp_path_factory.mktemp("page-home", numbered=True)
    with Cluster(home, "--capability", "GPU", "--slots", "4") as one:
        yield one


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A plain cluster on any port."""
    with Cluster(tmp_path_factory.mktemp("home"), "--port", "0", "--slots", "4") as one:
        yield one


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The examples' cluster: plain, as their READMEs have it."""
    home = tmp_path_factory.mktemp("examples-home")
    with Cluster(home, "--port", "0", "--slots", str(EXAMPLES_SLOTS)) as one:
        yield one


@pytest.fixture
def model() -> Iterator[Model]:
    with Model() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster for one test, which may do to it what it likes."""
    home = tmp_path / "home"
    with Cluster(home, "--port", "0", "--slots", "2") as one:
        yield one


@pytest.fixture
def client(cluster: Cluster) -> Iterator[TitanClient]:
    with cluster.client() as client:
        yield client
