"""Tokens of two providers: opaque ones that are introspected, revoked, and keys that change; outages of the provider."""

import json
import signal
import time

import pytest
import wire
from bypass import Sessions
from harness import log
from protected import introspecting, issuer, told, visit
from providers import EDGE, claims, head

SECONDS = 20
INTROSPECTION = "/token/introspection"


def ask(resource, ca, token):
    """Status and headers of one small call with this token."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    status, answered, _ = wire.request("POST", resource, wire.call("initialize", wire.INITIALIZE), ca, **headers)
    return status, answered


def until(wanted, look):
    """Looks again and again until it is as wanted; the time is a bound, not a measure."""
    deadline = time.monotonic() + SECONDS
    while (seen := look()) != wanted:
        assert time.monotonic() < deadline, f"still {seen} after {SECONDS} s, not {wanted}"
        time.sleep(0.05)


@pytest.mark.parametrize("client", ["py1", "py2", "ts1", "ts2"])
def test_clients_with_opaque_tokens(client, fleet, protected, idp):
    resource = protected.route("/opaque", fleet("python2"), introspecting(idp))
    protected.start()
    before = len(idp.requests())
    flags = {"no_refresh": True} if client == "ts1" else {}
    report = visit(client, resource, protected.ca, "list,count,admin,count", **flags)
    assert report["ok"], told(report, protected.edge.process)
    assert not any("." in token for token in report["tokens"]), "these are JWTs"
    asked = len(idp.requests(before, path=INTROSPECTION, status=200))
    assert asked == len(report["tokens"]) == 2, f"{asked} introspections of {len(report['tokens'])} tokens"


def test_one_question_for_many_requests(fleet, protected, idp):
    """Good tokens and bad ones are remembered for a while, each by itself."""
    resource = protected.route("/opaque", fleet("python2"), introspecting(idp))
    protected.start()
    for token, status in ((idp.token("alice", resource), 200), ("no-such-token", 401), (idp.token("bob", resource), 200)):
        before = len(idp.requests())
        assert [ask(resource, protected.ca, token)[0] for _ in range(5)] == [status] * 5
        assert len(idp.requests(before, path=INTROSPECTION)) == 1


def test_tokens_for_others(fleet, protected, idp):
    """Active, but for another resource, or with too little scope."""
    resource = protected.route("/opaque", fleet("python2"), introspecting(idp))
    protected.start()
    others = idp.token("alice", resource + "-other")
    assert idp.introspect(others)[1]["active"]
    status, headers = ask(resource, protected.ca, others)
    assert status == 401 and 'error="invalid_token"' in headers["www-authenticate"], headers
    status, headers = ask(resource, protected.ca, idp.token("alice", resource, "mcp:write"))
    assert status == 403 and 'error="insufficient_scope"' in headers["www-authenticate"], headers


def test_tokens_that_the_provider_does_not_introspect(fleet, protected, idp):
    """oidc-provider answers 400 unsupported_token_type for its own JWTs: that is about the token, no outage."""
    resource = protected.route("/opaque", fleet("python2"), introspecting(idp))
    protected.start()
    jwt = idp.token("alice", protected.origin + "/kit")
    assert idp.introspect(jwt) == (400, {**idp.introspect(jwt)[1], "error": "unsupported_token_type"})
    assert ask(resource, protected.ca, jwt)[0] == 401


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"])
def test_algorithms(algorithm, fleet, protected, idp):
    """All that a provider may sign with, by default; and one alone, where the config names it."""
    anyone = protected.route(f"/{algorithm}", fleet("python2"), issuer(idp))
    name = "EdDSA" if algorithm == "Ed25519" else algorithm  # RFC 9864 renamed it
    only = protected.route(f"/only/{algorithm}", fleet("python2"), issuer(idp, algorithms=[name]))
    other = "RS256" if algorithm != "RS256" else "ES384"
    never = protected.route(f"/never/{algorithm}", fleet("python2"), issuer(idp, algorithms=[other]))
    protected.start()
    for resource, status in ((anyone, 200), (only, 200), (never, 401)):
        token = idp.token("alice", resource)
        assert head(token)["alg"] == algorithm and head(token)["typ"] == "at+jwt"
        assert ask(resource, protected.ca, token)[0] == status, resource


def test_audiences(fleet, protected, idp):
    """The resource exactly, but for one slash at its end."""
    resource = protected.route("/kit", fleet("python2"), issuer(idp))
    protected.start()
    for there, status in (("", 200), ("/", 200), ("//", 401), ("/mcp", 401), ("?x", 401), ("X", 401)):
        assert ask(resource, protected.ca, idp.token("alice", resource + there))[0] == status, there


def test_revoked_tokens(fleet, protected, idp):
    """A revocation takes effect when the cached answer is too old, and at once for who comes first afterwards."""
    resource = protected.route("/opaque", fleet("python2"), introspecting(idp, cache="2s"), principal="client_id")
    protected.start()
    token, unused = idp.program_token(resource, "mcp:read"), idp.program_token(resource, "mcp:read")
    assert ask(resource, protected.ca, token)[0] == 200
    idp.revoke(token)
    idp.revoke(unused)
    assert ask(resource, protected.ca, unused)[0] == 401
    until(401, lambda: ask(resource, protected.ca, token)[0])


def test_expired_tokens(fleet, protected, idp):
    """A cached answer does not outlive the token."""
    resource = protected.route("/opaque-short", fleet("python2"), {**introspecting(idp, cache="1h"), "leeway": "0s"})
    protected.start()
    token = idp.token("alice", resource)
    assert ask(resource, protected.ca, token)[0] == 200
    until(401, lambda: ask(resource, protected.ca, token)[0])


def test_streams_end_with_their_token(fleet, protected, idp):
    """One route lets streams live, the other ends them a second after their token."""
    (replica,) = fleet("python2", 1)
    routes = [(f"/short-{grace}", grace) for grace in ("off", "1s")]
    resources = [protected.route(path, [replica], issuer(idp), stream_grace=grace) for path, grace in routes]
    protected.start()
    streams, expires = [], 0
    for resource in resources:
        token = idp.token("alice", resource)
        while claims(token)["exp"] <= expires:  # the second one ends later, so that the first one had its time
            token = idp.token("alice", resource)
        expires = claims(token)["exp"]
        bearer = {"authorization": f"Bearer {token}"}
        session = wire.open_session(resource, protected.ca, **bearer)
        streams.append(wire.Stream(resource, protected.ca, session, seconds=60, **bearer))
        assert streams[-1].status == 200
    lives, ends = streams
    with ends.changed:
        assert ends.changed.wait_for(lambda: ends.ended is not None, SECONDS), "the stream outlived its token"
    assert time.time() >= expires, "it ended too early"
    assert lives.ended is None
    lives.abort()


def test_a_provider_that_is_down(fleet, protected, own_idp):
    """Nobody is told that his token is bad when nobody could look at it."""
    both = protected.route("/opaque", fleet("python2"), introspecting(own_idp))
    jwt = protected.route("/kit", fleet("python1"), issuer(own_idp))
    never = protected.route("/RS256", fleet("python1"), issuer(own_idp))
    protected.start()
    tokens = {resource: own_idp.token("alice", resource) for resource in (both, jwt)}
    unseen = {resource: own_idp.token("bob", resource) for resource in (both, jwt, never)}
    for resource, token in tokens.items():
        assert ask(resource, protected.ca, token)[0] == 200
    own_idp.end()
    for resource, token in tokens.items():
        assert ask(resource, protected.ca, token)[0] == 200, "known tokens go on"
    assert ask(jwt, protected.ca, unseen[jwt])[0] == 200, "the keys are known"
    status, headers = ask(both, protected.ca, unseen[both])
    assert status == 503 and "www-authenticate" not in headers, (status, headers)
    # Anew, the edge has no keys, and still says so.
    protected.edge.end()
    protected.start()
    for resource, token in unseen.items():
        status, headers = ask(resource, protected.ca, token)
        assert status == 503 and "www-authenticate" not in headers, (resource, status, headers)
    status, headers = ask(jwt, protected.ca, None)
    assert status == 401 and "resource_metadata" in headers["www-authenticate"], "who has no token is told where to get one"
    own_idp.start()
    until(200, lambda: ask(jwt, protected.ca, unseen[jwt])[0])


def test_a_session_through_a_crash_of_the_edge(fleet, protected, idp):
    """Whose session it is, the edge does not forget; the keys it fetches again."""
    replicas = fleet("python2")
    resource = protected.route("/kit", replicas, issuer(idp))
    protected.start()
    tokens = idp.tokens("alice", resource)
    alice = Sessions(resource, replicas[0], protected.ca, tokens["access_token"])
    assert alice.call("count", "crash")[1]
    protected.edge.end(signal.SIGKILL)
    protected.start()
    alice.credentials = {"authorization": f"Bearer {idp.refreshed(tokens)['access_token']}"}
    status, result = alice.call("count", "crash")
    assert status == 200 and json.loads(result["content"][0]["text"])["session"] == 2
    alice.credentials = {"authorization": f"Bearer {idp.token('bob', resource)}"}
    assert alice.call("count", "crash")[0] == 404


def test_other_keys(fleet, protected, own_idp):
    """The provider comes back with other keys: its new tokens are good, those of the old keys no longer."""
    resources = [protected.route(path, fleet("python1"), issuer(own_idp)) for path in ("/kit", "/RS256")]
    protected.start()
    for resource in resources:
        old = own_idp.token("alice", resource)
        target = Sessions(resource, fleet("python1")[0], protected.ca, old)
        assert target.call("count", "keys")[0] == 200
        own_idp.end()
        own_idp.start(new_keys=True)
        new = own_idp.token("alice", resource)
        until(200, lambda: ask(resource, protected.ca, new)[0])  # keys are asked for once in ten seconds at most
        status, headers = ask(resource, protected.ca, old)
        assert status == 401 and 'error="invalid_token"' in headers["www-authenticate"], (status, headers)
        target.credentials = {"authorization": f"Bearer {new}"}
        assert target.call("count", "keys")[0] == 200, "the session is the same person's"


def test_canailles_people(fleet, protected, canaille):
    """Their tokens look like JWTs, but only the introspection knows their scope; they are for the clients that may ask."""
    (replica,) = fleet("python2", 1)
    opaque = introspecting(canaille, audiences=[EDGE["client_id"]], cache="2s")
    resource = protected.route("/kit", [replica], opaque)
    others = protected.route("/others", [replica], introspecting(canaille))
    protected.start()
    token, admins = canaille.token("alice"), canaille.token("bob", "openid mcp:read mcp:admin")
    assert token.count(".") == 2 and "scope" not in claims(token) and token != admins
    alice = Sessions(resource, replica, protected.ca, token)
    assert alice.call("count", "k")[1] and alice.call("delete_trace", "not-alice")[0] == 403
    assert not alice.ran("not-alice")
    bob = Sessions(resource, replica, protected.ca, admins)
    assert bob.call("delete_trace", "but-bob")[1] and bob.ran("but-bob")
    assert ask(others, protected.ca, token)[0] == 401, "its audience is not the resource"
    canaille.revoke(token)
    until(401, lambda: ask(resource, protected.ca, token)[0])
    assert ask(resource, protected.ca, admins)[0] == 200


def test_canailles_programs(fleet, protected, canaille):
    """Opaque tokens of nobody in person; the times that the introspection gives are floats."""
    opaque = introspecting(canaille, audiences=[EDGE["client_id"]], cache="2s")
    resource = protected.route("/programs", fleet("python2"), opaque, principal="client_id")
    people = protected.route("/people", fleet("python2"), opaque)
    protected.start()
    token = canaille.program_token(resource, "mcp:read")
    answer = canaille.introspect(token)[1]
    assert "." not in token and isinstance(answer["exp"], float) and "sub" not in answer, answer
    assert ask(resource, protected.ca, token)[0] == 200
    assert ask(people, protected.ca, token)[0] in (401, 403), "who names callers by `sub` cannot name this one"
    canaille.revoke(token)
    until(401, lambda: ask(resource, protected.ca, token)[0])


def test_two_providers_at_one_route(fleet, protected, idp, canaille):
    """JWTs of one are checked with its keys, tokens of the other by asking it; one name at both is two people."""
    (replica,) = fleet("python2", 1)
    opaque = introspecting(canaille, audiences=[EDGE["client_id"]])
    resource = protected.route("/kit", [replica], issuer(idp), opaque)
    protected.start()
    ours = Sessions(resource, replica, protected.ca, idp.token("alice", resource))
    theirs = Sessions(resource, replica, protected.ca, canaille.token("alice"))
    assert ours.call("count", "two")[1] and theirs.call("count", "two")[1]
    ours.credentials = theirs.credentials
    assert ours.call("count", "two")[0] == 404, "alice of one provider in a session of alice of the other"
    assert ask(resource, protected.ca, "opaque-nonsense")[0] == 401
    log("JWTs of oidc-provider and introspected tokens of Canaille at one route")
