"""Checks by `health: mcp`. An hour's worth of checks by `health: mcp`, as fast as they go: every kind of server stays up and none keeps a session."""

import os
import signal
import time
import urllib.request

import pytest
import wire
from harness import KINDS, Replica, log

HOUR = 360  # checks, with the default of one every 10 s
SECONDS = 240
# What the checks of a kind of server are made of, and whether it has sessions.
SERVERS = {
    "python1": "sessions",
    "python1-stateless": "ping",
    "python2": "discover",
    "python2-json": "discover",
    "python2-stateless": "discover",
    "ts1": "sessions",
    "ts1-pages": "sessions",
    "ts1-keeps": "DELETE",
    "ts2": "discover",
    "everything": "sessions",
    "rmcp": "discover",
}


@pytest.fixture
def replica(tmp_path, binary):
    """One of its own: nobody else may open sessions at it."""
    started = []

    def start(kind):
        started.append(Replica(kind, tmp_path / f"{kind}-{len(started)}.jsonl", binary))
        return started[-1]

    yield start
    for running in started:
        running.process.end()


def checked(edge, replicas, **check):
    health = {**check, "every": "5ms", "timeout": "10s"}
    return edge([replica.url for replica in replicas], top={"admin": {"address": "127.0.0.1:0"}}, health=health)


def metrics(running):
    said = [line.split()[-1] for line in running.process.lines["stderr"] if line.startswith("mcp-edge: admin on ")]
    with urllib.request.urlopen(said[0].rstrip("/") + "/metrics", timeout=10) as answer:
        return answer.read().decode()


def counts(running, name):
    """The samples of a metric: labels to value."""
    lines = [line for line in metrics(running).splitlines() if line.startswith(name + "{")]
    return {line[len(name) : line.rindex(" ")]: float(line.rsplit(" ", 1)[1]) for line in lines}


def probes(running, result):
    return sum(n for labels, n in counts(running, "mcp_edge_probes_total").items() if f'result="{result}"' in labels)


def wait(what, holds, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("kind", SERVERS)
def test_an_hour_of_checks_leaves_no_session(kind, replica, edge):
    server = replica(kind)
    running = checked(edge, [server], mcp={"path": KINDS[kind].path, "tools": ["echo"]})
    wait(f"{HOUR} good checks of {kind}", lambda: probes(running, "good") >= HOUR)
    assert probes(running, "bad") == 0, running.tail()
    assert set(counts(running, "mcp_edge_replica_up").values()) == {1.0}
    # what is under way is brought to its end before the edge goes
    running.end()
    requests = server.requests()
    opened = [line["created"] for line in requests if line.get("created")]
    ended = [line["session"] for line in requests if line["method"] == "DELETE" and line["status"] < 300]
    assert sorted(opened) == sorted(ended)
    if SERVERS[kind] == "sessions":
        assert len(opened) >= HOUR
    else:
        assert not opened
    if (left := server.sessions()) is not None:
        assert left == 0
    log(f"{kind}: {len(requests)} requests, {len(opened)} sessions opened, {len(ended)} ended, {left} left")


@pytest.mark.parametrize("kind", ["python1", "ts1"])
def test_a_server_that_hangs_is_left_alone_and_keeps_no_session(kind, replica, edge):
    hung, other = replica(kind), replica(kind)
    check = {"mcp": {"path": KINDS[kind].path}, "every": "20ms", "timeout": "1s"}
    running = edge([hung.url, other.url], top={"admin": {"address": "127.0.0.1:0"}}, health=check)
    wait("good checks", lambda: probes(running, "good") >= 20)
    os.kill(hung.pid, signal.SIGSTOP)
    try:
        wait("it is down", lambda: not is_up(running, hung))
        url = running.http + KINDS[kind].path
        began = time.monotonic()
        sessions = [wire.open_session(url) for _ in range(6)]
        assert time.monotonic() - began < 10
    finally:
        os.kill(hung.pid, signal.SIGCONT)
    wait("it is up again", lambda: is_up(running, hung))
    for session in sessions:
        assert wire.request("DELETE", url, session=session)[0] == 200
    running.end()
    assert (hung.sessions(), other.sessions()) == (0, 0)
    opened = [line for line in hung.requests() if line.get("created")]
    log(f"{kind} hung, and went on: {len(opened)} sessions opened, none left")


def is_up(running, replica):
    samples = counts(running, "mcp_edge_replica_up").items()
    return [n for labels, n in samples if replica.url.split("//")[1] in labels] == [1.0]
