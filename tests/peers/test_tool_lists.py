"""What callers may not use, they do not see: lists as JSON and as streams, by pages, in all eras and transports."""

import json

import pytest
import wire
from attacks import post
from bypass import Events, Modern, Sessions, Target
from harness import KINDS, Client, explain, log

HIDDEN = {"delete_trace", "slow", "ack"}  # together a whole page of the servers with pages
TOOLS = {"ack", "big", "count", "delete_trace", "echo", "silent", "slow", "touch", "whoami"}
SERVERS = {
    "ts1": Sessions,
    "ts1-pages": Sessions,
    "ts1-pages-json": Sessions,
    "ts2": Target,
    "ts2-pages": Target,
    "python1": Sessions,
    "python2": Sessions,
    "python2-json": Sessions,
    "python2-stateless": Target,
    "ts1-sse": Events,
    "python1-sse": Events,
    "python2-sse": Events,
    "ts2 2026-07-28": Modern,
    "ts2-pages 2026-07-28": Modern,
    "python2 2026-07-28": Modern,
}


def guarded(edge, replica):
    running = edge([replica.url], start=False)
    running.routes[0] |= {"tools": [{"deny": sorted(HIDDEN)}, {"allow": ["*"]}]}
    return running.start()


def pages(target):
    """The result of each page, from the first one on."""
    results, cursor = [], None
    while True:
        results.append(target.ask("tools/list", {} if cursor is None else {"cursor": cursor}))
        cursor = results[-1].get("nextCursor")
        if cursor is None:
            return results


@pytest.mark.parametrize("name", SERVERS)
def test_lists(name, fleet, edge):
    kind = name.split()[0]
    (replica,) = fleet(kind, 1)
    running = guarded(edge, replica)
    direct = pages(SERVERS[name](replica.url + KINDS[kind].path, replica))
    behind = pages(SERVERS[name](running.https + KINDS[kind].path, replica, ca=running.certificate.ca))
    assert {tool["name"] for page in direct for tool in page["tools"]} == TOOLS
    assert len(direct) == (3 if "pages" in kind else 1)
    left = [{**page, "tools": [tool for tool in page["tools"] if tool["name"] not in HIDDEN]} for page in direct]
    assert [without_cache(page) for page in behind] == [without_cache(page) for page in left]
    assert not any("pages" in kind and page["tools"] == [] and "nextCursor" not in page for page in behind)
    log(f"{name}: {len(behind)} page(s), {sum(len(page['tools']) for page in behind)} of {len(TOOLS)} tools")


def without_cache(page):
    return {name: value for name, value in page.items() if name not in ("ttlMs", "cacheScope")}


def test_a_filtered_list_is_nobody_elses(fleet, edge):
    """The server of pages says that its list may be kept for everybody; what a caller may see is his own."""
    (replica,) = fleet("ts2-pages", 1)
    running = guarded(edge, replica)
    direct = Modern(replica.url + "/mcp", replica).ask("tools/list", {})
    assert direct["cacheScope"] == "public"
    behind = Modern(running.https + "/mcp", replica, ca=running.certificate.ca).ask("tools/list", {})
    assert behind["cacheScope"] == "private", behind


PAIRS = [("py1", "python2"), ("py2", "ts1"), ("ts1", "python2"), ("ts2", "ts1-sse"), ("py1", "python1-sse")]


@pytest.mark.parametrize("client,kind", PAIRS)
def test_clients_live_with_it(client, kind, fleet, edge):
    """A rule that takes away nothing that they use: streams, progress and messages pass as ever."""
    (replica,) = fleet(kind, 1)
    running = edge([replica.url], start=False)
    running.routes[0] |= {"tools": [{"deny": ["delete_*"]}, {"allow": ["*"]}]}
    running.start()
    reports = Client(client, running.https + KINDS[kind].path, kind, ca=running.certificate.ca, sessions=2).run()
    assert all(r["ok"] for r in reports), explain(reports, running)


@pytest.mark.parametrize("name", ["ts1", "python2", "ts2 2026-07-28", "python1-sse"])
def test_a_refusal_names_its_request(name, fleet, edge):
    """A client must find out which of its requests was refused, and go on."""
    kind = name.split()[0]
    (replica,) = fleet(kind, 1)
    running = guarded(edge, replica)
    target = SERVERS[name](running.https + KINDS[kind].path, replica, ca=running.certificate.ca)
    message = target.message("delete_trace", "k")
    status, _, body = target.send(post(json.dumps(message)), target.of("delete_trace"))
    answer = wire.message_of(body)
    assert status < 500 and answer["id"] == message["id"] and answer["error"]["code"] < 0, f"{status} {body[:300]}"
    assert not target.ran("k")
    assert target.call("count", "k")[1], "the session went on"
    log(f"{name}: {status} {answer['error']}")
