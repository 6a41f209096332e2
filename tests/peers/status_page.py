"""In: an edge before two demo servers and one that is dead. Out: traffic of every kind, refusals with hostile names, and a
real Chromium that looks at the status page meanwhile.
"""

import base64
import hashlib
import itertools
import json
import queue
import random
import socket
import subprocess
import threading
import time

import wire
from harness import HERE, NODE, Process

NASTY = "<img src=x onerror=\"globalThis.injected=1\"></td><script>injected=2</script>\u202egnp.exe\u2028{{7*7}}"
ADMIN = "mcp-edge: admin on "
PASSWORD = "let me see"


def refusing():
    """An address that refuses connections for as long as the socket lives: bound, never listening."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held


def watched_edge(edge, fleet, admin=None, folder=None):
    """An edge with an admin listener; its routes are open, guarded by tool, locked, and dead."""
    replicas, dead = fleet("rmcp", 2), refusing()
    htpasswd = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    running = edge([replica.url for replica in replicas], folder=folder, start=False)
    (running.folder / "users").write_text(f"ann:{{SHA}}{htpasswd}\n")
    running.upstreams.append({"name": "reports", "servers": [f"http://127.0.0.1:{dead.getsockname()[1]}"], "connect_timeout": "1s"})
    running.routes = [
        {"path": "/", "upstream": "replicas", "auth": ["anonymous"]},
        {"path": "/guarded", "rewrite": "/", "upstream": "replicas", "auth": ["anonymous"], "tools": [{"allow": ["count"]}]},
        {"path": "/locked", "upstream": "replicas", "auth": [{"basic": {"file": "users"}}]},
        {"path": "/reports", "upstream": "reports", "auth": ["anonymous"]},
    ]
    running.top = {"admin": admin or {"address": "127.0.0.1:0"}}
    running.start()
    running.held = dead
    said = next(line for line in running.process.lines["stderr"] if line.startswith(ADMIN))
    running.admin = said.removeprefix(ADMIN)
    return running


class Load:
    """Sessions, calls, streams and refusals, at a pace that goes up and down, from a few threads."""

    def __init__(self, url, streams=4, pace=0.02):
        self.url, self.pace = url, pace
        self.stop = threading.Event()
        self.streams = [wire.Stream(url + "/mcp", session=wire.open_session(url + "/mcp"), seconds=900) for _ in range(streams)]
        work = [self._calls, self._calls, self._refusals]
        self.threads = [threading.Thread(target=self._until_stopped, args=(each,), daemon=True) for each in work]
        for thread in self.threads:
            thread.start()

    def _until_stopped(self, work):
        while not self.stop.is_set():
            try:
                work()
            except OSError:
                self.stop.wait(0.1)  # the edge is gone: the page's test does that

    def _calls(self):
        session = wire.open_session(self.url + "/mcp")
        for n in itertools.count():
            if self.stop.wait(self.pace * random.choice((0.3, 1, 1, 3))) or n == 30:
                return
            wire.request("POST", self.url + "/mcp", wire.tool("count"), session=session)

    def _refusals(self):
        url, call = self.url, wire.tool(NASTY)
        for path, body, headers in (
            ("/guarded/mcp", call, {}),
            ("/locked/mcp", call, {}),
            ("/locked/mcp", call, {"authorization": "Basic " + base64.b64encode(b"eve:guess").decode()}),
            ("/reports/mcp", call, {}),
            ("/mcp", call, {"mcp_session_id": "forged"}),
            ("/mcp", call, {"origin": "http://evil.example"}),
        ):
            if self.stop.wait(self.pace * random.choice((2, 8, 20))):
                return
            wire.request("POST", url + path, body, **headers)

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(20)
        for stream in self.streams:
            stream.abort()


class Browser:
    """A Chromium that clients/status_page.mjs drives, one step a line."""

    def __init__(self, **env):
        command = [NODE, str(HERE / "clients/status_page.mjs")]
        self.process = Process(command, env, stdin=subprocess.PIPE, name="browser")

    def do(self, step, seconds=60, **rest):
        self.process.child.stdin.write(json.dumps({"step": step, **rest}) + "\n")
        self.process.child.stdin.flush()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                which, line = self.process.arrived.get(timeout=1)
            except queue.Empty:
                continue
            if which == "stdout" and line and line.startswith("{"):
                answer = json.loads(line)
                assert "failed" not in answer, f"{step}: {answer['failed']}\n{self.process.tail()}"
                return answer["ok"]
            assert not (which == "stdout" and line is None), f"the browser ended\n{self.process.tail()}"
        raise AssertionError(f"{step}: no answer in {seconds} s\n{self.process.tail()}")

    def end(self):
        self.process.child.stdin.close()
        try:
            self.process.child.wait(15)
        except subprocess.TimeoutExpired:
            pass
        self.process.end()
