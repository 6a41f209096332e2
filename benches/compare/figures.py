"""What the figures are called, and what is made of them. In: cells, `{title: {peer: {figure: [a value per
round]}}}`; out: medians, spreads and ratios to bare nginx, and the rows that the chart and the README show."""

import re
from statistics import median

BASE = "nginx bare"
EDGE = "mcp-edge"
# figure -> what it is called, digits
FIGURES = {
    "cpu_us": ("CPU µs", 1),
    "per_second": ("per second", 0),
    "p50_us": ("p50 µs", 0),
    "p99_us": ("p99 µs", 0),
    "latency_p50_us": ("latency p50 µs", 0),
    "latency_p99_us": ("latency p99 µs", 0),
    "added_p50_us": ("added p50 µs", 0),
    "added_p99_us": ("added p99 µs", 0),
    "kib": ("KiB", 1),
    "kib_after_waves": ("KiB after waves", 1),
    "kib_after_bodies": ("KiB after bodies", 1),
    "sockets_left": ("sockets left after closing", 0),
    "idle_cpu_us_per_stream_minute": ("CPU µs/stream/min", 0),
}
RATIOS = (
    *("cpu_us", "p50_us", "p99_us", "added_p50_us", "added_p99_us"),
    *("kib", "kib_after_waves", "kib_after_bodies"),
)
# (part, words, work, figure, in the README?)
ROWS = (
    ("CPU", "HTTP/1.1 POST, 300 B", "h1 POST, 300 B", "cpu_us", True),
    ("CPU", "TLS POST, 300 B", "TLS h1 POST, 300 B", "cpu_us", True),
    ("CPU", "HTTP/2 POST, 300 B", "TLS h2 POST, 300 B", "cpu_us", True),
    ("CPU", "HTTP/1.1 POST, 16 KiB", "h1 POST, 16 KiB", "cpu_us", False),
    ("CPU", "TLS POST, 16 KiB", "TLS h1 POST, 16 KiB", "cpu_us", False),
    ("CPU", "HTTP/2 POST, 16 KiB", "TLS h2 POST, 16 KiB", "cpu_us", False),
    ("CPU", "new TLS connection and call, resumed", "new TLS connection per call, resumed", "cpu_us", True),
    ("CPU", "new TLS connection and call, in full", "new TLS connection per call, full handshake", "cpu_us", True),
    ("CPU", "SSE event", "SSE events, h1", "cpu_us", True),
    ("CPU", "SSE event, TLS", "SSE events, TLS h1", "cpu_us", False),
    ("CPU", "WebSocket message and its echo", "WebSocket echo, h1", "cpu_us", True),
    ("CPU", "WebSocket message and its echo, TLS", "WebSocket echo, TLS h1", "cpu_us", False),
    ("Time", "first SSE event, p50", "first SSE event, h1", "p50_us", True),
    ("Time", "first SSE event, TLS, p50", "first SSE event, TLS h1", "p50_us", False),
    ("Time", "age of an SSE event, p50", "SSE events, h1", "p50_us", True),
    ("Time", "added to a call at 2,000/s, p50", "2,000 requests/s, h1", "added_p50_us", True),
    ("Time", "added to a call at 2,000/s, p99", "2,000 requests/s, h1", "added_p99_us", True),
    ("Time", "added to a call at 2,000/s, TLS, p50", "2,000 requests/s, TLS h1", "added_p50_us", False),
    ("Time", "added to a call at 2,000/s, TLS, p99", "2,000 requests/s, TLS h1", "added_p99_us", False),
    ("Memory", "idle SSE stream, HTTP/1.1", "idle SSE streams, h1", "kib", True),
    ("Memory", "idle SSE stream, TLS", "idle SSE streams, TLS h1", "kib", True),
    ("Memory", "idle SSE stream, HTTP/2", "idle SSE streams, TLS h2 × 100", "kib", True),
    ("Memory", "slow reader, HTTP/1.1", "slow readers, h1", "kib", False),
    ("Memory", "slow reader, TLS", "slow readers, TLS h1", "kib", False),
)
UNITS = {"CPU": "µs CPU", "Time": "µs", "Memory": "KiB"}


def derive(cells):
    """Adds what a proxy adds to the latency of a direct call, in the same round."""
    for cell in cells.values():
        for percentile in ("p50", "p99"):
            direct = cell.get("direct", {}).get(f"latency_{percentile}_us")
            for peer, values in cell.items():
                times = values.get(f"latency_{percentile}_us")
                if direct and times and peer != "direct":
                    floors = direct if len(direct) == len(times) else [median(direct)] * len(times)
                    values[f"added_{percentile}_us"] = [t - f for t, f in zip(times, floors)]


def middle(cells, title, peer, figure):
    """The median over the rounds; `None` where there is no figure."""
    values = cells.get(title, {}).get(peer, {}).get(figure)
    return median(values) if values else None


def ratio(cells, title, peer, figure):
    """To bare nginx; `None` where one of them has no figure, or there is nothing to compare with."""
    ours, base = middle(cells, title, peer, figure), middle(cells, title, BASE, figure)
    return ours / base if ours is not None and base and base > 0 else None


def typical_spread(cells):
    """How far the rounds of one CPU figure are apart: the median over all of (most - least) / median."""
    rounds = [values["cpu_us"] for cell in cells.values() for values in cell.values() if "cpu_us" in values]
    spreads = [(max(r) - min(r)) / median(r) for r in rounds if len(r) > 1 and median(r)]
    return median(spreads) if spreads else None


def short(name, version):
    """`nginx 1.22.1` of `nginx version: nginx/1.22.1` and its like."""
    found = re.search(r"\d+\.\d[\w.+-]*", version)
    return f"{name} {found[0]}" if found else version


def machine_line(result):
    """One line: what was measured on what, and how much the rounds differ."""
    about, apart = result["about"], typical_spread(result["cells"])
    known = {name: version for name, version in about["versions"].items() if " " not in name}
    versions = ", ".join(short(name, version) for name, version in known.items())
    words = (
        f"{about['date'][:10]}: {versions} ({about['versions'].get('mcp-edge commit', '?')}); {about['cpu']}, "
        f"{about['cores']} cores, Linux {about['kernel'].split('-')[0]}"
    )
    return words + (f"; rounds of a CPU figure differ by {apart:.0%} (median)." if apart is not None else ".")
