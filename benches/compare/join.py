#!/usr/bin/env python3
"""A run in parts. In: the `latest.json` of several runs of the same programs on one machine, each with works of its own
(`run.py --only … --out …`); out: results/latest.* and the README's table, with a line that says so. Every ratio still
comes from one run, because a work was measured for all proxies in one of them."""

import json
import sys
from pathlib import Path

import readme
import report

HERE = Path(__file__).parent


def join(results):
    """All works; the first run's description, and what the others had other options for."""
    whole = results[0]
    parts = [", ".join(result["cells"]) or "growth" for result in results]
    for other in results[1:]:
        twice = whole["cells"].keys() & other["cells"].keys()
        if twice or other["about"]["versions"].keys() - whole["about"]["versions"].keys():
            raise SystemExit(f"measured twice, or other proxies: {', '.join(twice)}")
        whole["cells"] |= other["cells"]
        whole["about"]["problems"] += other["about"]["problems"]
        if other.get("growth"):
            whole["growth"] = other["growth"]
    for part, result in zip(parts[1:], results[1:]):
        options = ", ".join(f"{k} {v}" for k, v in result["about"]["options"].items())
        whole["about"]["options"][f"; in a run of its own ({options}):"] = part
    return whole


if __name__ == "__main__":
    whole = join([json.loads(Path(name).read_text()) for name in sys.argv[1:]])
    report.write(whole, HERE / "results")
    readme.put(whole, HERE.parent.parent / "README.md")
