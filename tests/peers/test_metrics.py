"""In: an edge after sessions, streams, refusals and errors with real servers. Out: what Prometheus' own tools say of its
metrics page."""

import re
import subprocess

import wire


def page(url):
    status, headers, text = wire.request("GET", url + "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain"), (status, headers)
    return text.decode()


def admin(running):
    said = running.process.lines["stderr"]
    return next(line for line in said if line.startswith("mcp-edge: admin on ")).split()[-1].rstrip("/")


def lint(text):
    """What promtool has to say, with the metrics that it speaks of; nothing when all is well."""
    found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    said = (found.stdout + found.stderr).strip()
    return said if said or found.returncode == 0 else f"exit code {found.returncode}"


def test_the_page_passes_promtool(fleet, edge, certificate):
    replicas = fleet("python2", 2)
    running = edge([replica.url for replica in replicas], top={"admin": {"address": "127.0.0.1:0"}})
    url, at = running.https + "/mcp", admin(running)
    assert lint(page(at)) == "", "an edge that nobody has asked yet"

    session = wire.open_session(url, certificate.ca)
    for message in (wire.call("tools/list"), wire.call("tools/call", {"name": "no-such-tool"}), wire.call("no/method")):
        status, _, _ = wire.request("POST", url, message, certificate.ca, session)
        assert status == 200
    assert wire.request("POST", url, wire.call("ping"), certificate.ca, "forged")[0] == 404
    connection, answer = wire.begin("GET", url, None, certificate.ca, session)
    assert answer.status == 200
    text = page(at)
    assert lint(text) == ""
    for sample in (
        r'mcp_edge_requests_total{era="legacy",route="\*/",rpc_method="tools/list",status="2xx",upstream="replicas"} 1$',
        r'mcp_edge_request_duration_seconds_count{.*rpc_method="tools/call".*} 1$',
        r'mcp_edge_streams{route="\*/"} 1$',
        r'mcp_edge_sessions_sealed_total{route="\*/"} 1$',
        r'mcp_edge_sessions_opened_total{route="\*/"} [5-9]$',
        r'mcp_edge_rpc_errors_total{code="-326[0-9]{2}",route="\*/"} 1$',
        r'mcp_edge_refusals_total{code="session.unknown"} 1$',
        r'mcp_edge_certificate_expiry_timestamp_seconds{file=".*"} [0-9]{10}$',
        r'process_resident_memory_bytes [0-9]+$',
    ):
        assert re.search("^" + sample, text, re.MULTILINE), (sample, text)
    connection.close()


def test_promtool_would_say_so():
    """That an empty answer means something."""
    assert "_total" in lint("# HELP a_requests Requests.\n# TYPE a_requests counter\na_requests 1\n")
