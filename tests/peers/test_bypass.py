"""A tool that is forbidden does not run, however odd the request is; without the edge the same requests run it."""

import pytest
from attacks import ATTACKS, MODERN
from bypass import TOOL, Events, Modern, Sessions, Target
from harness import KINDS, log
from protected import issuer

# kind → (how it is spoken to, tricks); ts2 serves the revisions with `initialize` without sessions
SERVERS = {
    "ts1": (Sessions, ATTACKS),
    "ts2": (Target, ATTACKS),
    "python2": (Sessions, ATTACKS),
    "python1": (Sessions, ATTACKS),
    "ts1-sse": (Events, ATTACKS),
    "python2-sse": (Events, ATTACKS),
    "python1-sse": (Events, ATTACKS),
    "ts2 2026-07-28": (Modern, MODERN),
    "python2 2026-07-28": (Modern, MODERN),
}
RULES = {"deny": [{"deny": ["delete_*"]}, {"allow": ["*"]}], "allow": [{"allow": ["count"]}]}


def target(name, base, replica, **more):
    speak, _ = SERVERS[name]
    return speak(base + KINDS[name.split()[0]].path, replica, **more)


def tricks(name):
    return SERVERS[name][1]


@pytest.mark.parametrize("name", SERVERS)
def test_without_the_edge(name, fleet):
    """So that the test below can fail: what each server executes is written down beside each trick."""
    (replica,) = fleet(name.split()[0], 1)
    direct = target(name, replica.url, replica)
    ran = {trick for trick, (make, _) in tricks(name).items() if direct.attack(make)[1]}
    assert ran == {trick for trick, (_, servers) in tricks(name).items() if name.split()[0] in servers}
    log(f"{name}: {len(ran)} of {len(tricks(name))} tricks run a tool on the server itself")


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", SERVERS)
def test_behind_rules(name, rules, fleet, edge):
    (replica,) = fleet(name.split()[0], 1)
    running = edge([replica.url], start=False)
    running.routes[0] |= {"tools": RULES[rules]}
    running.start()
    nothing_runs(name, target(name, running.https, replica, ca=running.certificate.ca))


@pytest.mark.parametrize("name", SERVERS)
def test_behind_scopes(name, fleet, protected, idp):
    """The same for a tool that the caller's token is too narrow for; with a wide one it runs."""
    (replica,) = fleet(name.split()[0], 1)
    resource = protected.route("/kit", [replica], issuer(idp), rewrite="/")
    protected.start()
    narrow, wide = (idp.token("alice", resource, scope) for scope in ("mcp:read", "mcp:read mcp:admin"))
    nothing_runs(name, target(name, resource, replica, ca=protected.ca, token=narrow))
    assert target(name, resource, replica, ca=protected.ca, token=wide).attack(tricks(name)["as it is"][0])[1]


def nothing_runs(name, guarded):
    answers = {trick: guarded.attack(make) for trick, (make, _) in tricks(name).items()}
    ran = [trick for trick, (_, executed) in answers.items() if executed]
    assert not ran, f"{TOOL} ran: {ran}"
    # No trick may pass for a fault of the edge or of its backend: those are looked into at night.
    faults = {trick: status for trick, (status, _) in answers.items() if not 200 <= status < 500}
    assert not faults, faults
    log(f"{name}: none of {len(answers)} tricks runs it behind the edge")
