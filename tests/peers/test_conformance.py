"""The conformance suite through the edge with two replicas: the same passes as direct with one."""

import collections
import json
import re
import subprocess

import pytest
from harness import CONFORMANCE, KINDS, NODE, Replica, log

EXPECTED = {"2025-11-25": (84, 0), "2026-07-28": (169, 25)}


@pytest.fixture(scope="module")
def share():
    """How many sessions each replica opened, over the whole module."""
    return collections.Counter()


@pytest.mark.parametrize("revision", EXPECTED)
def test_same_passes_as_direct(revision, fleet, edge, binary, tmp_path, share):
    alone = Replica("conformance", tmp_path / "alone.jsonl", binary)
    direct = suite(alone.url + "/mcp", revision, tmp_path / "direct")
    alone.process.end()
    assert totals(direct) == EXPECTED[revision], f"the backend itself: {failures(direct)}"
    assert all(scenario.startswith("tasks-") for scenario, _ in failures(direct)), failures(direct)

    replicas = fleet("conformance")
    before = [len(replica.requests()) for replica in replicas]
    running = edge([replica.url for replica in replicas])
    through = suite(running.http + "/mcp", revision, tmp_path / "edge")
    missing = passes(direct) - passes(through)
    assert not missing, f"passed direct, not through the edge: {dict(missing)}\n{why(through, missing)}"
    assert totals(through) == EXPECTED[revision], failures(through)
    for number, (replica, count) in enumerate(zip(replicas, before)):
        share[number] += sum(1 for line in replica.requests(count) if line["created"])
    log(f"conformance {revision}: direct {totals(direct)}, edge {totals(through)}, sessions so far {dict(share)}")


def test_both_replicas_had_their_share(share):
    """Runs after the two above: at least 30 % of all sessions on each replica, counted there."""
    total = sum(share.values())
    assert total >= 30, f"{total} sessions"
    assert min(share[0], share[1]) >= 0.3 * total, dict(share)


def suite(url, revision, folder):
    """Runs the suite; returns its checks by scenario."""
    assert KINDS["conformance"].path in url
    # The scenario on DNS rebinding wants a URL that says localhost.
    url = url.replace("127.0.0.1", "localhost")
    command = [NODE, CONFORMANCE, "server", "--url", url, "--requirements", revision, "-o", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    files = list(folder.glob("*/checks.json"))
    assert len(files) > 30, f"the suite did not run: {ended.stdout[-2000:]} {ended.stderr[-2000:]}"
    checks = {}
    for file in files:
        scenario = re.sub(r"-\d{4}-\d\d-\d\dT.*$", "", file.parent.name).removeprefix("server-")
        checks[scenario] = json.loads(file.read_text())
    return checks


def totals(checks):
    told = collections.Counter(check["status"] for some in checks.values() for check in some)
    return told["SUCCESS"], told["FAILURE"]


def passes(checks):
    return collections.Counter(
        (scenario, check["id"], check["name"])
        for scenario, some in checks.items()
        for check in some
        if check["status"] == "SUCCESS"
    )


def failures(checks):
    return [(s, c["id"]) for s, some in checks.items() for c in some if c["status"] == "FAILURE"]


def why(checks, missing):
    """The suite's own words on the checks that are missing."""
    return "\n".join(
        f"{scenario} {check['id']}: {check['status']} {check.get('errorMessage')}"
        for scenario, some in checks.items()
        for check in some
        if (scenario, check["id"], check["name"]) in missing
    )
