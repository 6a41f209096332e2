#!/usr/bin/env python3
"""The benchmark (`make bench`). In: options; out: results/latest.{md,json,svg}.

Every work runs against each proxy in turn, round after round, so that a machine that gets slower gets
slower for all. The proxy has core 0 for itself; load and backend share core 1. Nothing leaves loopback.
Growth is counted in instructions, without a proxy; the long run is mcp-edge's alone.
"""

import argparse
import contextlib
import datetime
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import growth
import long
import machine
import peers
import readme
import report
import work

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LETTERS = sorted({letter for letter, *_ in work.WORKS})


class Direct:
    """No proxy at all: the floor for what can be had without TLS."""

    def __init__(self, port, pid, sessions):
        self.port, self.pid, self.sessions = port, pid, sessions
        self.peer = peers.Peer("direct", "floor", "", "", None, [])
        self.peer.label = "direct"

    def url(self, _tls, path):
        """The backend's own URL."""
        return f"http://127.0.0.1:{self.port}{path}"

    def session(self):
        """One session id."""
        return self.sessions.read_text().split()[0]

    def stop(self):
        """The backend stays."""


class Bench:
    """The tools and sizes of this run."""

    def __init__(self, options, tool, folder):
        self.tool, self.folder = tool, folder
        self.seconds = 2 if options.quick else options.seconds
        self.rounds = options.rounds or (1 if options.quick else 5)
        self.streams = options.streams
        self.waves = 3 if options.quick else 10
        self.watch = 2 if options.quick else 16  # one round of comments (every 15 s)
        self.calls = 500 if options.quick else 2000
        self.firsts = 200 if options.quick else 500
        self.cert = machine.certificate(folder)
        self.problems = []

    def problem(self, what, error):
        """Notes what went wrong; the others go on."""
        self.problems.append(f"{what}: {error}")
        print(f"    FAILED {what}: {error}", flush=True)

    def load(self, command, url, *args):
        """Runs a client of ours to its end."""
        argv = [self.tool, command, "--to", url, "--ca", self.cert["CERT"], *args]
        return work.tool_output(argv)


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what we started is ended
    need("taskset", "wrk", "h2load", "openssl")
    edge, tool, pieces = build(options)
    folder = Path(options.work or ROOT / "target" / "bench")
    folder.mkdir(parents=True, exist_ok=True)
    found, missing = peers.find(edge, options.peers)
    for line in missing:
        print(f"not here: {line}")
    bench = Bench(options, tool, folder)
    result = {"about": about(bench, found), "cells": {}}
    lengthy = long_run(bench, found[-1], options.minutes) if wanted(options, "long") else None
    if any(wanted(options, letter) for letter in LETTERS):
        result["cells"] = measure(bench, found, options)
    if wanted(options, "g"):
        result["growth"] = growth.measure(pieces, options.quick, bench.problem)
    result["about"] |= {"load_after": os.getloadavg()[0], "problems": bench.problems}
    if lengthy:
        report.write_long(result["about"], lengthy, Path(options.out or HERE / "results"))
    if set(options.only or LETTERS) != {"long"}:
        report.write(result, Path(options.out or (folder if options.only else HERE) / "results"))
    if options.readme:
        readme.put(result, ROOT / "README.md")
    return 1 if bench.problems else 0


def wanted(options, letter):
    """Whether a work was asked for; the long run only by name."""
    return letter in options.only if options.only else letter != "long"


def about(bench, found):
    """What was measured, on what, and how."""
    return machine.words() | {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {p.name: p.version for p in found} | {"mcp-edge commit": commit()},
        "options": {k: getattr(bench, k) for k in ("seconds", "rounds", "streams", "waves", "calls")},
    }


@contextlib.contextmanager
def backend_of(bench):
    """The other end of all works, on two loopback addresses: its port and process."""
    port = machine.free_port()
    addresses = [f"127.0.0.{n}:{port}" for n in (1, 2)]
    backend = machine.spawn(
        machine.LOAD_CORE, [bench.tool, "backend", *addresses], log=bench.folder / "backend.out"
    )
    try:
        machine.await_port(port, backend, "the backend")
        yield port, backend
    finally:
        machine.stop(backend)


def long_run(bench, peer, minutes):
    """Idle streams for minutes, through mcp-edge."""
    print(f"long run: {bench.streams} streams for {minutes:g} minutes", flush=True)
    with backend_of(bench) as (port, _):
        running = peers.start(peer, bench.folder, port, bench.cert, bench.load)
        try:
            return long.run(bench, running, minutes)
        finally:
            running.stop()


def measure(bench, found, options):
    """All works over all peers; `{title: {peer: {figure: [a value per round]}}}`."""
    cells, running = {}, {}
    with backend_of(bench) as (port, backend):

        def start(peer):
            return peers.start(peer, bench.folder, port, bench.cert, bench.load)

        ids = bench.folder / "direct-sessions"
        ids.write_text(bench.load("sessions", f"http://127.0.0.1:{port}/mcp", "--n", 32))
        direct = Direct(port, backend.pid, ids)
        try:
            for peer in found:
                try:
                    running[peer.label] = start(peer)
                except RuntimeError as error:
                    bench.problem(peer.label, error)
            for one in work.WORKS:
                if wanted(options, one[0]) and (one[-1] or not options.quick):
                    rounds(bench, one, running, direct, start, cells)
        finally:
            for one in running.values():
                one.stop()
    return cells


def rounds(bench, one, running, direct, start, cells):
    """All rounds of one work over all peers."""
    letter, title, function, args, fresh, _ = one
    print(f"({letter}) {title}", flush=True)
    with_direct = letter == "h" or letter in "ac" and args[0] == "h1"
    for _ in range(max(1, bench.rounds // 3) if fresh else bench.rounds):
        for peer in [*running.values(), *([direct] if with_direct else [])]:
            try:
                if fresh:
                    peer.stop()
                    peer = running[peer.peer.label] = start(peer.peer)
                keep(cells, title, peer, function(bench, peer, *args))
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                bench.problem(f"{title}, {peer.peer.label}", error)


def keep(cells, title, one, figures):
    """Adds one round's figures. The backend's own CPU is not a proxy's."""
    if one.peer.name == "direct":
        figures.pop("cpu_us", None)
    cell = cells.setdefault(title, {}).setdefault(one.peer.label, {})
    for name, value in figures.items():
        cell.setdefault(name, []).append(value)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
    print(f"    {one.peer.label:16} {shown}", flush=True)


def arguments():
    """What the command line says."""
    parse = argparse.ArgumentParser(description="mcp-edge beside other proxies on this machine")
    parse.add_argument("--quick", action="store_true", help="six minutes: one round, fewer works")
    parse.add_argument("--only", type=lambda t: t.split(","), help="letters of works, such as a,c; `long` for the long run")
    parse.add_argument("--peers", type=lambda t: t.split(","), help="names, such as nginx,haproxy")
    parse.add_argument("--rounds", type=int, help="default 5 (memory: a third)")
    parse.add_argument("--seconds", type=int, default=3, help="per measurement; default 3")
    parse.add_argument("--streams", type=int, default=1000, help="idle streams, 100 to 9000; default 1000")
    parse.add_argument("--minutes", type=float, default=10, help="of the long run; default 10")
    parse.add_argument("--readme", action="store_true", help="puts the short table into README.md")
    parse.add_argument("--edge", help="a built mcp-edge; default: builds one")
    parse.add_argument("--tool", help="a built `compare`; default: builds one")
    parse.add_argument("--pieces", help="a built `pieces`; default: builds one")
    parse.add_argument("--work", help="folder for configs and logs; default target/bench")
    parse.add_argument("--out", help="folder of the results; default `results` here, with --only in --work")
    options = parse.parse_args()
    if not 100 <= options.streams <= 9000 or options.streams % 100:
        parse.error("--streams: a multiple of 100 up to 9000")
    unknown = set(options.only or []) - {*LETTERS, "g", "long"}
    if unknown:
        parse.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(LETTERS)}, g, long")
    return options


def build(options):
    """The programs under test, as they are released, and our tools; apart, so that no tool's crates turn
    on features of the edge's. Those that are named or not needed are not built."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release"
    paths = []
    for given, name, kind in (
        (options.edge, "mcp-edge", "--bin"),
        (options.tool, "compare", "--example"),
        (options.pieces or not wanted(options, "g"), "pieces", "--example"),
    ):
        if not given:
            argv = ["cargo", "build", "--release", "--locked", kind, name]
            subprocess.run(argv, check=True, cwd=ROOT)
            given = target / name if kind == "--bin" else target / "examples" / name
        paths.append(Path(str(given)).resolve())
    return paths


def commit():
    """Which source was measured."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "?"


def need(*programs):
    """Stops when a tool is missing."""
    missing = [p for p in programs if not shutil.which(p)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}; `make bench-tools` installs them on Debian")


if __name__ == "__main__":
    sys.exit(main())
