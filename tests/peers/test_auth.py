"""SDK clients with a password or a key, before servers that know of neither; and no session for anybody else."""

import base64
import hashlib
import subprocess

import pytest
from harness import Client, explain, log

KEY = "mcpk_0123456789abcdef0123456789abcdef"
PASSWORD = "Basic " + base64.b64encode("jörg:pass:wörd".encode()).decode()


@pytest.fixture
def guarded(edge, fleet, tmp_path):
    """guarded(kind) starts an edge that asks for a password or a key before two replicas of that kind."""

    def start(kind):
        made = subprocess.run(["htpasswd", "-nbB", "-C", "10", "jörg", "pass:wörd"], capture_output=True, check=True)
        (tmp_path / "htpasswd").write_bytes(made.stdout)
        basic = {"basic": {"file": str(tmp_path / "htpasswd")}}
        key = {"api_key": {"keys": [{"name": "ci", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]}}
        running = edge([replica.url for replica in fleet(kind)], start=False)
        running.routes[0] |= {"auth": [basic, key], "identity": {"X-Forwarded-User": "subject"}}
        return running.start()

    return start


PATHS = {"python2": "/mcp", "python2-sse": "/sse", "ts1-sse": "/sse", "ts2": "/mcp"}
# the older SDKs speak no 2026-07-28, and that server nothing else
PAIRS = [(client, kind) for client in ("py1", "py2", "ts1", "ts2") for kind in PATHS if kind != "ts2" or client[-1] == "2"]


@pytest.mark.parametrize("client,kind", PAIRS)
def test_clients_with_credentials(client, kind, guarded):
    running = guarded(kind)
    mode = "2026-07-28" if kind == "ts2" else "legacy"
    url, ca = running.https + PATHS[kind], running.certificate.ca
    for credential in (f"Authorization: {PASSWORD}", f"X-API-Key: {KEY}"):
        more = {"ca": ca, "sessions": 4, "mode": mode, "extra": ["--header", credential]}
        reports = Client(client, url, kind, **more).run()
        assert all(r["ok"] for r in reports), explain(reports, running)
    wrong = {"ca": ca, "mode": mode, "extra": ["--header", "X-API-Key: wrong"]}
    reports = Client(client, url, kind, **wrong).run()
    assert not any(r["ok"] for r in reports)
    log(f"{client} at {kind}: by password and by key; with a wrong key not at all")
