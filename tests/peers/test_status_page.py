"""The status page in a real Chromium: what it shows under load, on a wide and a narrow screen, light and dark; hostile names;
what its policy refuses; and that it says so when the edge is gone and when it is back.

PEERS_SHOTS names a folder for the screenshots; they are taken after a minute and a half then, so that lines have a shape.
"""

import os
import pathlib
import signal

import pytest
import status_page
import wire
from directory import wait
from status_page import NASTY, PASSWORD

SIZES = [("wide", 1280, 900), ("narrow", 360, 740)]


@pytest.fixture(scope="module")
def chromium():
    assert os.access(os.environ.get("CHROMIUM", "/usr/bin/chromium"), os.X_OK), "Debian's package chromium: see tests/needs.sh"


@pytest.fixture
def browser(chromium):
    started = []

    def start(**env):
        started.append(status_page.Browser(**env))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def loaded(edge, fleet):
    """An edge that works, and is asked for what it refuses, too."""
    running = status_page.watched_edge(edge, fleet)
    load = status_page.Load(running.http)
    yield running, load
    load.end()
    running.held.close()


def pages(browser, url, **more):
    answer = browser.do("open", url=url, **more)
    assert answer["status"] == 200, answer
    return answer


def test_the_page_shows_what_happens(browser, loaded, tmp_path):
    running, _ = loaded
    shots, points = (pathlib.Path(os.environ["PEERS_SHOTS"]), 45) if "PEERS_SHOTS" in os.environ else (tmp_path, 2)
    page = browser()
    headers = pages(page, running.admin)["headers"]
    assert "default-src 'none'" in headers["content-security-policy"]
    page.do("wait", texts=["authz.tool", "forward.no_backend", "auth.none", "route.origin", "session.unknown"])

    def drawn():
        charts = page.do("shot", file=str(tmp_path / "first.png"), width=1280, height=900, dark=False)["charts"]
        return charts and all(max(chart["points"], default=0) >= points for chart in charts)

    # a line needs two intervals, of two seconds each
    wait("lines are drawn", drawn, 30 + 2 * points)
    for name, width, height in SIZES:
        for dark in (False, True):
            file = shots / f"{name}-{'dark' if dark else 'light'}.png"
            seen = page.do("shot", file=str(file), width=width, height=height, dark=dark)
            assert seen["wide"] <= seen["width"] == width, f"{name}: wider than the screen: {seen['cut']}"
            assert seen["cut"] == [], f"{name}: {seen['cut']}"
            assert file.stat().st_size > 20_000
    # states are words
    assert "ready" in seen["state"].lower(), seen["state"]
    assert seen["title"].endswith("mcp-edge") and "ready" in seen["title"].lower()
    words = ("up", "down", "ejected", "failing")
    assert len(seen["replicas"]) == 3 and all(any(word in row.split("\n") for word in words) for row in seen["replicas"]), seen["replicas"]
    # nobody listens there, and it has no health checks
    assert ["failing" in row and "connect" in row for row in seen["replicas"]] == [False, False, True]
    assert seen["upstreams"] == ["replicas", "reports"]
    assert any(row.startswith("*/guarded") for row in seen["routes"]), seen["routes"]
    assert any("localhost" in row for row in seen["certificates"])
    # charts have axes, units and a sentence for who cannot see them
    assert [chart["label"].split(",")[0] for chart in seen["charts"]] == ["Traffic", "First byte", "Open", "Refusals"]
    for chart in seen["charts"]:
        assert sum(":" in text for text in chart["axis"]) >= 2 and "0" in [text.split()[0] for text in chart["axis"]], chart
        assert max(chart["points"], default=0) >= 2, f"no line was drawn: {chart}"
    assert any(text.endswith(" ms") or text.endswith(" s") for text in seen["charts"][1]["axis"]), seen["charts"][1]
    assert "2xx" in seen["charts"][0]["label"] and "/s" in seen["charts"][0]["label"]
    streams = next(tile for tile in seen["tiles"] if tile.startswith("Streams"))
    assert streams.split()[1] == "4", streams
    page.do("shot", width=1280, height=900, dark=False)
    assert "UTC" in page.do("hover", chart=0), "the pointer asks for the numbers of a moment"
    everything = page.do("seen")
    assert everything["console"] == [] and everything["errors"] == [], everything
    foreign = [url for url in everything["requests"] if not url.startswith(running.admin + "/")]
    assert foreign == [], foreign


def test_hostile_names_are_text(browser, loaded):
    running, _ = loaded
    page = browser()
    # of a real refusal; and what no config takes, put into the answer on its way
    page.do("poison", name=NASTY)
    pages(page, running.admin)
    page.do("wait", texts=["authz.tool"])
    seen = page.do("look")
    shown = "<img src=x onerror=\"globalThis.injected=1\"></td><script>injected=2</script>\\u{202e}gnp.exe\\u{2028}{{7*7}}"
    for part in ("upstreams", "replicas", "routes", "refusals", "certificates", "alarms"):
        assert any(shown in row for row in seen[part]), f"{part}: {seen[part]}"
    assert seen["foreign"] == 0 and seen["injected"] is None
    assert page.do("shot", width=360, height=740, dark=False)["cut"] == []
    everything = page.do("seen")
    assert everything["dialogs"] == [] and everything["errors"] == [] and everything["console"] == [], everything


def test_the_policy_refuses_what_the_page_never_does(browser, loaded):
    running, _ = loaded
    page = browser()
    pages(page, running.admin)
    page.do("wait", texts=["Replicas"])
    refused = page.do("violate")
    assert "markup was taken" not in refused["broken"] and refused["injected"] is None, refused
    assert {"markup refused", "fetch refused", "connect-src"} <= set(refused["broken"]), refused


def test_it_says_when_the_edge_is_gone_and_when_it_is_back(browser, loaded):
    running, load = loaded
    page = browser()
    pages(page, running.admin)
    page.do("wait", texts=["Replicas", "Ready"])
    admin = running.admin.removeprefix("http://")
    running.process.end(signal.SIGKILL)
    page.do("wait", texts=["Unreachable", "cannot be reached since", "no connection"])
    seen = page.do("look")
    assert seen["state"].endswith("Unreachable") and seen["replicas"], "what was known stays, and is told from now"
    assert "asks again every 2 s" in seen["lost"]
    assert page.do("shot", width=360, height=740, dark=True)["cut"] == []
    running.top["admin"]["address"] = admin
    running.start()
    page.do("wait", texts=["Ready"])
    seen = page.do("look")
    assert seen["lost"] is None and "Unreachable" not in seen["title"]


def test_elsewhere_a_password_is_asked_for(browser, edge, fleet):
    methods = [{"basic": {"file": "users", "realm": "mcp-edge"}}]
    running = status_page.watched_edge(edge, fleet, {"address": "0.0.0.0:0", "plaintext": True, "auth": methods})
    url = running.admin.replace("0.0.0.0", "127.0.0.1")
    assert wire.request("GET", url + "/status")[0] == 401
    page = browser()
    pages(page, url, user="ann", password=PASSWORD)
    page.do("wait", texts=["Replicas"])
    assert page.do("seen")["errors"] == []
