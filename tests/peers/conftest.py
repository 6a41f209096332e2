"""In: MCP_EDGE, the binary's path. Out: fixtures: replicas by kind (started once each), edges, the CA, OAuth providers,
the slow stream."""

import os
import pathlib
import time

import pytest
import wire
from harness import Certificate, Edge, Replica
from protected import Protected
from providers import Canaille, Idp

SILENT_SECONDS = 120


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

    def start(servers, folder=None, start=True, **options):
        folder = pathlib.Path(folder or tmp_path / f"edge-{len(started)}")
        folder.mkdir(exist_ok=True)
        started.append(Edge(binary, folder, certificate, servers, **options))
        return started[-1].start() if start else started[-1]

    yield start
    for running in started:
        running.end()


@pytest.fixture(scope="session", autouse=True)
def two_silent_minutes(request):
    """Starts the silent stream with the first test of the run, when the test that looks at it is part of the run."""
    if not any("silent_stream" in item.nodeid for item in request.session.items):
        yield None
        return
    binary, certificate, tmp_path_factory = map(request.getfixturevalue, ("binary", "certificate", "tmp_path_factory"))
    folder = tmp_path_factory.mktemp("silent")
    replicas = [Replica("ts1-sse", folder / f"{n}.jsonl", binary) for n in range(2)]
    with Edge(binary, folder, certificate, [replica.url for replica in replicas]) as running:
        stream = wire.Stream(running.https + "/sse", certificate.ca, seconds=SILENT_SECONDS + 60)
        _, line = stream.wait(lambda line: line.startswith("data:"), 10)
        url = running.https + line.split(":", 1)[1].strip()
        for message in (
            wire.call("initialize", wire.INITIALIZE),
            wire.call("notifications/initialized", notification=True),
            wire.tool("silent", seconds=SILENT_SECONDS),
        ):
            status, _, _ = wire.request("POST", url, message, certificate.ca)
            assert status == 202
        yield stream, time.monotonic()
        stream.abort()
    for replica in replicas:
        replica.process.end()


@pytest.fixture(scope="session")
def idp(certificate, tmp_path_factory):
    """npm oidc-provider, for the tests that leave it running with its keys."""
    running = Idp(certificate, tmp_path_factory.mktemp("idp")).start()
    yield running
    running.end()


@pytest.fixture
def own_idp(certificate, tmp_path):
    """One that a test may stop and start again."""
    running = Idp(certificate, tmp_path).start()
    yield running
    running.end()


@pytest.fixture(scope="session")
def canaille(certificate):
    """The other provider: opaque tokens for lists of clients."""
    running = Canaille(certificate).start()
    yield running
    running.end()


@pytest.fixture
def protected(edge):
    """An edge for routes with OAuth, not yet started."""
    return Protected(edge)
