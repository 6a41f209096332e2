#!/usr/bin/env python3
"""Passwords beside nginx. In: a build of mcp-edge; out: a table on stdout.

The same htpasswd file (bcrypt, cost 12) before the same backend: requests a second and p99 over 32 kept
connections that all send the right password, and how old the events of a live stream are that goes
through the same process meanwhile, and while wrong passwords come in. One worker each, all on loopback.

    cargo build --release && benches/passwords.py target/release/mcp-edge

Needs Python 3.11, nginx, wrk and htpasswd (apache2-utils).
"""

import asyncio
import base64
import contextlib
import getpass
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORD, SECONDS, CONNECTIONS, PAUSE = "correct horse", 8, 32, 0.01
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

NGINX_CONF = """
daemon off; user {user}; worker_processes 1; pid {dir}/{name}.pid; error_log {dir}/{name}.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; client_body_temp_path {dir}/t; proxy_temp_path {dir}/t; fastcgi_temp_path {dir}/t;
    uwsgi_temp_path {dir}/t; scgi_temp_path {dir}/t; keepalive_requests 1000000;
    upstream plain {{ server 127.0.0.1:{plain}; keepalive 64; }}
    server {{ listen 127.0.0.1:{port}; {inside} }}
}}
"""
FRONT = """auth_basic "MCP"; auth_basic_user_file {dir}/htpasswd;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    location / {{ proxy_pass http://plain; }} location /events {{ proxy_pass http://127.0.0.1:{events}; }}"""
EDGE_CONF = """
admin: off
access_log: off
threads: 1
listeners: [ {{ address: "127.0.0.1:{port}" }} ]
routes:
  - {{ path: /events, upstream: "http://127.0.0.1:{events}", auth: [ {auth} ] }}
  - {{ path: /, upstream: "http://127.0.0.1:{plain}", auth: [ {auth} ] }}
"""
AUTH = "{{ basic: {{ file: {dir}/htpasswd, failures: 1000000/s }} }}"
# a wrong password of its own for every request
WRONG = """local b='ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
local function enc(s) return ((s:gsub('.',function(x) local r,c='',x:byte() for i=8,1,-1 do
  r=r..(c%2^i-c%2^(i-1)>0 and '1' or '0') end return r end)..'0000'):gsub('%d%d%d?%d?%d?%d?',function(x)
  if #x<6 then return '' end local c=0 for i=1,6 do c=c+(x:sub(i,i)=='1' and 2^(6-i) or 0) end
  return b:sub(c+1,c+1) end)..({'','==','='})[#s%3+1]) end
local n=0
request=function() n=n+1; return wrk.format('GET','/x',{['Authorization']='Basic '..enc('ann:'..n)}) end
"""


def main():
    edge = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = Path(folder)
        ports = {name: free_port() for name in ("plain", "events", "nginx", "edge")}
        secret = subprocess.run(["htpasswd", "-nbB", "-C", "12", "ann", WORD], capture_output=True, text=True, check=True)
        (folder / "htpasswd").write_text(secret.stdout.strip() + "\n")
        (folder / "wrong.lua").write_text(WRONG)
        for name, inside in [("plain", 'location / { default_type application/json; return 200 "{}"; }'),
                             ("nginx", FRONT.format(dir=folder, **ports))]:
            conf = folder / f"{name}.conf"
            conf.write_text(NGINX_CONF.format(dir=folder, user=getpass.getuser(), name=name, port=ports[name], plain=ports["plain"], inside=inside))
            run(stack, [NGINX, "-c", str(conf), "-p", str(folder)], ports[name])
        conf = folder / "edge.yaml"
        auth = AUTH.format(dir=folder)
        conf.write_text(EDGE_CONF.format(port=ports["edge"], plain=ports["plain"], events=ports["events"], auth=auth))
        run(stack, [str(edge), "run", "--config", str(conf)], ports["edge"])
        print("| | requests/s | p50 | p99 | stream alone: p99, max ms | beside these | beside wrong passwords |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        rates = [asyncio.run(measure(name, folder, ports)) for name in ("nginx", "edge")]
        print(f"\n{rates[1] / rates[0]:.0f} times the requests of nginx")


async def measure(name, folder, ports):
    server = await asyncio.start_server(events, "127.0.0.1", ports["events"])
    url = f"http://127.0.0.1:{ports[name]}/x"
    alone = await ages(ports[name], SECONDS / 2)
    beside, said = await asyncio.gather(ages(ports[name], SECONDS), wrk(url, "-H", header()))
    wrong, _ = await asyncio.gather(ages(ports[name], SECONDS), wrk(url, "-s", str(folder / "wrong.lua")))
    server.close()
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
    p50, p99 = (re.search(rf"{p}%\s+(\S+)", said)[1] for p in (50, 99))
    shown = lambda a: f"{quantile(a, .99):.1f}, {max(a):.1f}" if a else "no event came"
    cells = " | ".join(map(shown, (alone, beside, wrong)))
    print(f"| {name} | {rate:.1f} | {p50} | {p99} | {cells} |", flush=True)
    return rate


async def wrk(url, *more):
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--timeout", "30s", "--latency", *more, url]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode()


async def events(reader, writer):
    """An event stream of which each event says when it was sent."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
        while True:
            writer.write(f"data: {time.monotonic_ns()}\n\n".encode())
            await writer.drain()
            await asyncio.sleep(PAUSE)


async def ages(port, seconds):
    """How old the events are that come in for so long, in milliseconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{header()}\r\n\r\n".encode())
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        line = await reader.readline()
        if not line:
            sys.exit("the stream ended")
        if line.startswith(b"data: "):
            found.append((time.monotonic_ns() - int(line[6:])) / 1e6)
    writer.close()
    return found[1:]  # the first has waited for the hash


def header():
    return "Authorization: Basic " + base64.b64encode(f"ann:{WORD}".encode()).decode()


def quantile(values, part):
    values = sorted(values)
    return values[int(len(values) * part)]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(stack, argv, port):
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    stack.callback(lambda: (process.terminate(), process.wait()))
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    sys.exit(f"{argv[0]} does not listen")


if __name__ == "__main__":
    main()
