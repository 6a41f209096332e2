#!/usr/bin/env python3
"""What is left of a million requests, 100,000 sessions and 20,000 streams. In: a binary. Out: memory and descriptors.

    benches/service/soak.py target/release/mcp-edge [--requests 1000000] [--sessions 100000] [--streams 20000]

Needs nginx (the backend of requests and sessions) and wrk. Memory is read while nothing is under way: after a warm-up
of a tenth, and after every fifth of the work. Exit status 1: errors, or what was taken has grown; what, is told.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from verdict import of_soak
from wire import H1, Failed
from world import HERE, Replica, free_ports, grown, until, answers

NGINX = """daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; default_type application/json;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{ add_header Mcp-Session-Id $request_id; return 200 '{{"jsonrpc":"2.0","id":1,"result":{{"content":[]}}}}'; }}
  }}
}}
"""
EDGE = """state_dir: {folder}/state
admin: {{ address: 127.0.0.1:{admin} }}
access_log: {folder}/access.log
listeners: [ {{ address: "127.0.0.1:{port}" }} ]
upstreams:
  - {{ name: fast, servers: [ "http://127.0.0.1:{fast}" ] }}
  - {{ name: streams, servers: [ "http://127.0.0.1:{streams}" ] }}
routes:
  - {{ path: /mcp, upstream: fast, auth: [ anonymous ] }}
  - {{ path: /streams, upstream: streams, rewrite: /mcp, auth: [ anonymous ] }}
"""


class Soak:
    """An edge, its backends, and what it takes while nothing is under way."""

    def __init__(self, binary: Path, folder: Path):
        self.folder, self.rows = folder, []
        self.port, self.admin, fast = free_ports(3)
        self.replica = Replica(folder, "streams")
        self.replica.begin()
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=fast))
        (folder / "edge.yaml").write_text(EDGE.format(folder=folder, port=self.port, admin=self.admin, fast=fast, streams=self.replica.port))
        self.nginx = subprocess.Popen(["/usr/sbin/nginx", "-c", folder / "nginx.conf", "-p", folder])
        self.edge = subprocess.Popen([binary, "run", "--config", folder / "edge.yaml"], stderr=open(folder / "stderr", "w"))
        self.ports = [fast, self.replica.port, self.port]

    async def ready(self) -> None:
        for port in self.ports:
            await until("all are ready", lambda: answers(port))

    def end(self) -> None:
        for process in (self.edge, self.nginx):
            process.terminate()
            process.wait()
        self.replica.end()

    async def look(self, work: str, done: int, errors: int) -> None:
        await asyncio.sleep(6)  # unused backend connections are closed after 4 s
        row = {"work": work, "done": done, "errors": errors, **grown(self.edge.pid)}
        self.rows.append(row)
        print(json.dumps(row), file=sys.stderr)

    async def wrk(self, work: str, wanted: int, of_sessions: bool) -> None:
        """Until there were so many, in five parts after a warm-up."""
        done = errors = 0
        for part in range(6):
            goal = wanted * part // 5 if part else wanted // 10
            while done < goal:
                requests, sessions, bad, broken = await self.some(of_sessions)
                done += sessions if of_sessions else requests
                errors += bad + broken
            await self.look("warm-up" if part == 0 else work, done, errors)
            if part == 0:
                done = errors = 0

    async def some(self, of_sessions: bool) -> list[int]:
        script = "steps.lua" if of_sessions else "calls.lua"
        shape = ["-t8", "-c8"] if of_sessions else ["-t1", "-c32"]
        command = ["wrk", *shape, "-d5s", "--timeout", "10s", "-s", HERE / script, f"http://127.0.0.1:{self.port}/mcp"]
        ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        return [int(n) for n in ran.stdout.split("figures ")[1].split()]

    async def streams(self, wanted: int, at_once: int = 100) -> None:
        for part in range(6):
            errors = 0
            count = wanted // 5 if part else wanted // 10
            places = asyncio.Semaphore(at_once)

            async def one() -> int:
                async with places:
                    return await self.stream()

            errors = sum(await asyncio.gather(*(one() for _ in range(count))))
            await self.look("warm-up" if part == 0 else "streams", count * part, errors)

    async def stream(self) -> int:
        """Opened, read to its first event, and closed by the client."""
        client = H1(("127.0.0.1", self.port))
        client.path = "/streams"
        try:
            answer = await asyncio.wait_for(client.begin("GET", {"accept": "text/event-stream"}), 20)
            piece = await asyncio.wait_for(anext(client.pieces(answer)), 20)
            return 0 if answer.status == 200 and b"data:" in piece else 1
        except (Failed, TimeoutError, StopAsyncIteration):
            return 1
        finally:
            client.close()


def table(rows: list[dict]) -> str:
    """Markdown: each work's warm-up, and its last row."""
    out = "| work | done | errors | RSS | PSS | descriptors |\n|---|---:|---:|---:|---:|---:|\n"
    for row in rows:
        out += f"| {row['work']} | {row['done']:,} | {row['errors']} | {row['rss'] / 1024:.1f} MiB | {row['pss'] / 1024:.1f} MiB | {row['files']} |\n"
    return out


async def run(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(args.binary.resolve(), Path(folder))
        try:
            await soak.ready()
            begun = time.monotonic()
            await soak.wrk("requests", args.requests, False)
            await soak.wrk("sessions", args.sessions, True)
            await soak.streams(args.streams)
            print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
        finally:
            soak.end()
        print(table(soak.rows))
        if args.out:
            args.out.write_text(json.dumps(soak.rows, indent=1))
        wanted = {"requests": args.requests, "sessions": args.sessions, "streams": args.streams}
        broken = of_soak(soak.rows, wanted)
        sys.exit("\n".join(["broken promises:", *broken]) if broken else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description="memory and descriptors after much work")
    parser.add_argument("binary", type=Path)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
