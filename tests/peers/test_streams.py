"""Live streams, seen on the wire: a GET that was broken off, and one that is silent for two minutes."""

import time

import pytest
import wire
from harness import KINDS, Edge, Replica, log

SILENT_SECONDS = 120


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", ["python2", "python1", "ts1"])
def test_a_new_get_after_an_aborted_one(kind, tls, fleet, edge):
    """These servers answer 409 while they believe that the first stream is open."""
    running = edge([replica.url for replica in fleet(kind)])
    base, ca = (running.https, running.certificate.ca) if tls else (running.http, None)
    url = base + KINDS[kind].path
    session = wire.open_session(url, ca)
    told = []
    for attempt in range(20):
        stream = wire.Stream(url, ca, session)
        told.append(stream.status)
        stream.abort()
    assert told == [200] * 20, f"statuses of 20 GETs: {told}"
    stream = wire.Stream(url, ca, session)
    status, _, body = wire.request("POST", url, wire.tool("touch"), ca, session)
    assert status == 200, body
    stream.wait(lambda line: "list_changed" in line, 10)
    stream.abort()
    status, _, _ = wire.request("DELETE", url, None, ca, session)
    assert status in (200, 202, 204)
    log(f"20 aborted GETs with {kind}, then a message on the 21st")


@pytest.fixture(scope="session", autouse=True)
def two_silent_minutes(binary, certificate, tmp_path_factory):
    """Starts the silent stream with the first test of the run; the last test looks at it."""
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


def test_a_silent_stream_lives_and_gets_comments(two_silent_minutes):
    """The SSE server of TypeScript SDK 1.x sends no keepalive of its own: every comment is the edge's."""
    stream, started = two_silent_minutes
    came, _ = stream.wait(lambda line: "spoke" in line, SILENT_SECONDS + 30)
    assert came - started >= SILENT_SECONDS - 1
    comments = [moment for moment in stream.comments() if started <= moment <= came]
    assert len(comments) >= 6, f"only {len(comments)} comments in {came - started:.0f} s of silence"
    gaps = [after - before for before, after in zip([started, *comments], [*comments, came])]
    assert max(gaps) < 25, f"a gap of {max(gaps):.0f} s between two signs of life (asked: 15)"
    assert stream.ended is None, "the stream ended with the answer"
    log(f"{came - started:.0f} s of silence, {len(comments)} comments")
