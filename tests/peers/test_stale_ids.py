"""Session ids that the edge did not give out, or no longer honours: 404 in JSON-RPC's words, and nothing sent upstream."""

import base64
import shutil
import signal

import pytest
import wire
from harness import KINDS, Client, log

SERVERS = ["python2", "ts1"]


@pytest.mark.parametrize("kind", SERVERS)
def test_forged_ids(kind, fleet, edge):
    replicas = fleet(kind)
    running = edge([replica.url for replica in replicas])
    url = running.http + KINDS[kind].path
    good = wire.open_session(url)
    status, _, body = wire.request("POST", url, wire.tool("echo", text="x"), session=good)
    assert status == 200, body
    before = [len(replica.requests()) for replica in replicas]
    count = 0
    for forged in forgeries(good, replicas):
        for method, message in (("POST", wire.tool("echo", text="x")), ("GET", None), ("DELETE", None)):
            status, headers, body = wire.request(method, url, message, session=forged)
            count += 1
            assert status == 404, f"{method} with {forged!r}: {status} {body[:200]}"
            assert headers["content-type"].startswith("application/json"), headers
            answer = wire.message_of(body)
            assert answer["jsonrpc"] == "2.0" and answer["error"]["message"], answer
            assert answer["id"] == (message["id"] if message else None)
    assert [len(r.requests(n)) for r, n in zip(replicas, before)] == [0, 0], "a forged id reached a replica"
    status, _, body = wire.request("POST", url, wire.tool("echo", text="x"), session=good)
    assert status == 200, "the good id no longer works"
    log(f"{count} requests with forged ids in front of {kind}: 404 each")


def forgeries(good, replicas):
    yield "x"
    yield "6d1096e9-0000-4000-8000-000000000000"
    yield "0" * 32
    for place in (0, 1, len(good) // 3, len(good) // 2, len(good) - 2, len(good) - 1):
        other = "A" if good[place] != "A" else "B"
        yield good[:place] + other + good[place + 1 :]
    yield good[:-1]
    yield good + "A"
    yield good + good
    yield good.swapcase()
    yield "A" * 4000
    for replica in replicas:
        yield base64.urlsafe_b64encode(f'["{replica.url}","x"]'.encode()).decode()


@pytest.mark.parametrize("kind", SERVERS)
def test_an_id_of_a_replica_that_left(kind, fleet, edge):
    replicas = fleet(kind)
    running = edge([replica.url for replica in replicas])
    url = running.http + KINDS[kind].path
    sessions = [wire.open_session(url) for _ in range(4)]
    running.upstreams[0]["servers"] = [replicas[0].url]
    running.crash_and_restart()
    before = [len(replica.requests()) for replica in replicas]
    told = [wire.request("POST", url, wire.tool("echo", text="x"), session=session)[0] for session in sessions]
    assert sorted(told) == [200, 200, 404, 404], told
    assert [len(r.requests(n)) for r, n in zip(replicas, before)] == [2, 0]
    log(f"4 sessions of {kind}, one replica left: {told}")


@pytest.mark.parametrize("client,kind", [("py1", "python1"), ("py2", "python2"), ("ts1", "ts1"), ("ts2", "ts1")])
def test_what_real_clients_see(client, kind, fleet, edge):
    """The key is lost: each client is told so with its next call; none hangs, none crosses to another session."""
    running = edge([replica.url for replica in fleet(kind)])

    def lose_the_key():
        running.end(signal.SIGKILL)
        shutil.rmtree(running.state)
        running.start()

    url = running.https + KINDS[kind].path
    options = {"ca": running.certificate.ca, "sessions": 3, "between": lose_the_key}
    reports = Client(client, url, kind, **options).run()
    assert not any(r["ok"] for r in reports), reports
    assert all(r["step"] == "count" for r in reports), reports
    words = {r["error"] for r in reports}
    assert all("404" in error or "session" in error.lower() for error in words), words
    log(f"{client} says: {sorted(words)[0][:160]}")
