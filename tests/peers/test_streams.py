"""Live streams, seen on the wire: a GET that was broken off, and one that is silent for two minutes."""

import pytest
import wire
from conftest import SILENT_SECONDS
from harness import KINDS, log


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
