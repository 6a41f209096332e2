"""SDK clients that know nothing but a URL reach servers that know nothing of OAuth, through the edge over TLS."""

import http.server
import json
import ssl
import threading

import pytest
import wire
from attacks import post
from bypass import Events, Sessions
from harness import HERE, Client, explain, log
from protected import issuer, told, visit
from providers import PROGRAM, claims, environment

# (client, server, its path behind the route's, flags)
PAIRS = [(client, "python2", "", {}) for client in ("py1", "py2", "ts1", "ts2")]
PAIRS += [(client, "ts1", "", {}) for client in ("py1", "ts2")]
PAIRS += [(client, "ts2", "", {"mode": "2026-07-28"}) for client in ("py2", "ts2")]
PAIRS += [(client, kind, "", {"mode": "auto"}) for client, kind in (("py2", "python2"), ("py2", "ts1"), ("ts2", "ts2"))]
PAIRS += [(client, "python1-sse", "/sse", {"transport": "sse"}) for client in ("py1", "py2", "ts1", "ts2")]


@pytest.mark.parametrize("client,kind,path,flags", PAIRS, ids=["-".join([*pair[:2], *pair[3].values()]) for pair in PAIRS])
def test_from_nothing_to_a_tool_call(client, kind, path, flags, fleet, protected, idp):
    replicas = fleet(kind)
    resource = protected.route("/kit", replicas, issuer(idp), rewrite="/" if path else "/mcp")
    protected.start()
    before, heard = len(idp.requests()), [len(replica.requests()) for replica in replicas]
    report = visit(client, resource + path, protected.ca, "list,count,count", **flags)
    assert report["ok"], told(report, protected.edge.process)
    assert "count" in report["tools"] and len({count["pid"] for count in report["counts"]}) <= (1 if kind != "ts2" else 2)
    # The way: refused, told where the metadata are, registered, one login, one token for this resource.
    refused, found, *rest = report["requests"]
    assert refused[1:] == [resource + path, 401]
    assert found == ["GET", f"{protected.origin}/.well-known/oauth-protected-resource/kit", 200]
    assert [line["status"] for line in idp.requests(before, path="/reg")] == [201]
    assert [line["status"] for line in idp.requests(before, path="/token")] == [200]
    assert [scope.split()[0] for scope in report["logins"]] == ["mcp:read"]
    said = claims(report["tokens"][0])
    assert (said["aud"], said["sub"], said["scope"]) == (resource, "alice", "mcp:read")
    # `auto` asks first whether the server speaks 2026-07-28; an older one says 400
    fine = {200, 202, 400} if flags.get("mode") == "auto" else {200, 202}
    assert {status for _, url, status in rest if url.startswith(resource)} <= fine, told(report)
    # The server heard nothing before the token came.
    lines = [line for replica, count in zip(replicas, heard) for line in replica.requests(count)]
    assert lines and {line["status"] for line in lines} <= fine, lines
    log(f"{client} at {kind}: " + ", ".join(f"{method} {status}" for method, _, status in report["requests"]))


# TypeScript 1.x answers a step-up with its refresh token, which cannot widen the scope; without one it asks the person.
STEPS = [("py1", {}), ("py2", {}), ("ts1", {"no_refresh": True}), ("ts2", {})]


@pytest.mark.parametrize("client,flags", STEPS, ids=[client for client, _ in STEPS])
def test_step_up(client, flags, fleet, protected, idp):
    """A tool that needs more scope sends the client back to the person once, and the session goes on."""
    resource = protected.route("/kit", fleet("python2"), issuer(idp))
    protected.start()
    report = visit(client, resource, protected.ca, "list,count,admin,count,admin", **flags)
    assert report["ok"], told(report, protected.edge.process)
    assert report["admin"] == {"deleted": "oauth"}
    assert [set(scope.split()) - {"offline_access"} for scope in report["logins"]] == [{"mcp:read"}, {"mcp:read", "mcp:admin"}]
    assert [set(scope.split()) for scope in report["scopes"]] == [{"mcp:read"}, {"mcp:read", "mcp:admin"}]
    assert [status for _, url, status in report["requests"] if url == resource].count(403) == 1, told(report)
    assert [count["session"] for count in report["counts"]] == [1, 2] and len(report["sessions"]) == 1
    log(f"{client}: asked for {report['logins']}, one session")


def test_who_may_step_up_sees_what_for(fleet, protected, idp):
    """A tool that is not in the list is never called, and its scope never asked for."""
    (replica,) = fleet("python2", 1)
    resource = protected.route("/kit", [replica], issuer(idp))
    protected.start()
    tools = Sessions(resource, replica, protected.ca, idp.token("alice", resource)).ask("tools/list", {})["tools"]
    assert "delete_trace" in {tool["name"] for tool in tools}


def test_step_up_2026(fleet, protected, idp):
    resource = protected.route("/kit", fleet("ts2"), issuer(idp))
    protected.start()
    for client in ("py2", "ts2"):
        report = visit(client, resource, protected.ca, "count,admin,count", mode="2026-07-28")
        assert report["ok"] and len(report["logins"]) == 2, told(report, protected.edge.process)


def test_who_may_not_is_not_asked_twice(fleet, protected, idp):
    """A provider that grants no more: the tool does not run, and the client does not go round in circles."""
    (replica,) = fleet("python2", 1)
    resource = protected.route("/kit", [replica], issuer(idp), tool_scopes={"delete_*": ["mcp:read", "never:granted"]})
    protected.start()
    before = len(replica.requests())
    report = visit("py2", resource, protected.ca, "count,admin")
    assert not report["ok"] and report["step"] == "admin" and len(report["logins"]) == 2, told(report)
    assert all(line["status"] < 400 for line in replica.requests(before))


# Python's client renews by its own clock; TypeScript's waits for the 401, so there the edge must not be lenient.
@pytest.mark.parametrize("client,leeway", [("py1", "30s"), ("py2", "30s"), ("ts1", "0s"), ("ts2", "0s")])
def test_a_refreshed_token_keeps_the_session(client, leeway, fleet, protected, idp):
    resource = protected.route("/short", fleet("python2"), issuer(idp, leeway=leeway))
    protected.start()
    before = len(idp.requests())
    report = visit(client, resource, protected.ca, "count,renew,count")
    assert report["ok"], told(report, protected.edge.process)
    assert len(report["logins"]) == 1, "the person was asked again"
    assert idp.requests(before, grant="refresh_token"), "no token was refreshed"
    assert len(report["sessions"]) == 1 and len({count["pid"] for count in report["counts"]}) == 1
    assert [count["session"] for count in report["counts"]] == list(range(1, len(report["counts"]) + 1))
    log(f"{client}: {len(report['tokens'])} tokens, {len(report['counts'])} calls, one session")


@pytest.mark.parametrize("client", ["py1", "py2", "ts1", "ts2"])
def test_the_old_transport(client, fleet, protected, idp):
    """One stream, whose posts come with the token of the moment. TypeScript's client knows no step-up there."""
    resource = protected.route("/short", fleet("python1-sse"), issuer(idp, leeway="1s"), rewrite="/", stream_grace="off")
    protected.start()
    steps = "count,renew,admin,count" if client.startswith("py") else "count,renew,count"
    report = visit(client, resource + "/sse", protected.ca, steps, transport="sse")
    assert report["ok"] and len(report["tokens"]) > 1, told(report, protected.edge.process)
    assert [count["session"] for count in report["counts"]] == list(range(1, len(report["counts"]) + 1))
    assert [method for method, url, status in report["requests"] if url.endswith("/sse") and status == 200] == ["GET"]


@pytest.mark.parametrize("client", ["py1", "py2", "ts1", "ts2"])
def test_programs(client, fleet, protected, idp):
    """client_credentials: nobody in person."""
    resource = protected.route("/kit", fleet("python1"), issuer(idp))
    protected.start()
    flags = {"flow": "program", "client": ":".join(PROGRAM.values()), "issuer": idp.issuer, "scope": "mcp:read"}
    report = visit(client, resource, protected.ca, **flags)
    assert report["ok"] and report["logins"] == [], told(report, protected.edge.process)
    assert claims(report["tokens"][0])["sub"] == PROGRAM["client_id"]


@pytest.mark.parametrize("client", ["py1", "py2", "ts1", "ts2"])
def test_clients_that_are_documents(client, fleet, protected, idp, document):
    """A client id metadata document instead of a registration: the edge sees a client_id that is a URL."""
    resource = protected.route("/kit", fleet("python2"), issuer(idp))
    protected.start()
    before = len(idp.requests())
    report = visit(client, resource, protected.ca, flow="document", document=document)
    assert report["ok"], told(report, protected.edge.process)
    assert claims(report["tokens"][0])["client_id"] == document == report["client"]
    assert not idp.requests(before, path="/reg")


@pytest.fixture
def document(certificate):
    """The URL of a client's metadata document."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"https://localhost:{server.server_address[1]}/client.json"
    content = {"client_id": url, "client_name": "peers", "redirect_uris": ["http://localhost:1/callback"]}
    content |= {"token_endpoint_auth_method": "none", "grant_types": ["authorization_code", "refresh_token"]}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield url
    server.shutdown()


def test_mcp_remote(fleet, protected, idp, tmp_path):
    """Its own flow: it registers, opens a browser, waits at its own port for the code, keeps the token in a file."""
    resource = protected.route("/kit", fleet("python2"), issuer(idp))
    protected.start()
    before = len(idp.requests())
    browser = {"BROWSER": str(HERE / "clients/browser.py"), "PEERS_BROWSER": "visit", "SSL_CERT_FILE": protected.ca}
    for _ in range(2):
        with environment(MCP_REMOTE_CONFIG_DIR=str(tmp_path / "mcp-remote"), **browser):
            reports = Client("mcp-remote", resource, "python2", ca=protected.ca).run()
        assert all(r["ok"] for r in reports), explain(reports, protected.edge.process)
    # The second time the token of the first one served.
    assert len(idp.requests(before, path="/reg")) == 1 and len(idp.requests(before, path="/token")) == 1
    log("mcp-remote: registered, logged in, and was there again with its token")


def test_sessions_are_their_owners(fleet, protected, idp):
    """Another user with the id of a session is told that there is none; its owner goes on with another token."""
    resource = protected.route("/kit", fleet("python2"), issuer(idp))
    protected.start()
    tokens = idp.tokens("alice", resource)
    first, second, others = tokens["access_token"], idp.refreshed(tokens)["access_token"], idp.token("bob", resource)
    assert first != second

    def ask(token, method="POST", message=wire.tool("count", key="owner")):
        body = message if method == "POST" else None
        headers = {"authorization": f"Bearer {token}"}
        connection, answer = wire.begin(method, resource, body, protected.ca, session, **headers)
        stream = method == "GET" and answer.status == 200
        said = answer.status, {} if stream else answer.read()
        connection.close()
        return said

    session = wire.open_session(resource, protected.ca, authorization=f"Bearer {first}")
    assert ask(first)[0] == 200
    for method in ("POST", "GET", "DELETE"):
        assert ask(others, method)[0] == 404, method
    status, _, _ = wire.request("POST", resource, wire.tool("count", key="owner"), protected.ca, session)
    assert status == 401, "a session is no credential"
    status, body = ask(second)
    assert status == 200
    counted = json.loads(wire.message_of(body)["result"]["content"][0]["text"])
    assert counted["session"] == 2, f"two calls of this session: {counted}"
    assert ask(second, "GET")[0] == 200
    assert ask(second, "DELETE")[0] == 200


def test_old_sessions_are_their_owners(fleet, protected, idp):
    (replica,) = fleet("python2-sse", 1)
    resource = protected.route("/old", [replica], issuer(idp), rewrite="/")
    protected.start()
    alice = Events(resource + "/sse", replica, protected.ca, idp.token("alice", resource))
    assert alice.call("count", "k")[1]
    alice.credentials = {"authorization": f"Bearer {idp.token('bob', resource)}"}
    before = len(replica.requests())
    status, _, _ = alice.send(post(json.dumps(wire.tool("count", key="k"))))
    assert status == 404 and len(replica.requests()) == before


def test_servers_hear_of_no_token(fleet, protected, idp):
    """What they hear is what the route says: here the subject and a claim."""
    (replica,) = fleet("python2", 1)
    keys = {"identity": {"X-User": "subject", "X-Forwarded-Groups": "claims.groups"}}
    resources = [
        protected.route("/kit", [replica], issuer(idp), keys=keys),
        protected.route("/told", [replica], issuer(idp), keys={"forward_credentials": True}),
    ]
    protected.start()
    tokens = [idp.token("bob", resource) for resource in resources]
    callers = [Sessions(resource, replica, protected.ca, token) for resource, token in zip(resources, tokens)]
    answers = [caller.call("whoami", "k")[1]["content"][0]["text"] for caller in callers]
    heard, told_all = (json.loads(answer)["headers"] for answer in answers)
    assert heard["x-user"] == "bob" and "staff" in heard["x-forwarded-groups"], heard
    assert "authorization" not in heard and tokens[0] not in json.dumps(heard), heard
    assert told_all["authorization"] == f"Bearer {tokens[1]}", "a route may spell it out"
    # nor does anybody who reads the logs
    protected.edge.end()
    logged = json.dumps(protected.edge.access)
    assert "bob" in logged and not any(token in logged or token.split(".")[2] in logged for token in tokens)


def test_rules_by_claim(fleet, protected, idp):
    """One group may come in at all; of it only one person may delete."""
    (replica,) = fleet("python2", 1)
    keys = {
        "require": {"groups": ["staff"]},
        "tools": [{"deny": ["delete_*"], "when": {"subject": ["bob"]}}, {"allow": ["*"], "when": {"email_verified": ["true"]}}],
    }
    resource = protected.route("/kit", [replica], issuer(idp), keys=keys, tool_scopes={})
    protected.start()
    alice, bob = (Sessions(resource, replica, protected.ca, idp.token(user, resource)) for user in ("alice", "bob"))
    assert alice.call("delete_trace", "by-alice")[1] and alice.ran("by-alice")
    assert bob.call("delete_trace", "by-bob")[1] is None and not bob.ran("by-bob")
    assert bob.call("count", "by-bob")[1] is None, "no rule fits bob: refused"
    assert bob.ask("tools/list", {})["tools"] == [] and len(alice.ask("tools/list", {})["tools"]) == 9
    stranger = {"authorization": f"Bearer {idp.token('carol', resource)}"}
    status, _, body = wire.request("POST", resource, wire.call("initialize", wire.INITIALIZE), protected.ca, **stranger)
    assert status == 403, body
