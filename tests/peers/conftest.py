"""In: MCP_EDGE, the binary's path. Out: fixtures: replicas by kind (started once each), edges, the CA, the slow stream."""

import os
import pathlib

import pytest
from harness import Certificate, Edge, Replica


def pytest_collection_modifyitems(items):
    """The stream of 120 s starts with the first test and is looked at last, so that it costs no extra time."""
    items.sort(key=lambda item: "silent_stream" in item.nodeid)


@pytest.fixture(scope="session")
def binary():
    path = os.environ.get("MCP_EDGE")
    assert path and os.access(path, os.X_OK), "MCP_EDGE must name the mcp-edge binary: use run.sh"
    return path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    return Certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def fleet(tmp_path_factory, binary):
    """fleet(kind, count) gives running replicas of that kind; they live until the end of the session."""
    running = {}
    folder = tmp_path_factory.mktemp("replicas")

    def get(kind, count=2):
        replicas = running.setdefault(kind, [])
        while len(replicas) < count:
            replicas.append(Replica(kind, folder / f"{kind}-{len(replicas)}.jsonl", binary))
        return replicas[:count]

    yield get
    for replica in (replica for replicas in running.values() for replica in replicas):
        replica.process.end()


@pytest.fixture
def edge(binary, certificate, tmp_path):
    """edge(servers, …) starts mcp-edge in front of them; all end with the test."""
    started = []

    def start(servers, folder=None, **options):
        folder = pathlib.Path(folder or tmp_path / f"edge-{len(started)}")
        folder.mkdir(exist_ok=True)
        started.append(Edge(binary, folder, certificate, servers, **options).start())
        return started[-1]

    yield start
    for running in started:
        running.end()
