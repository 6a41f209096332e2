"""What the load table runs: edges and replicas as processes. In: a binary, a folder. Out: them, and signs of life."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


async def until(what: str, true, limit: float = 30) -> None:
    """Asks again and again until something is so."""
    end = time.monotonic() + limit
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {limit:g} s: {what}")
        await asyncio.sleep(0.02)


def answers(port: int) -> bool:
    """Whether somebody accepts there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def fetched(url: str) -> dict:
    """The JSON at a place on this machine."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


class Replica:
    """An MCP server."""

    def __init__(self, folder: Path, name: str):
        self.name, self.port = name, free_ports(1)[0]
        self.log = folder / f"{name}.posts"
        self.process: subprocess.Popen | None = None

    def begin(self) -> None:
        self.process = subprocess.Popen([sys.executable, HERE / "backend.py", str(self.port), self.name, self.log])

    async def ready(self) -> None:
        await until(f"{self.name} is ready", lambda: answers(self.port))

    async def restart(self) -> None:
        """As a service manager does it: asks it to stop, waits, starts it again."""
        self.signal(signal.SIGTERM)
        await asyncio.to_thread(self.process.wait)
        self.begin()
        await self.ready()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ran(self) -> Counter:
        """Ids of POSTs, and how often each was run."""
        text = self.log.read_text() if self.log.exists() else ""
        return Counter(line.split(" ")[0] for line in text.splitlines())

    def busy(self) -> dict[str, int]:
        """What it has to do still: `posts`, `streams`, `sessions`."""
        return fetched(f"http://127.0.0.1:{self.port}/busy")

    def end(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Adopted:
    """A process that is not a child of ours: the one that took over."""

    def __init__(self, pid: int):
        self.pid, self.returncode = pid, None

    def poll(self) -> int | None:
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            return 0 if state == "Z" else None
        except OSError:
            return 0

    def wait(self) -> str:
        while self.poll() is None:
            time.sleep(0.02)
        return "unknown"

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Edge:
    """A running edge, its config and what it says."""

    def __init__(self, binary: Path, folder: Path, replicas: list[Replica], name: str = "edge", top: str = "", upstream: str = ""):
        self.binary, self.folder, self.name = binary, folder / name, name
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        self.plain, self.tls, self.admin = free_ports(3)
        self.replicas, self.top, self.upstream = replicas, top, upstream
        self.file = self.folder / "mcp-edge.yaml"
        self.process: subprocess.Popen | None = None
        cert = folder / "cert.pem"
        if not cert.exists():
            make = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost -keyout {folder}/key.pem -out {cert}"
            subprocess.run(make.split(), check=True, capture_output=True)
        self.write()

    def text(self, extra: str = "") -> str:
        """The config; `extra` stands at its end."""
        servers = ", ".join(f'"http://127.0.0.1:{r.port}"' for r in self.replicas)
        pem = self.folder.parent
        return f"""state_dir: {self.folder}/state
admin: {{ address: 127.0.0.1:{self.admin} }}
access_log: {self.folder}/access.log
listeners:
  - {{ address: "127.0.0.1:{self.plain}", health_path: /healthz }}
  - {{ address: "127.0.0.1:{self.tls}", health_path: /healthz, tls: {{ certificates: [ {{ cert: {pem}/cert.pem, key: {pem}/key.pem }} ] }} }}
upstreams: [ {{ name: tools, servers: [ {servers} ], {self.upstream} }} ]
routes: [ {{ path: /mcp, upstream: tools, auth: [ anonymous ] }} ]
sessions: {{ keys: [ "{'5' * 64}" ] }}
{self.top}
{extra}
"""

    def write(self, extra: str = "") -> None:
        self.file.write_text(self.text(extra))

    def begin(self) -> None:
        said = open(self.folder / "stderr", "ab")
        environment = os.environ | {"RUST_LOG": os.environ.get("RUST_LOG", "mcp_edge=info,warn")}
        command = [self.binary, "run", "--config", self.file]
        self.process = subprocess.Popen(command, stderr=said, stdout=subprocess.DEVNULL, env=environment)

    async def ready(self) -> None:
        await until(f"{self.name} is ready", lambda: "mcp-edge: ready" in self.said())

    def said(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def sees(self, replica: Replica) -> dict:
        """What its status says of a replica."""
        upstreams = fetched(f"http://127.0.0.1:{self.admin}/status")["upstreams"]
        return next(r for upstream in upstreams for r in upstream["replicas"] if r["address"] == f"127.0.0.1:{replica.port}")

    def log(self) -> list[dict]:
        """The lines of its access log."""
        path = self.folder / "access.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def pid(self) -> int:
        return self.process.pid

    def end(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def grown(pid: int) -> dict[str, int]:
    """Memory and descriptors of a process: RSS and PSS in KiB, open files."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
    return {"rss": sizes["Rss"], "pss": sizes["Pss"], "files": len(os.listdir(f"/proc/{pid}/fd"))}
