"""Starlette answers /mcp/ with 307 and an absolute Location made from the Host it saw: the backend's own."""

import urllib.parse

import pytest
import wire
from harness import Client, explain, log


@pytest.mark.parametrize("path,rewrite", [("/", None), ("/team/tools", "/"), ("/team/tools", "/mcp")])
def test_location_is_the_public_one(path, rewrite, fleet, edge):
    running = edge([replica.url for replica in fleet("python2")], path=path, rewrite=rewrite)
    public = {None: "/mcp", "/": "/team/tools/mcp", "/mcp": "/team/tools"}[rewrite]
    for base, ca in ((running.http, None), (running.https, running.certificate.ca)):
        status, headers, _ = wire.request("POST", base + public + "/", wire.call("initialize", wire.INITIALIZE), ca)
        assert status == 307
        assert urllib.parse.urljoin(base + public + "/", headers["location"]) == base + public, headers["location"]
        status, _, _ = wire.request("POST", base + public, wire.call("initialize", wire.INITIALIZE), ca)
        assert status == 200
    log(f"{public}/ leads to {public}")


@pytest.mark.parametrize("client", ["py1", "py2", "ts1", "ts2"])
def test_clients_follow(client, fleet, edge):
    """They follow a redirect only within the origin that the user gave them."""
    running = edge([replica.url for replica in fleet("python2")], path="/team/tools", rewrite="/")
    url = running.https + "/team/tools/mcp/"
    reports = Client(client, url, "python2", ca=running.certificate.ca, sessions=2).run()
    assert all(r["ok"] for r in reports), explain(reports, running)
    log(f"{client} with a slash too many")
