"""HAProxy before the edge, at TCP level: it announces its clients by the PROXY protocol, versions 1 and 2."""

import http.client
import http.server
import json
import os
import shutil
import socket
import ssl
import threading
import time

import pytest
from harness import Process, log

CLIENT = "127.0.0.5"
HAPROXY = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin") or "haproxy"


class Backend(http.server.BaseHTTPRequestHandler):
    """Answers with the header fields that it got."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def backend():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def haproxy(tmp_path):
    """haproxy(port, words) starts one that passes TCP on to this port of ours; returns its own."""
    started = []

    def start(port, words):
        with socket.create_server(("127.0.0.1", 0)) as free:
            own = free.getsockname()[1]
        file = tmp_path / f"haproxy-{own}.cfg"
        file.write_text(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n"
            f"listen edge\n  bind 127.0.0.1:{own}\n  server edge 127.0.0.1:{port} {words}\n"
        )
        started.append(Process([HAPROXY, "-db", "-f", str(file)], name="haproxy"))
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", own), 1).close()
                return own
            except ConnectionRefusedError:
                assert time.monotonic() < deadline and started[-1].child.poll() is None, started[-1].tail()

    yield start
    for process in started:
        process.end()


def get(port, ca=None, **headers):
    """The header fields that the backend got from a client at CLIENT."""
    source = (CLIENT, 0)
    if ca:
        context = ssl.create_default_context(cafile=ca)
        connection = http.client.HTTPSConnection("localhost", port, timeout=10, context=context, source_address=source)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=source)
    seen = []
    for _ in range(2):  # the second on the same connection, without another header
        connection.request("GET", "/", headers={"Host": "localhost", **headers})
        answer = connection.getresponse()
        assert answer.status == 200
        seen.append(json.loads(answer.read()))
    connection.close()
    assert seen[0]["x-forwarded-for"] == seen[1]["x-forwarded-for"]
    return seen[0]


@pytest.mark.parametrize("mode", ["optional", "required"])
@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"])
def test_the_client_is_who_haproxy_announces(words, mode, backend, edge, haproxy):
    running = edge([backend], top={"trusted_proxies": ["127.0.0.1"]}, listener={"proxy_protocol": mode})
    for url, ca in ((running.http, None), (running.https, running.certificate.ca)):
        seen = get(haproxy(int(url.rsplit(":", 1)[1]), words), ca, **{"X-Forwarded-For": "6.6.6.6"})
        assert seen["x-forwarded-for"] == CLIENT
        assert seen["x-forwarded-proto"] == ("https" if ca else "http")
    running.end()
    assert {line["client"] for line in running.access} == {CLIENT}, running.access
    log(f"{words}, {mode}: {CLIENT} in the log and at the backend, over plain HTTP and TLS")


def test_who_is_announced_and_denied_gets_nothing(backend, edge, haproxy):
    top = {"trusted_proxies": ["127.0.0.1"]}
    running = edge([backend], top=top, listener={"proxy_protocol": "required", "deny": [CLIENT]})
    port = haproxy(int(running.http.rsplit(":", 1)[1]), "send-proxy-v2")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        get(port)


def test_nobody_else_may_announce(backend, edge, haproxy):
    running = edge([backend], top={"trusted_proxies": ["192.0.2.1"]}, listener={"proxy_protocol": "required"})
    port = haproxy(int(running.http.rsplit(":", 1)[1]), "send-proxy")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        get(port)


def test_health_checks_pass(backend, edge, haproxy):
    """They are sent as LOCAL: HAProxy speaks for itself."""
    running = edge([backend], top={"trusted_proxies": ["127.0.0.1"]}, listener={"proxy_protocol": "required", "health_path": "/healthz"})
    words = "send-proxy-v2 check check-send-proxy inter 100ms\n  option httpchk GET /healthz"
    port = haproxy(int(running.http.rsplit(":", 1)[1]), words)
    wanted = '"path":"/healthz"'
    line = running.process.wait_line("stdout", lambda line: wanted in line, 10)
    assert json.loads(line)["client"] == "127.0.0.1" and json.loads(line)["status"] == 200, line
    assert get(port)["x-forwarded-for"] == CLIENT
