#!/usr/bin/env python3
"""What a token costs that is in the cache. In: a build of mcp-edge; out: a table on stdout.

One edge with one worker before one backend; wrk sends the same calls over 32 kept connections to a route that
lets everybody in and to one that asks for a token, in turn, round after round. CPU is what the scheduler gave
to all threads of the edge, kernel time included. Compare ratios within one run.

    cargo build --release && benches/oauth.py target/release/mcp-edge

Needs Python 3.11, nginx and wrk. `cargo bench -- token` has the first verification of each kind of key.
"""

import base64
import contextlib
import getpass
import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS, SECONDS, CONNECTIONS = 7, 4, 32
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
SECRET = "a secret of at least thirty-two bytes"
RESOURCE = "https://mcp.example.com/token"

NGINX_CONF = """
daemon off; user {user}; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; client_body_temp_path {dir}/t; proxy_temp_path {dir}/t; fastcgi_temp_path {dir}/t;
    uwsgi_temp_path {dir}/t; scgi_temp_path {dir}/t; keepalive_requests 1000000;
    server {{ listen 127.0.0.1:{plain}; location / {{ default_type application/json; return 200 '{answer}'; }} }}
}}
"""
EDGE_CONF = """
state_dir: {dir}/state
admin: off
threads: 1
access_log: {dir}/access.log
listeners: [ {{ address: "127.0.0.1:{edge}" }} ]
routes:
  - {{ path: /open, upstream: "http://127.0.0.1:{plain}", auth: [ anonymous ], request_headers: {{ remove: [ Authorization ] }} }}
  - path: /token
    upstream: "http://127.0.0.1:{plain}"
    auth: [ {{ oauth: {{ resource: "{resource}", issuers: [ {{ issuer: internal, secret: "${{env:SECRET}}" }} ] }} }} ]
"""
CALL = """
wrk.method, wrk.body = 'POST', '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_weather","arguments":{"city":"Reykjavik"}}}'
wrk.headers['Content-Type'], wrk.headers['Accept'] = 'application/json', 'application/json, text/event-stream'
done = function(summary) io.write('requests ', summary.requests, ' bad ', summary.errors.status, '\\n') end
"""


def main():
    edge = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = Path(folder)
        ports = {name: free_port() for name in ("plain", "edge")}
        answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "x" * 200}]}})
        (folder / "call.lua").write_text(CALL)
        (folder / "nginx.conf").write_text(NGINX_CONF.format(dir=folder, user=getpass.getuser(), answer=answer, **ports))
        (folder / "edge.yaml").write_text(EDGE_CONF.format(dir=folder, resource=RESOURCE, **ports))
        run(stack, [NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)], ports["plain"])
        process = run(stack, [str(edge), "run", "--config", str(folder / "edge.yaml")], ports["edge"])
        shown = token()
        works = {
            "open, no token": ("/open", []),
            "open, the token is sent": ("/open", ["-H", f"Authorization: Bearer {shown}"]),
            "token": ("/token", ["-H", f"Authorization: Bearer {shown}"]),
        }
        found = {name: [] for name in works}
        for _ in range(ROUNDS):
            for name, (path, more) in works.items():
                found[name].append(measure(process.pid, folder, f"http://127.0.0.1:{ports['edge']}{path}", more))
        print(f"| {len(shown)} B of token | CPU µs per request | requests/s |\n|---|---:|---:|")
        for name, rounds in found.items():
            cpu, rate = (statistics.median(values) for values in zip(*rounds))
            print(f"| {name} | {cpu:.1f} | {rate:,.0f} |")
        for base in list(works)[:2]:
            pairs = zip(found["token"], found[base])
            print(f"token / {base}: {statistics.median(mine[0] / theirs[0] for mine, theirs in pairs):.3f}")


def measure(pid, folder, url, more):
    before = cpu(pid)
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(folder / "call.lua"), *more, url]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    requests, bad = map(int, re.search(r"requests (\d+) bad (\d+)", said).groups())
    if bad or not requests:
        sys.exit(f"{url}: {bad} of {requests} were refused")
    return (cpu(pid) - before) / requests / 1000, requests / SECONDS


def cpu(pid):
    """Nanoseconds on a processor, all threads together."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def token():
    """About 1 KiB, as providers write them."""
    claims = {"iss": "internal", "aud": [RESOURCE], "sub": "6f1c9d1e-7b1a-4f3e-9d59-000000000001", "exp": int(time.time()) + 86400,
              "scope": "openid profile email mcp:read", "preferred_username": "ann", "groups": ["engineering", "finops"], "x": "x" * 500}
    part = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    message = ".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256", "typ": "at+jwt"}, claims))
    return f"{message}.{part(hmac.digest(SECRET.encode(), message.encode(), hashlib.sha256))}"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(stack, argv, port):
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env={**os.environ, "SECRET": SECRET})
    stack.callback(lambda: (process.terminate(), process.wait()))
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return process
        time.sleep(0.05)
    sys.exit(f"{argv[0]} does not listen")


if __name__ == "__main__":
    main()
