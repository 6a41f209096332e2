#!/usr/bin/env python3
"""The README's table. In: results/latest.json; out: README.md with the figures of that run between its two
markers. `make bench BENCH=--readme` does it after a run."""

import json
import sys
from pathlib import Path

import figures

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BEGIN, END = "<!-- bench: benches/compare/readme.py writes this -->", "<!-- /bench -->"
PEERS = {"nginx bare": "nginx", "haproxy bare": "HAProxy", "mcp-edge": "mcp-edge"}


def put(result, readme):
    """Replaces what stands between the markers."""
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{readme}: the markers {BEGIN} and {END} must stand once")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    block = "\n".join([BEGIN, *table(result["cells"]), "", figures.machine_line(result), END])
    readme.write_text(before + block + after)
    print(f"written: {readme}")


def table(cells):
    """One row per work of the list; those that were not run are left out."""
    yield "| | " + " | ".join(PEERS.values()) + " | mcp-edge to nginx |"
    yield "|---|" + "---:|" * (len(PEERS) + 1)
    for part, words, title, figure, short in figures.ROWS:
        ratio = figures.ratio(cells, title, figures.EDGE, figure)
        if not short or ratio is None:
            continue
        values = [figures.middle(cells, title, peer, figure) for peer in PEERS]
        shown = ["" if value is None else f"{value:.1f}" for value in values]
        yield f"| {words}, {figures.UNITS[part]} | {' | '.join(shown)} | **{ratio:.2f}** |"


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results" / "latest.json"
    put(json.loads(source.read_text()), ROOT / "README.md")
