"""Certificates from a real ACME directory, Pebble: obtained, renewed under load, kept through an outage, shared by two edges."""

import json
import os
import pathlib
import socket
import ssl
import stat
import subprocess
import threading

import pytest
import wire
from directory import Directory, wait
from harness import START_SECONDS, Process

DOMAIN = "mcp.example.test"
# Pebble's certificates last this long: renewals come after two thirds of it
LIFE = 30


class AcmeEdge:
    """mcp-edge with a plain listener for challenges and redirects, and one with TLS by ACME."""

    def __init__(self, binary, folder, directory, server, http=None, state=None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.state = pathlib.Path(state or self.folder / "state")
        acme = {"domains": [DOMAIN], "email": "ops@example.test", "directory": directory.url, "retry": "1s"}
        acme["ca"] = directory.certificate.ca
        self.config = {
            "state_dir": str(self.state),
            "admin": {"address": "127.0.0.1:0"},
            "listeners": [
                {"address": f"127.0.0.1:{directory.http if http is None else http}", "redirect": "https"},
                {"address": "127.0.0.1:0", "tls": {"acme": acme}},
            ],
            "routes": [{"host": DOMAIN, "upstream": server, "auth": ["anonymous"]}],
        }
        self.binary, self.process = binary, None

    def start(self):
        file = self.folder / "mcp-edge.yaml"
        file.write_text(json.dumps(self.config, indent=2))
        self.process = Process([self.binary, "run", "--config", str(file)], name="mcp-edge")
        self.process.wait_line("stderr", lambda line: line.strip() == "mcp-edge: ready", START_SECONDS)
        said = [line.split()[-1] for line in self.process.lines["stderr"] if line.startswith("mcp-edge: ")]
        self.port = next(int(url.rsplit(":", 1)[1]) for url in said if url.startswith("https://"))
        self.admin = [url for url in said if url.startswith("http://")][-1]
        return self

    def end(self):
        if self.process:
            self.process.end()

    def shake(self, root=None):
        """One TLS handshake: the certificate, verified where a root is given; `None` when it is not good."""
        context = ssl.create_default_context(cadata=root) if root else ssl._create_unverified_context()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as tcp:
                with context.wrap_socket(tcp, server_hostname=DOMAIN) as tls:
                    return tls.getpeercert(True)
        except ssl.SSLCertVerificationError:
            return None

    def metrics(self):
        return subprocess.run(["curl", "-sS", self.admin + "/metrics"], check=True, capture_output=True, text=True).stdout

    def send(self, root, method, extra="", body=b""):
        """A request over a new connection, which is left open: the connection, the status and the head."""
        context = ssl.create_default_context(cadata=root)
        tcp = socket.create_connection(("127.0.0.1", self.port), 5)
        tls = context.wrap_socket(tcp, server_hostname=DOMAIN)
        head = (
            f"{method} /mcp HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Type: application/json\r\n{extra}"
            f"Accept: application/json, text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        tls.sendall(head.encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = tls.recv(4096)
            if not more:
                raise ConnectionError("no whole head")
            answer += more
        return tls, int(answer.split()[1]), answer.decode()

    def call(self, root):
        """A whole MCP request over a new connection: its status and session."""
        body = json.dumps(wire.call("initialize", wire.INITIALIZE)).encode()
        tls, status, head = self.send(root, "POST", "Connection: close\r\n", body)
        tls.close()
        session = [line for line in head.split("\r\n") if line.lower().startswith("mcp-session-id:")]
        return status, session[0] if session else None

    def stream(self, root):
        """The event stream of a new session, which servers and edge keep alive by comments."""
        _, session = self.call(root)
        tls, status, _ = self.send(root, "GET", session + "\r\n")
        assert status == 200
        tls.settimeout(40)
        return tls


@pytest.fixture
def directory(tmp_path, certificate):
    made = Directory(tmp_path, certificate, LIFE)
    yield made
    made.end()


@pytest.fixture
def started(request):
    """Edges that end with the test."""
    edges = []
    yield edges
    for edge in edges:
        edge.end()


def test_obtained_renewed_under_load_and_kept_through_an_outage(directory, started, binary, tmp_path, fleet):
    edge = AcmeEdge(binary, tmp_path / "edge", directory, fleet("python2")[0].url)
    started.append(edge.start())
    # the directory is down: the edge runs all the same, with a certificate that nobody trusts
    edge.process.wait_line("stderr", lambda line: "no certificate for" in line and "next try" in line, 30)
    assert edge.shake() is not None
    assert f'mcp_edge_acme_failed{{certificate="{DOMAIN}"}} 1' in edge.metrics()

    directory.start()
    root = directory.root()
    first = wait("a certificate is obtained", lambda: edge.shake(root), 30)
    assert f'mcp_edge_acme_failed{{certificate="{DOMAIN}"}} 0' in edge.metrics()
    kept = edge.state / "acme" / f"{DOMAIN}.pem"
    for file in [kept, *edge.state.glob("acme/account-*.json")]:
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600, file
    assert not list(edge.state.glob("acme/webroot/.well-known/acme-challenge/*")), "answers are taken away"

    # load while it is renewed: every request on a new connection, verified
    failed, done = [], threading.Event()

    def load():
        while not done.is_set():
            try:
                if edge.call(root)[0] != 200:
                    failed.append("status")
            except OSError as error:
                failed.append(repr(error))

    stream = edge.stream(root)
    loads = [threading.Thread(target=load) for _ in range(2)]
    for thread in loads:
        thread.start()
    try:
        second = wait("it is renewed", lambda: (now := edge.shake(root)) != first and now, LIFE + 10)
    finally:
        done.set()
        for thread in loads:
            thread.join()
    assert not failed, failed[:3]
    while b"\n:" not in b"\n" + (came := stream.recv(4096)):
        assert came, "the stream was cut"
    stream.close()

    # an outage when the next renewal is due: the old one stays
    directory.stop()
    edge.process.wait_line("stderr", lambda line: "the certificate before it stays" in line, LIFE + 10)
    assert edge.shake(root) == second

    # a restart in the outage serves what is there
    edge.end()
    again = AcmeEdge(binary, tmp_path / "edge", directory, fleet("python2")[0].url)
    started.append(again.start())
    assert again.shake(root) == second
    directory.start()
    root = directory.root()
    wait("the next one is obtained", lambda: again.shake(root), LIFE + 30)


def test_two_edges_that_share_the_state_folder(directory, started, binary, tmp_path, fleet):
    directory.start()
    state, server = tmp_path / "state", fleet("python2")[0].url
    # only the first one is asked by the directory: the other's challenges are answered by it, too
    ports = [None, 0]
    edges = [AcmeEdge(binary, tmp_path / f"edge{n}", directory, server, http, state) for n, http in enumerate(ports)]
    for edge in edges:
        started.append(edge.start())
    root = directory.root()
    certificates = [wait("a certificate", lambda e=edge: e.shake(root), 60) for edge in edges]
    assert certificates[0] == certificates[1]
    obtained = [line for edge in edges for line in edge.process.lines["stderr"] if "was obtained" in line]
    orders = [line for line in directory.process.lines["stdout"] if "Issued certificate" in line]
    assert len(orders) == 1, (orders, obtained)
