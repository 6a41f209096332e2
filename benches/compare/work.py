"""What is measured. In: a running proxy; out: figures of one round. Each work is a function that takes the
bench (tools and options) and a `Running`; `WORKS` says in which order and under which letter."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import machine

HERE = Path(__file__).parent
BODY = HERE / "call.json"
MODES = {"h1": False, "TLS h1": True, "TLS h2": True}
RATE = 2000


class Client:
    """A client of ours that waits for lines and answers each with JSON."""

    def __init__(self, bench, command, url, *args):
        argv = [bench.tool, command, "--to", url, "--ca", bench.cert["CERT"], *args]
        self.process = machine.spawn(machine.LOAD_CORE, argv, text=True)

    def say(self, line):
        """Sends a line and gives the answer."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self):
        """The next answer."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client ended with {self.process.wait(10)}")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        machine.stop(self.process)


def run_client(bench, running, command, url, *args):
    """Readies a client, lets it work and gives its answer and the proxy's CPU nanoseconds meanwhile."""
    with Client(bench, command, url, "--session", running.session(), *args) as client:
        client.hear()
        before = machine.cpu_ns(running.pid)
        answer = client.say("go")
        return answer, machine.cpu_ns(running.pid) - before


def posts(bench, running, mode, path):
    """(a) tools/call on kept connections."""
    url = running.url(MODES[mode], path)
    run = h2load if mode == "TLS h2" else wrk
    before = machine.cpu_ns(running.pid)
    requests, per_second = run(bench, running, url)
    used = machine.cpu_ns(running.pid) - before
    return {"cpu_us": used / requests / 1e3, "per_second": per_second}


def wrk(bench, running, url):
    """32 HTTP/1.1 connections."""
    argv = ["wrk", "-t1", "-c32", f"-d{bench.seconds}s", "-s", HERE / "call.lua", url]
    env = {**os.environ, "MCP_BODY": str(BODY), "MCP_SESSIONS": str(running.sessions)}
    out = tool_output(argv, env=env)
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(out)
    return int(re.search(r"(\d+) requests in", out)[1]), float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])


def h2load(bench, running, url):
    """8 HTTP/2 connections with 4 streams each."""
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-06-18",
        "mcp-session-id": running.session(),
    }
    argv = ["h2load", "-t1", "-c8", "-m4", f"-D{bench.seconds}", "-d", BODY]
    out = tool_output([*argv, *(f"-H{k}: {v}" for k, v in headers.items()), url])
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", out)
    if int(done[2]) or "2xx" not in out:
        raise RuntimeError(out)
    return int(done[1]), float(re.search(r"([\d.]+) req/s", out)[1])


def tool_output(argv, **more):
    """Runs a load tool on its core."""
    argv = ["taskset", "-c", machine.LOAD_CORE, *map(str, argv)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, **more)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


def reconnects(bench, running, resume):
    """(b) a new TLS connection for each call."""
    url = running.url(True, "/mcp")
    answer, used = run_client(bench, running, "reconnect", url, "--n", bench.calls, "--resume", resume)
    share = answer["resumed"] / answer["calls"]
    if (share > 0.9) != (resume == "yes"):
        print(f"    {running.peer.label}: {share:.0%} of the connections were resumed")
    per_second = answer["calls"] / answer["seconds"]
    return {"cpu_us": used / answer["calls"] / 1e3, "per_second": per_second, "resumed": share}


def first_event(bench, running, mode):
    """(c) from the request to the first event, on a new connection."""
    url = running.url(MODES[mode], "/sse?rate=0")
    answer, used = run_client(bench, running, "first", url, "--n", bench.firsts)
    return {"p50_us": answer["p50_us"], "p99_us": answer["p99_us"], "cpu_us": used / bench.firsts / 1e3}


def event_delay(bench, running, mode):
    """(c) 8 streams with 100 events a second each: how old an event is at its arrival."""
    url = running.url(MODES[mode], "/sse?rate=100")
    args = ["--streams", 8, "--seconds", bench.seconds]
    answer, used = run_client(bench, running, "events", url, *args)
    return {"p50_us": answer["p50_us"], "p99_us": answer["p99_us"], "cpu_us": used / answer["count"] / 1e3}


def idle_streams(bench, running, mode):
    """(d) memory per silent stream: the first time, after ten waves, and after large bodies."""
    args = ["--n", bench.streams, "--session", running.session()]
    if mode == "TLS h2":
        args += ["--h2", 100, "--alpn", "h2"]
    with Client(bench, "idle", running.url(MODES[mode], "/sse?rate=0"), *args) as client:
        empty, sockets = machine.settled_pss(running.pid), machine.descriptors(running.pid)

        def close():
            client.say("close")
            # a few connections to the backend may wait to be used again
            return machine.await_closed(running.pid, sockets + 100)

        def per_stream():
            answer = client.say("open")
            grown = machine.settled_pss(running.pid) - empty
            if client.say("count")["open"] != bench.streams:
                raise RuntimeError(f"streams were lost: {answer}")
            return grown / bench.streams

        figures = {"kib": per_stream()}
        before = machine.cpu_ns(running.pid)
        time.sleep(bench.watch)
        used = machine.cpu_ns(running.pid) - before
        figures["idle_cpu_us_per_stream_minute"] = used / 1e3 / bench.streams * 60 / bench.watch
        figures["sockets_left"] = close()
        for _ in range(bench.waves - 1):
            client.say("open")
            close()
        figures["kib_after_waves"] = per_stream()
        close()
        big = [bench.tool, "bodies", "--to", running.url(False, "/big"), "--ca", bench.cert["CERT"]]
        tool_output([*big, "--n", 100, "--session", running.session()])
        figures["kib_after_bodies"] = per_stream()
    return figures


def slow_readers(bench, running, mode):
    """(e) memory per reader that takes 5 KiB a second of a stream that gives all it can."""
    n = 50
    empty = machine.settled_pss(running.pid)
    url = running.url(MODES[mode], "/flood")
    with Client(bench, "slow", url, "--n", n, "--session", running.session()) as client:
        client.hear()
        time.sleep(2)
        return {"kib": (machine.settled_pss(running.pid) - empty) / n}


def echoes(bench, running, mode):
    """(f) 32 WebSockets with one message of 128 B each under way, echoed by the backend and compared."""
    args = ["--seconds", bench.seconds]
    answer, used = run_client(bench, running, "echo", running.url(MODES[mode], "/ws"), *args)
    per_second = answer["messages"] / answer["seconds"]
    return {"cpu_us": used / answer["messages"] / 1e3, "per_second": per_second}


def paced(bench, running, mode):
    """(h) 2,000 requests a second whether answers come or not, over 32 connections: latency from the moment
    at which each was due."""
    url = running.url(MODES[mode], "/mcp")
    args = ["--rate", RATE, "--seconds", bench.seconds, "--sessions", running.sessions]
    answer, used = run_client(bench, running, "paced", url, *args)
    if answer["left"]:
        raise RuntimeError(f"cannot keep up with {RATE} requests a second: {answer}")
    times = {"latency_p50_us": answer["p50_us"], "latency_p99_us": answer["p99_us"]}
    return {**times, "cpu_us": used / answer["count"] / 1e3}


# (letter, title, function, arguments, fresh processes?, in the quick run?)
WORKS = [
    *(
        ("a", f"{mode} POST, {size}", posts, (mode, path), False, True)
        for size, path in (("300 B", "/mcp"), ("16 KiB", "/mcp/16k"))
        for mode in MODES
    ),
    ("b", "new TLS connection per call, resumed", reconnects, ("yes",), False, True),
    ("b", "new TLS connection per call, full handshake", reconnects, ("no",), False, True),
    ("c", "first SSE event, h1", first_event, ("h1",), False, True),
    ("c", "first SSE event, TLS h1", first_event, ("TLS h1",), False, False),
    ("c", "SSE events, h1", event_delay, ("h1",), False, True),
    ("c", "SSE events, TLS h1", event_delay, ("TLS h1",), False, False),
    ("d", "idle SSE streams, h1", idle_streams, ("h1",), True, True),
    ("d", "idle SSE streams, TLS h1", idle_streams, ("TLS h1",), True, True),
    ("d", "idle SSE streams, TLS h2 × 100", idle_streams, ("TLS h2",), True, True),
    ("e", "slow readers, h1", slow_readers, ("h1",), True, False),
    ("e", "slow readers, TLS h1", slow_readers, ("TLS h1",), True, False),
    ("f", "WebSocket echo, h1", echoes, ("h1",), False, True),
    ("f", "WebSocket echo, TLS h1", echoes, ("TLS h1",), False, False),
    ("h", "2,000 requests/s, h1", paced, ("h1",), False, True),
    ("h", "2,000 requests/s, TLS h1", paced, ("TLS h1",), False, True),
]
