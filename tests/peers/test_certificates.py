"""Real ACME and TLS tools: certbot's webroot answered by the edge, from Pebble; sslyze's judgement of a listener."""

import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
import wire
from directory import Directory
from harness import HERE, START_SECONDS, Process, log

DOMAIN = "mcp.example.test"
SCANS = "--sslv2 --sslv3 --tlsv1 --tlsv1_1 --tlsv1_2 --tlsv1_3 --compression --early_data --openssl_ccs --heartbleed".split()
SCANS += "--robot --reneg --ems".split()
SSLYZE = str(HERE / ".cache/venv-sslyze/bin/sslyze")


def tool(name):
    path = shutil.which(name)
    assert path, f"this test needs {name}: tests/needs.sh installs it on Debian"
    return path


@pytest.fixture
def backend():
    """A server that answers every GET with `{}`."""

    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def directory(tmp_path, certificate):
    """An ACME server that issues for a day."""
    made = Directory(tmp_path, certificate, 86400, nonces=True)
    yield made.start()
    made.end()


def run_edge(binary, folder, listeners, backend):
    config = {
        "state_dir": str(folder / "state"),
        "admin": "off",
        "listeners": listeners,
        "routes": [{"host": DOMAIN, "upstream": backend, "auth": ["anonymous"]}],
    }
    file = folder / "mcp-edge.yaml"
    file.write_text(json.dumps(config))
    running = Process([binary, "run", "--config", str(file)], name="mcp-edge")
    running.wait_line("stderr", lambda line: line.strip() == "mcp-edge: ready", START_SECONDS)
    said = [line.split()[-1] for line in running.lines["stderr"] if line.startswith("mcp-edge: listening on ")]
    return running, [int(url.rsplit(":", 1)[1]) for url in said]


def serial(port):
    """The serial number of the certificate that is shown for our name, and the status of a request on it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as tcp, context.wrap_socket(tcp, server_hostname=DOMAIN) as tls:
        from cryptography import x509

        shown = x509.load_der_x509_certificate(tls.getpeercert(True)).serial_number
        tls.sendall(f"GET / HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n".encode())
        return shown, tls.recv(4096).split()[1]


def test_certbot_webroot(binary, certificate, directory, backend, tmp_path):
    """certonly through the redirecting listener; the edge runs on certbot's links; a renewal is taken while it runs."""
    challenges = directory.http
    webroot = tmp_path / "www"
    webroot.mkdir()
    certbot = [tool("certbot"), "-n", "--config-dir", str(tmp_path / "le"), "--work-dir", str(tmp_path / "work")]
    certbot += ["--logs-dir", str(tmp_path / "logs")]
    plain = {"address": f"127.0.0.1:{challenges}", "redirect": "https", "acme_webroot": str(webroot)}

    def run(*arguments):
        done = subprocess.run(
            [*certbot, *arguments],
            env={"PATH": "/usr/bin:/bin", "REQUESTS_CA_BUNDLE": certificate.ca},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    # the first certificate is not there yet: any other will do until then
    other = {"address": "127.0.0.1:0", "tls": {"certificates": [certificate.files()]}}
    edge, _ = run_edge(binary, tmp_path, [plain, other], backend)
    try:
        asked = ["--agree-tos", "-m", "a@example.test", "--server", directory.url, "--webroot", "-w", str(webroot)]
        run("certonly", *asked, "-d", DOMAIN)
        seen = [json.loads(line) for line in edge.lines["stdout"] if "acme-challenge" in line]
        assert seen and all(line["status"] == 200 for line in seen), edge.tail()
    finally:
        edge.end()

    live = tmp_path / "le/live" / DOMAIN
    files = {"cert": str(live / "fullchain.pem"), "key": str(live / "privkey.pem")}
    edge, ports = run_edge(binary, tmp_path, [plain, {"address": "127.0.0.1:0", "tls": {"certificates": [files]}}], backend)
    try:
        first, status = serial(ports[1])
        assert status == b"200"
        location = wire.request("GET", f"http://127.0.0.1:{challenges}/x?y", host=DOMAIN)
        assert (location[0], location[1]["location"]) == (308, f"https://{DOMAIN}/x?y")
        stop, failed, served = threading.Event(), [], []
        stop_at = time.monotonic() + 60

        def load():
            while not stop.is_set() and time.monotonic() < stop_at:
                try:
                    served.append(serial(ports[1])[1])
                    time.sleep(0.005)  # certbot and Pebble need the machine, too
                except OSError as e:
                    failed.append(e)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            run("renew", "--force-renewal", "--no-random-sleep-on-renew")
            deadline = time.monotonic() + 10
            while serial(ports[1])[0] == first and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert serial(ports[1])[0] != first, "the renewal is not shown\n" + edge.tail()
        assert not failed and set(served) == {b"200"}, failed
        log(f"renewed under load: {len(served)} requests, none failed")
    finally:
        edge.end()


def openssl(port, session):
    """Whether s_client got a new session or reused the one in the file, which it leaves there."""
    command = [tool("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-tls1_2"]
    command += ["-sess_in", str(session)] if session.exists() else ["-sess_out", str(session)]
    said = subprocess.run(command, input="", capture_output=True, text=True, timeout=20).stdout
    (line,) = [line for line in said.splitlines() if line.startswith(("New, ", "Reused, "))]
    return line.split(",")[0]


def test_sslyze_finds_nothing(binary, certificate, backend, tmp_path):
    """No old version, no weak suite, none of the known holes; and OpenSSL resumes by ticket."""
    listener = {"address": "127.0.0.1:0", "tls": {"certificates": [certificate.files()]}}
    edge, (port,) = run_edge(binary, tmp_path, [listener], backend)
    report = tmp_path / "sslyze.json"
    try:
        command = [SSLYZE, "--quiet", "--mozilla_config=disable", f"--json_out={report}", *SCANS, f"localhost:{port}"]
        scanned = subprocess.run(command, capture_output=True, text=True, timeout=180)
        assert scanned.returncode == 0, scanned.stdout + scanned.stderr
        assert [openssl(port, tmp_path / "session") for _ in range(2)] == ["New", "Reused"]
    finally:
        edge.end()
    (result,) = json.loads(report.read_text())["server_scan_results"]
    found = {name: scan["result"] for name, scan in result["scan_result"].items() if scan["status"] == "COMPLETED"}
    for old in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        assert found[f"{old}_cipher_suites"]["accepted_cipher_suites"] == [], old
    suites = {
        version: {suite["cipher_suite"]["name"] for suite in found[f"{version}_cipher_suites"]["accepted_cipher_suites"]}
        for version in ("tls_1_2", "tls_1_3")
    }
    assert all("_ECDHE_" in name and ("GCM" in name or "CHACHA20" in name) for name in suites["tls_1_2"]), suites
    assert suites["tls_1_2"] and len(suites["tls_1_3"]) == 3, suites
    assert found["heartbleed"]["is_vulnerable_to_heartbleed"] is False
    assert found["robot"]["robot_result"].startswith("NOT_VULNERABLE")
    assert found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"] is False
    assert found["tls_compression"]["supports_compression"] is False
    assert found["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"] is False
    assert found["session_renegotiation"]["supports_secure_renegotiation"] is True
    assert found["tls_1_3_early_data"]["supports_early_data"] is False
    assert found["tls_extended_master_secret"]["supports_ems_extension"] is True
    log(f"sslyze: {sorted(suites['tls_1_2'])} and TLS 1.3")
