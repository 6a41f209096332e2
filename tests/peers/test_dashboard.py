"""Grafana's dashboard and Prometheus' rules on a real Prometheus, which scrapes a real edge that has all kinds of traffic:
every query returns numbers."""

import contextlib
import hashlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest
import wire
import yaml
from directory import free_port, wait
from harness import START_SECONDS, Process
from test_certificates import tool
from test_deploy import DEPLOY, RULES

DASHBOARD = json.loads((DEPLOY / "grafana/mcp-edge.json").read_text())
# What Grafana puts in, for a dashboard of everything.
VARIABLES = {"$__rate_interval": "10s", "$instance": ".*", "$route": ".*", "$upstream": ".*"}
JOB = "mcp-edge"
# What rules look at and this edge has not: it has no revocation list, no ACME.
LATER = {"mcp_edge_crl_expiry_timestamp_seconds", "mcp_edge_acme_failed"}


class Edge:
    """An edge whose routes and listeners give occasion to everything that is counted."""

    def __init__(self, binary, folder, certificate, replicas):
        self.folder, self.log = folder, folder / "access.log"
        subprocess.run([tool("htpasswd"), "-b", "-c", "-s", folder / ".htpasswd", "ann", "ann's"], check=True, capture_output=True)
        gone = f"http://127.0.0.1:{free_port()}"
        local = "127.0.0.1:0"
        self.key = "a key that nobody can guess, of some length"
        key = {"name": "prometheus", "sha256": hashlib.sha256(self.key.encode()).hexdigest()}
        self.config = {
            "state_dir": str(folder / "state"),
            "admin": {"address": local, "auth": [{"api_key": {"header": "Authorization", "keys": [key]}}]},
            "access_log": str(self.log),
            "audit": {"to": str(folder / "audit.log")},
            "listeners": [
                {"address": local},
                {"address": local, "tls": {"certificates": [certificate.files()]}},
                {"address": local, "deny": ["127.0.0.0/8"]},
            ],
            "upstreams": [
                {
                    "name": "live", "servers": [replica.url for replica in replicas], "circuit": {"in_flight": 100},
                    "health": {"mcp": {"path": "/mcp"}, "every": "1s"},
                },
                {"name": "half", "servers": [replicas[0].url, gone]},
                {"name": "gone", "servers": [gone.replace("127.0.0.1", "localhost")], "health": {"tcp": {}, "every": "1s"}},
            ],
            "routes": [
                {"path": "/", "upstream": "live", "auth": ["anonymous"]},
                {"path": "/half", "rewrite": "/mcp", "upstream": "half", "auth": ["anonymous"]},
                {"path": "/gone", "upstream": "gone", "auth": ["anonymous"]},
                {"path": "/locked", "rewrite": "/mcp", "upstream": "live", "auth": [{"basic": {"file": ".htpasswd"}}]},
                {
                    "path": "/few", "rewrite": "/mcp", "upstream": "live", "auth": ["anonymous"],
                    "limits": [{"key": "address", "rate": "1/s burst 1"}],
                },
            ],
        }
        self.file = folder / "mcp-edge.yaml"
        self.write(self.config)
        self.process = Process([binary, "run", "--config", str(self.file)], name="mcp-edge")
        self.process.wait_line("stderr", lambda line: line.strip() == "mcp-edge: ready", START_SECONDS)
        said = [line for line in self.process.lines["stderr"] if " on http" in line]
        self.plain, self.tls, self.denied, admin = [line.split()[-1] for line in said]
        self.admin = admin.split("//")[1].rstrip("/")

    def write(self, config):
        self.file.write_text(json.dumps(config))  # JSON is YAML


class Load:
    """One round of everything, over and over, on a thread, until the end."""

    def __init__(self, edge):
        self.edge, self.over, self.rounds, self.problem = edge, threading.Event(), 0, None
        self.streams = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.over.is_set():
                self.round()
                self.rounds += 1
        except Exception as problem:  # told by the test
            self.problem = problem

    def round(self):
        edge = self.edge
        url = edge.plain + "/mcp"
        session = wire.open_session(url)
        for message in (wire.call("ping"), wire.call("tools/list"), wire.tool("whoami"), wire.call("no/such")):
            wire.request("POST", url, message, session=session)
        # one stream that is open all the time, and one that ends in each round
        self.streams.append(wire.Stream(url, session=session))
        if len(self.streams) > 1:
            self.streams.pop(0).abort()
        with contextlib.suppress(AssertionError):
            wire.open_session(edge.plain + "/half")
        forged, _, _ = wire.request("POST", url, wire.call("ping"), session="forged")
        assert forged == 404
        gone, _, _ = wire.request("POST", edge.plain + "/gone", wire.call("ping"))
        assert gone in (502, 503)
        for password, wanted in (("Basic YW5uOmFubidz", 200), ("Basic YW5uOng=", 401)):
            status, _, _ = wire.request("POST", edge.plain + "/locked", wire.call("initialize", wire.INITIALIZE), authorization=password)
            # after ten wrong ones in a minute nobody is heard
            assert status in (wanted, 429), (password, status)
        limited = [wire.request("POST", edge.plain + "/few", wire.call("initialize", wire.INITIALIZE))[0] for _ in range(3)]
        assert 429 in limited, limited
        for address in (edge.tls, edge.denied):
            with contextlib.suppress(OSError), socket.create_connection(address_of(address), 5) as tcp:
                tcp.sendall(b"GET / HTTP/1.1\r\n\r\n")
                tcp.recv(100)

    def end(self):
        self.over.set()
        self.thread.join(30)
        for stream in self.streams:
            stream.abort()


def address_of(url):
    parts = urllib.parse.urlsplit(url)
    return parts.hostname, parts.port


class Prometheus:
    def __init__(self, folder, edge):
        self.port = free_port()
        # as in scrape-kubernetes.yaml
        scrape = {"job_name": JOB, "authorization": {"credentials": edge.key}, "static_configs": [{"targets": [edge.admin]}]}
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [scrape],
        }
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        command = [tool("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        self.process = Process([*command, f"--web.listen-address=127.0.0.1:{self.port}"], name="prometheus")

    def ask(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{path} {query}: {refused.read().decode()}") from None

    def numbers(self, query):
        """The values that a query gives now; what is no number (0/0) is none."""
        found = [float(sample["value"][1]) for sample in self.ask("query", query=query)["result"]]
        return [value for value in found if not math.isnan(value)]


@pytest.fixture
def scene(binary, certificate, fleet, tmp_path):
    edge = Edge(binary, tmp_path, certificate, fleet("rmcp", 2))
    load, prometheus = Load(edge), Prometheus(tmp_path, edge)
    yield edge, load, prometheus
    load.end()
    prometheus.process.end()
    edge.process.end()


def queries():
    """(title, query) of every target, as Grafana would send it."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            assert "$" not in query, query
            yield panel["title"], query


def test_every_panel_and_every_rule_has_data(scene):
    edge, load, prometheus = scene
    asked = list(queries())
    assert len(asked) > 30

    def told():
        with contextlib.suppress(OSError, AssertionError):  # it answers 503 while it starts
            return prometheus.numbers(f'up{{job="{JOB}"}}') == [1.0]

    wait("Prometheus scrapes the edge", told, START_SECONDS)
    deadline, empty = time.monotonic() + 90, asked
    while empty and time.monotonic() < deadline:
        assert load.problem is None, f"round {load.rounds}: {load.problem!r}\n{edge.process.tail()}"
        # all at one time, so that a panel that had numbers once is not enough
        empty = [(title, query) for title, query in asked if not prometheus.numbers(query)]
        if empty:
            os.kill(edge.process.pid, signal.SIGHUP)
            time.sleep(0.5)
    assert not empty, "without data after 90 s:\n" + "\n".join(f"{title}: {query}" for title, query in empty)

    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()
            assert prometheus.ask(f"label/{label}/values", **{"match[]": metric}), variable["name"]

    # what the rules look at is there, too, and none fails
    def rules():
        return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]

    # a route whose server is gone is noticed; it takes thirty requests
    wait("an alert", lambda: {rule["name"]: rule["state"] for rule in rules()}["McpEdgeErrors"] != "inactive", 60)
    assert len(rules()) > 10 and all(rule["health"] == "ok" for rule in rules()), rules()
    known = set(prometheus.ask("label/__name__/values"))
    named = set(re.findall(r"\b(?:mcp_edge|process)_\w+", RULES.read_text()))
    assert named - known <= LATER
