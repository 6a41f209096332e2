"""What OAuth clients ask an origin for, as they see it; and a client of 2025-03-26, which knows only the origin."""

import json
import re

import pytest
import wire
from harness import log
from protected import issuer, told, visit
from providers import Idp, fetch

WELL_KNOWN = "/.well-known/oauth-protected-resource"
OTHERS = [
    "/register",
    "/authorize",
    "/token",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server/kit",
    "/.well-known/openid-configuration/kit",
]


def test_the_document(fleet, protected, idp):
    replicas = fleet("python2")
    resource = protected.route("/kit", replicas, issuer(idp))
    protected.start()
    before = [len(replica.requests()) for replica in replicas]
    expected = {
        "resource": resource,
        "authorization_servers": [idp.issuer],
        "scopes_supported": ["mcp:read", "mcp:admin"],
        "bearer_methods_supported": ["header"],
    }
    # At the path of the resource; at the root, because this origin has no other resource; whatever a client claims to be at.
    lies = {"host": "evil.example", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example;proto=http"}
    for path in (WELL_KNOWN + "/kit", WELL_KNOWN):
        for sent in ({}, {"authorization": "Bearer nonsense"}, {"origin": "https://page.example"}, lies):
            status, headers, body = fetch("GET", protected.origin + path, protected.ca, **sent)
            assert status == 200 and headers["content-type"] == "application/json", f"{path} {sent}: {status}"
            assert headers["access-control-allow-origin"] == "*"
            document = json.loads(body)
            assert {**document, "scopes_supported": sorted(document["scopes_supported"], reverse=True)} == expected
        status, headers, body = fetch("HEAD", protected.origin + path, protected.ca)
        assert (status, body) == (200, b"") and headers["access-control-allow-origin"] == "*"
        asked = {"origin": "https://page.example", "access-control-request-method": "GET"}
        asked |= {"access-control-request-headers": "mcp-protocol-version, x-else"}
        status, headers, body = fetch("OPTIONS", protected.origin + path, protected.ca, **asked)
        assert status == 204 and headers["access-control-allow-origin"] == "*"
        assert headers["access-control-allow-headers"] == "mcp-protocol-version, x-else"
        status, headers, _ = fetch("POST", protected.origin + path, protected.ca, body={})
        assert status == 405 and "GET" in headers["allow"]
    assert [len(replica.requests()) for replica in replicas] == before, "a server was asked"


@pytest.mark.parametrize("path", ["/", "/kit"])
def test_nothing_else(path, fleet, protected, idp):
    """The edge is no authorization server, and no server behind it passes for one."""
    (replica,) = fleet("python2", 1)
    protected.route(path, [replica], issuer(idp), rewrite=None)
    protected.start()
    before = len(replica.requests())
    for other in OTHERS + [WELL_KNOWN + "x", "/.well-known/oauth-protected-resources"]:
        for method in ("GET", "POST"):
            status, _, _ = fetch(method, protected.origin + other, protected.ca, body={} if method == "POST" else None)
            wanted = (404, 405) if "protected-resource" not in other else (401, 404)
            assert status in wanted, f"{method} {other}: {status}"
    assert len(replica.requests()) == before


def test_two_resources_have_no_root(fleet, protected, idp):
    resources = [protected.route(path, fleet("python2"), issuer(idp)) for path in ("/one", "/two")]
    protected.start()
    assert fetch("GET", protected.origin + WELL_KNOWN, protected.ca)[0] == 404
    for resource in resources:
        url = resource.replace(protected.origin, protected.origin + WELL_KNOWN)
        assert json.loads(fetch("GET", url, protected.ca)[2])["resource"] == resource


def test_challenges(fleet, protected, idp):
    """Every refusal says what a client needs to go on, in one field."""
    resource = protected.route("/kit", fleet("python2"), issuer(idp))
    protected.start()
    metadata = f"{protected.origin}{WELL_KNOWN}/kit"

    def challenge(wanted, token=None, message=wire.call("initialize", wire.INITIALIZE)):
        sent = {"authorization": f"Bearer {token}"} if token else {}
        connection, answer = wire.begin("POST", resource, message, protected.ca, **sent)
        answer.read()
        connection.close()
        fields = answer.headers.get_all("www-authenticate")
        assert answer.status == wanted and len(fields) == 1, f"{answer.status} {fields}"
        scheme, said = fields[0].split(" ", 1)
        assert scheme == "Bearer" and fields[0].isascii()
        said = dict(re.findall(r'([a-z_]+)="([^"]*)"', said))
        assert said["resource_metadata"] == metadata
        return said

    assert set(challenge(401)["scope"].split()) == {"mcp:read"}
    assert challenge(401, "nonsense")["error"] == "invalid_token"
    assert challenge(401, idp.token("alice", resource + "-other"))["error"] == "invalid_token"
    poor = challenge(403, idp.token("alice", resource, "mcp:write"))
    assert poor["error"] == "insufficient_scope" and set(poor["scope"].split()) == {"mcp:read"} and poor["error_description"]
    token = idp.token("alice", resource)
    step = challenge(403, token, wire.tool("delete_trace", key="k"))
    assert step["error"] == "insufficient_scope" and set(step["scope"].split()) == {"mcp:read", "mcp:admin"}
    log(f"401 {challenge(401)}")


def test_clients_in_browsers(fleet, protected, idp):
    """A page may ask without a token whether it may ask, and may read what it is refused with."""
    (replica,) = fleet("python2", 1)
    page = "https://page.example"
    resource = protected.route("/kit", [replica], issuer(idp), keys={"origins": [page]})
    protected.start()
    asked = {"origin": page, "access-control-request-method": "POST"}
    asked |= {"access-control-request-headers": "authorization, content-type, mcp-protocol-version, mcp-session-id"}
    status, headers, _ = fetch("OPTIONS", resource, protected.ca, **asked)
    allowed = headers["access-control-allow-headers"].lower()
    assert status in (200, 204) and headers["access-control-allow-origin"] == page, headers
    assert "authorization" in allowed and "mcp-session-id" in allowed, headers
    message = wire.call("initialize", wire.INITIALIZE)
    for token, wanted in ((None, 401), ("nonsense", 401), (idp.token("alice", resource, "mcp:write"), 403)):
        sent = {"origin": page, "accept": "application/json, text/event-stream"}
        sent |= {"authorization": f"Bearer {token}"} if token else {}
        status, headers, _ = fetch("POST", resource, protected.ca, body=message, **sent)
        assert status == wanted and headers["access-control-allow-origin"] == page, headers
        assert "www-authenticate" in headers["access-control-expose-headers"].lower(), headers


def test_a_client_of_2025_03_26(fleet, protected, certificate, tmp_path):
    """It asks the origin for the provider's metadata; with `serve_metadata` it finds the provider's own."""
    provider = Idp(certificate, tmp_path)
    # Such a client names no resource, so the provider has to know for what its tokens are.
    provider.start(RESOURCE=f"{protected.origin}/kit")
    try:
        resource = protected.route("/kit", fleet("python2"), issuer(provider, serve_metadata=True))
        protected.start()
        for path in OTHERS[3:5]:
            status, headers, body = fetch("GET", protected.origin + path, protected.ca)
            assert status == 200 and headers["access-control-allow-origin"] == "*", f"{path}: {status}"
            assert json.loads(body)["token_endpoint"] == provider.issuer + "/token"
        report = visit("ts-2025-03-26", resource, protected.ca, "list,count,count", scope="mcp:read")
        assert report["ok"], told(report, protected.edge.process)
        asked = [url.removeprefix(protected.origin) for _, url, _ in report["requests"]]
        assert asked[:2] == ["/kit", "/.well-known/oauth-authorization-server"], asked
        # newer clients do not mind
        report = visit("ts2", resource, protected.ca, "list,count")
        assert report["ok"], told(report, protected.edge.process)
        provider.end()
        for path in OTHERS[3:5]:
            assert fetch("GET", protected.origin + path, protected.ca)[0] in (200, 503), path
    finally:
        provider.end()


def test_without_it_that_client_finds_nothing(fleet, protected, idp):
    resource = protected.route("/kit", fleet("python2"), issuer(idp))
    protected.start()
    report = visit("ts-2025-03-26", resource, protected.ca, "list")
    assert not report["ok"]
    assert [status for _, url, status in report["requests"] if url.startswith(protected.origin)][:2] == [401, 404], told(report)
