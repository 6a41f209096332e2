"""Every server kind with every client that fits it, two replicas each, over TLS: the whole life of a session.

In the middle, while all sessions wait, mcp-edge is killed and started again.
"""

import collections

import pytest
from harness import KINDS, Client, explain, log

LEGACY = [("py1", "legacy"), ("py2", "legacy"), ("py2", "auto"), ("ts1", "legacy"), ("ts2", "legacy"), ("ts2", "auto")]
MODERN = [("py2", "auto"), ("py2", "2026-07-28"), ("ts2", "auto"), ("ts2", "2026-07-28")]
SESSIONFUL = ["python2", "python1", "ts1"]


def matrix():
    for kind in SESSIONFUL:
        for client, mode in LEGACY:
            if (kind, mode) != ("python2", "auto"):  # that pair speaks 2026-07-28: below
                yield kind, client, mode
    for client, mode in LEGACY[:2] + LEGACY[3:5]:
        yield "python2-json", client, mode
        yield "python2-stateless", client, mode
        yield "ts2", client, mode
        yield "everything", client, mode
        yield "rmcp", client, mode


@pytest.mark.parametrize("kind,client,mode", list(matrix()))
def test_a_session_stays_on_its_replica(kind, client, mode, fleet, edge):
    run(kind, client, mode, fleet, edge, sessions=4)


@pytest.mark.parametrize("h2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("client,kind", [("py1", "python1"), ("py2", "python2"), ("ts1", "ts1"), ("ts2", "ts1")])
def test_fifty_sessions_at_once(kind, client, h2, fleet, edge):
    created = run(kind, client, "legacy", fleet, edge, sessions=50, h2=h2)
    assert min(created) >= 15, f"one replica got less than 30 % of the sessions: {created}"


@pytest.mark.parametrize("kind,client", [("python2", "py2"), ("ts1", "ts1"), ("ts1", "ts2"), ("everything", "py1")])
def test_sessions_over_http2(kind, client, fleet, edge):
    run(kind, client, "legacy", fleet, edge, sessions=4, h2=True)


@pytest.mark.parametrize("kind", SESSIONFUL)
def test_mcp_remote(kind, fleet, edge, tmp_path, monkeypatch):
    monkeypatch.setenv("MCP_REMOTE_CONFIG_DIR", str(tmp_path / "mcp-auth"))
    run(kind, "mcp-remote", "legacy", fleet, edge, sessions=2, exact=False)


@pytest.mark.parametrize("h2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("client,mode", MODERN)
@pytest.mark.parametrize("kind", ["python2", "ts2"])
def test_the_era_without_sessions(kind, client, mode, h2, fleet, edge):
    """One client's calls follow each other, so they all fit on the replica that its address hashes to."""
    replicas = fleet(kind)
    running = edge([replica.url for replica in replicas])
    before = [len(replica.requests()) for replica in replicas]
    url = running.https + KINDS[kind].path
    reports = Client(client, url, kind, ca=running.certificate.ca, h2=h2, mode=mode).run()
    assert all(r["ok"] for r in reports), explain(reports, running, *[r.process for r in replicas])
    assert [r["protocol"] for r in reports] == ["2026-07-28"]
    assert [len(r["pids"]) for r in reports] == [1], f"one client, two replicas: {reports}"
    assert [r["listened"] for r in reports] == [2], f"messages on a listen stream: {reports}"
    log(f"{client} ({mode}) with {kind}: 1 client, replicas saw {seen(replicas, before)} requests")
    check_versions(running, h2)


@pytest.mark.parametrize("client,mode", MODERN)
def test_fifty_clients_without_sessions(client, mode, fleet, edge):
    """Fifty of one address at once: the bound on load may pass some on, but every call must be answered."""
    run("ts2" if client == "ts2" else "python2", client, mode, fleet, edge, sessions=50, modern=True)


def run(kind, client, mode, fleet, edge, sessions, h2=False, exact=True, modern=False):
    """Runs one client process; returns how many sessions each replica opened."""
    replicas = fleet(kind)
    running = edge([replica.url for replica in replicas])
    before = [len(replica.requests()) for replica in replicas]
    url = running.https + KINDS[kind].path
    options = {"ca": running.certificate.ca, "sessions": sessions, "h2": h2, "mode": mode}
    reports = Client(client, url, kind, between=running.crash_and_restart, **options).run()
    assert all(r["ok"] for r in reports), explain(reports, running, *[r.process for r in replicas])
    if KINDS[kind].sessions == "stateful" and not modern:
        assert all(len(r["pids"]) <= 1 for r in reports), f"a session saw two replicas: {reports}"
        check_replicas(kind, replicas, before, sessions, exact)
    if kind == "rmcp":  # it keeps no log, but says its name
        assert len({name for r in reports for name in r["pids"]}) == 2, f"all sessions on one replica: {reports}"
    check_versions(running, h2)
    created = [sum(1 for line in r.requests(n) if line["created"]) for r, n in zip(replicas, before)]
    log(f"{sessions} × {client} ({mode}, {'h2' if h2 else 'h1'}) with {kind}: sessions {created}, requests {seen(replicas, before)}")
    return created


def check_replicas(kind, replicas, before, sessions, exact):
    """What the replicas themselves saw: each session on one of them only, opened once and deleted once.

    mcp-remote first opens a session to try the address, and deletes none: not exact.
    """
    if kind == "rmcp":
        return
    where, opened, ended = collections.defaultdict(set), [], []
    for replica, count in zip(replicas, before):
        for line in replica.requests(count):
            session = line["session"] or line["created"]
            if session:
                where[session].add(replica.pid)
            if line["created"]:
                opened.append(line["created"])
            if line["method"] == "DELETE" and line["status"] < 300:
                ended.append(line["session"])
    assert len(opened) == sessions if exact else len(opened) >= sessions, f"{len(opened)} sessions opened"
    astray = {session: pids for session, pids in where.items() if len(pids) > 1 or session not in opened}
    assert not astray, f"sessions on a wrong replica: {astray}"
    if sessions > 1:
        pids = {pid for session in opened for pid in where[session]}
        assert len(pids) == 2, "all sessions went to one replica"
    if exact:
        assert sorted(ended) == sorted(opened), f"{len(ended)} of {len(opened)} sessions deleted"


def check_versions(running, h2):
    """The access log says which HTTP version really was spoken."""
    running.end()
    requests = [line for line in running.access if line["event"] == "request"]
    spoken = {line["http"] for line in requests}
    assert spoken == ({"2"} if h2 else {"1.1"}), f"HTTP versions in the access log: {spoken}"


def seen(replicas, before):
    return [len(replica.requests(count)) for replica, count in zip(replicas, before)]
