"""The transport of 2024-11-05 (GET /sse and POST to the address of its first event), two replicas each."""

import re

import pytest
import wire
from harness import KINDS, Client, explain, log

SERVERS = ["python1-sse", "python2-sse", "ts1-sse", "everything-sse"]
PREFIX = "/team/tools"
CLIENTS = [("py1", ""), ("py2", ""), ("ts1", ""), ("ts2", ""), ("py2", PREFIX), ("ts1", PREFIX)]


@pytest.mark.parametrize("client,prefix", CLIENTS, ids=[client + ("-prefix" if prefix else "") for client, prefix in CLIENTS])
@pytest.mark.parametrize("kind", SERVERS)
def test_twenty_sessions(kind, client, prefix, fleet, edge):
    replicas = fleet(kind)
    options = {"path": prefix, "rewrite": "/"} if prefix else {}
    running = edge([replica.url for replica in replicas], **options)
    before = [len(replica.requests()) for replica in replicas]
    url = running.https + prefix + KINDS[kind].path
    reports = Client(client, url, kind, ca=running.certificate.ca, sessions=20).run()
    assert all(r["ok"] for r in reports), explain(reports, running, *[r.process for r in replicas])
    assert all(len(r["pids"]) <= 1 for r in reports), f"a session saw two replicas: {reports}"
    check_replicas(replicas, before)
    log(f"20 × {client} with {kind} below {prefix or '/'}")


@pytest.mark.parametrize("h2", [False, True], ids=["h1", "h2"])
def test_the_edge_adds_nothing_the_server_sees(h2, fleet, edge):
    """The routing token is the edge's own: the server gets the query that it gave out."""
    replicas = fleet("python2-sse")
    running = edge([replica.url for replica in replicas], path="/legacy", rewrite="/")
    before = [len(replica.requests()) for replica in replicas]
    url = running.https + "/legacy/sse"
    reports = Client("py2", url, "python2-sse", ca=running.certificate.ca, sessions=2, h2=h2).run()
    assert all(r["ok"] for r in reports), explain(reports, running)
    posts = [line for r, n in zip(replicas, before) for line in r.requests(n) if line["method"] == "POST"]
    assert posts and all(re.fullmatch(r"session_id=[0-9a-f]{32}", line["query"]) for line in posts), posts[:3]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", SERVERS)
def test_first_event_arrives_at_once(kind, tls, fleet, edge):
    """The server says nothing more until it is spoken to, so the first event must have been passed on by itself."""
    running = edge([replica.url for replica in fleet(kind)], path="/legacy", rewrite="/")
    url = (running.https if tls else running.http) + "/legacy/sse"
    stream = wire.Stream(url, ca=running.certificate.ca if tls else None, seconds=20)
    assert stream.status == 200
    _, line = stream.wait(lambda line: line.startswith("data:"), 10)
    assert line.split(":", 1)[1].strip().startswith("/legacy/"), f"not the public path: {line}"
    events = [line for _, line in stream.lines if line.startswith("event:")]
    assert events == ["event: endpoint"], events
    assert not any("content-length" == name.lower() for name, _ in stream.answer.getheaders())
    stream.abort()
    log(f"first event of {kind}: {line}")


@pytest.mark.parametrize("kind", ["python2-sse", "ts1-sse"])
def test_forged_tokens_go_nowhere(kind, fleet, edge):
    """The address of the first event, changed in one place after the other: never an answer from a replica."""
    replicas = fleet(kind)
    running = edge([replica.url for replica in replicas])
    stream = wire.Stream(running.http + "/sse", seconds=20)
    _, line = stream.wait(lambda line: line.startswith("data:"), 10)
    endpoint = line.split(":", 1)[1].strip()
    path, query = endpoint.split("?", 1)
    pairs = query.split("&")
    assert len(pairs) >= 1 and any("=" in pair for pair in pairs)
    before = [len(replica.requests()) for replica in replicas]
    message = wire.call("initialize", wire.INITIALIZE)
    good, _, _ = wire.request("POST", running.http + endpoint, message)
    assert good == 202, f"the right address: {good}"
    served = sum(len(r.requests(n)) for r, n in zip(replicas, before))
    assert served == 1
    token = [pair for pair in pairs if not re.match(r"session_?id=", pair, re.I)]
    for forged in forgeries(pairs, token):
        status, headers, body = wire.request("POST", running.http + f"{path}?{forged}", message)
        assert status == 404, f"{forged}: {status} {body[:200]}"
        assert wire.message_of(body)["id"] == message["id"]
    assert sum(len(r.requests(n)) for r, n in zip(replicas, before)) == served, "a forged token reached a replica"
    stream.abort()


def forgeries(pairs, token):
    """Another character in the routing token, wherever it sits; a cut one; an added letter."""
    for pair in token or pairs:
        name, value = pair.split("=", 1)
        rest = [other for other in pairs if other != pair]
        for place in (0, len(value) // 2, len(value) - 1):
            other = "A" if value[place] != "A" else "B"
            yield "&".join([*rest, f"{name}={value[:place]}{other}{value[place + 1:]}"])
        yield "&".join([*rest, f"{name}={value[:-4]}"])
        yield "&".join([*rest, f"{name}={value}A"])


def check_replicas(replicas, before):
    """Each session's posts went to the replica that holds its stream, and both replicas had some."""
    where, streams = {}, []
    for replica, count in zip(replicas, before):
        lines = replica.requests(count)
        streams.append(sum(1 for line in lines if line["method"] == "GET"))
        for line in lines:
            if line["method"] == "POST":
                assert line["status"] == 202, line
                where.setdefault(line["query"], set()).add(replica.pid)
    astray = {query: pids for query, pids in where.items() if len(pids) > 1}
    assert not astray, f"posts of one session on two replicas: {astray}"
    assert sum(streams) == 20 and min(streams) >= 6, f"streams per replica: {streams}"
