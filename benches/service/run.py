#!/usr/bin/env python3
"""The load table. In: a binary, names of trials. Out: failed requests by cause through each, as a table and as JSON.

    pip install h2; benches/service/run.py target/release/mcp-edge [TRIAL…] [--scale 1] [--out FOLDER]

A trial loads an edge with three replicas steadily and does something to it. Failures are counted on the client's side;
POSTs that were run twice in the replicas' own notes. Exit status 1: a promise was broken, and which stands below the table.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from load import Figures, Load
from trials import TRIALS, Scene, Trial
from verdict import DIED, of_trial
from world import HERE, Replica


async def run(binary: Path, name: str, scale: float, upstream: str, keep: Path | None) -> dict:
    """One trial with its own processes."""
    trial = TRIALS[name]
    with tempfile.TemporaryDirectory() as made:
        folder = keep / name.replace(",", "").replace(" ", "-") if keep else Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.rglob("*"):
            if old.is_file():
                old.unlink()
        replicas = [Replica(folder, f"replica{n}") for n in range(3)]
        scene = Scene(binary, folder, replicas, upstream or trial.upstream)
        try:
            for replica in replicas:
                replica.begin()
            for replica in replicas:
                await replica.ready()
            return await watch(name, trial, scene, scale)
        finally:
            scene.end()


async def watch(name: str, trial: Trial, scene: Scene, scale: float) -> dict:
    await trial.prepare(scene)
    load = Load(("127.0.0.1", scene.plain), ("127.0.0.1", scene.tls), scale)
    if trial.loaded:
        load.begin()
        await asyncio.sleep(3)
    begun = time.monotonic()
    await trial.happen(scene)
    took = time.monotonic() - begun
    if trial.loaded:
        await asyncio.sleep(3)
    figures = await load.end()
    for line in load.trouble[:200]:
        print(f"    {line}", file=sys.stderr)
    row = told(name, figures, scene, took)
    return row | {"broken": of_trial(row, trial.allowed, trial.loaded)}


def told(name: str, figures: Figures, scene: Scene, took: float) -> dict:
    """A row of the table."""
    ran = sum((replica.ran() for replica in scene.replicas), Counter())
    mine = {ident: count for ident, count in ran.items() if ident in figures.ids}
    became = Counter(figures.ids.values())
    causes: dict[str, Counter] = {}
    for kind, ident, cause in figures.failures:
        # what its process had begun nobody else may begin anew, and nobody else can answer
        died = ident in scene.died
        causes.setdefault(DIED if died else cause, Counter())[kind] += 1
    causes = {cause: dict(kinds) for cause, kinds in causes.items()}
    return {
        "trial": name,
        "seconds": round(took, 1),
        "asked": sum(figures.asked.values()),
        "failed": len(figures.failures),
        "causes": causes,
        "twice": sum(1 for count in mine.values() if count > 1),
        "answered, never run": sum(1 for i, what in figures.ids.items() if what == "answered" and i not in mine),
        "failed, but run": sum(1 for i, what in figures.ids.items() if what == "failed" and i in mine),
        "sessions lost": figures.lost_sessions,
        "streams": dict(figures.streams),
        "events": figures.events,
        "slowest": round(figures.slowest, 2),
        "posts": dict(became),
        "notes": scene.notes,
        "broken": scene.broken,
    }


def table(rows: list[dict]) -> str:
    """Markdown."""
    out = "| trial | requests | failed | causes | run twice | sessions lost | streams that ended | slowest |\n|---|---:|---:|---|---:|---:|---|---:|\n"
    for row in rows:
        causes = "; ".join(worded(cause, kinds) for cause, kinds in sorted(row["causes"].items(), key=lambda of: -sum(of[1].values())))
        streams = ", ".join(f"{count} {how}" for how, count in row["streams"].items()) or "0"
        name = row["trial"] + (f" ({'; '.join(row['notes'])})" if row["notes"] else "")
        out += f"| {name} | {row['asked']:,} | {row['failed']} | {causes or '—'} | {row['twice']} | {row['sessions lost']} | {streams} | {row['slowest']:.2f} s |\n"
    return out


def worded(cause: str, kinds: dict[str, int]) -> str:
    """`8 × status 502: words (h1 5, tls 3)`"""
    each = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items(), key=lambda of: -of[1]))
    return f"{sum(kinds.values())} × {cause} ({each})"


def measured(binary: Path, scale: float) -> str:
    """What was measured, and when."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.strip()
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    profile = f"{binary.parent.name} build" if binary.parent.name in ("release", "debug") else binary.name
    return f"{time.strftime('%F', time.gmtime())}: {said}, checkout {commit or 'unknown'}, {profile}, scale {scale:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description="failed requests by cause, through what happens to a service")
    parser.add_argument("binary", type=Path)
    parser.add_argument("trials", nargs="*", help=", ".join(TRIALS))
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the rates: 1 is 300 requests a second")
    parser.add_argument("--upstream", default="", help="more of the upstream's config, such as `health: { mcp: { path: /mcp } }`")
    parser.add_argument("--out", type=Path, help="where table.md, table.json and the trials' logs are kept")
    args = parser.parse_intermixed_args()
    rows = []
    for name in args.trials or list(TRIALS):
        print(f"{name} …", file=sys.stderr)
        row = asyncio.run(run(args.binary.resolve(), name, args.scale, args.upstream, args.out))
        print(json.dumps(row), file=sys.stderr)
        rows.append(row)
    shown = f"{table(rows)}\n{measured(args.binary.resolve(), args.scale)}\n"
    print(shown)
    if args.out:
        (args.out / "table.json").write_text(json.dumps(rows, indent=1))
        (args.out / "table.md").write_text(shown)
    broken = [words for row in rows for words in row["broken"]]
    sys.exit("\n".join(["broken promises:", *broken]) if broken else 0)


if __name__ == "__main__":
    main()
