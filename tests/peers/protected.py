"""In: providers and replicas. Out: an edge whose routes are protected resources, at an origin that is known beforehand; and
SDK clients that know nothing but a URL."""

import json

from harness import HERE, NODE, PYTHON1, PYTHON2, Process
from providers import EDGE, environment, free_port

SCOPES = {"scopes": ["mcp:read"], "tool_scopes": {"delete_*": ["mcp:admin"]}}


class Protected:
    """Routes with OAuth, then start(). `edge` is the fixture that starts edges."""

    def __init__(self, edge):
        self.edge = edge([], start=False)
        self.ca = self.edge.certificate.ca
        port = free_port()
        self.origin = f"https://localhost:{port}"
        self.edge.addresses[1] = f"127.0.0.1:{port}"
        self.edge.upstreams, self.edge.routes = [], []

    def route(self, path, replicas, *issuers, rewrite="/mcp", keys=None, **oauth):
        """A route; its public URL is the resource."""
        name = f"upstream-{len(self.edge.upstreams)}"
        self.edge.upstreams.append({"name": name, "servers": [replica.url for replica in replicas]})
        route = {"path": path, "upstream": name, "public_url": self.origin + path}
        route |= {"rewrite": rewrite} if rewrite else {}
        self.edge.routes.append(route | {"auth": [{"oauth": {"issuers": list(issuers), **SCOPES, **oauth}}]} | (keys or {}))
        return self.origin + path

    def start(self):
        with environment(PEERS_EDGE_SECRET=EDGE["client_secret"]):
            self.edge.start()
        return self


def issuer(provider, **more):
    return {"issuer": provider.issuer, "ca": provider.ca, **more}


def introspecting(provider, **more):
    """An issuer whose tokens say nothing by themselves."""
    client = {"client_id": EDGE["client_id"], "client_secret": "${env:PEERS_EDGE_SECRET}"}
    url = provider.metadata()["introspection_endpoint"]
    audiences = {"audiences": more.pop("audiences")} if "audiences" in more else {}
    return issuer(provider, introspection={"url": url, **client, **more}, **audiences)


CLIENTS = {
    "py1": [PYTHON1, "-W", "ignore", str(HERE / "clients/py_oauth.py")],
    "py2": [PYTHON2, "-W", "ignore", str(HERE / "clients/py_oauth.py")],
    "ts1": [NODE, str(HERE / "clients/ts_oauth.mjs")],
    "ts2": [NODE, str(HERE / "clients/ts_oauth.mjs")],
    "ts-2025-03-26": [NODE, str(HERE / "clients/ts_oauth.mjs")],
}


def visit(who, url, ca, steps="list,count", user="alice", **flags):
    """One session of a client that has nothing but the URL: its report (clients/py_oauth.py)."""
    command = [*CLIENTS[who], url, "--steps", steps]
    for name, value in flags.items():
        command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [value])
    env = {"SDK": who[2:].lstrip("-"), "SSL_CERT_FILE": ca, "PEERS_USER": user}
    env |= {"BROWSER_PROGRAM": json.dumps([PYTHON2, str(HERE / "clients/browser.py")]), "NODE_EXTRA_CA_CERTS": ca}
    command += ["--ca", ca, "--user", user] if who.startswith("py") else []
    process = Process(command, env, name=f"client {who}")
    try:
        process.child.wait(90)
    finally:
        process.end()
    reports = [json.loads(line) for line in process.lines["stdout"] if line.startswith('{"session"')]
    assert len(reports) == 1, f"no report\n{process.tail()}"
    return reports[0]


def told(report, *processes):
    """What a failed visit was like, without the tokens."""
    kept = {name: value for name, value in report.items() if name not in ("tokens", "tools")}
    return "\n".join([json.dumps(kept, indent=1), *[process.tail() for process in processes]])
