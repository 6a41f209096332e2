"""The long run. In: an edge, how many silent streams, how many minutes; out: how many were lost, how many
comments each had, what the edge cost. A third each over HTTP/1.1, TLS and HTTP/2 with 100 per connection."""

import time

import machine
import work

KEEPALIVE = 15.0
# a comment is late when a stream was silent for longer than this
PATIENCE = KEEPALIVE + 1.5
LOOK = 30


def run(bench, running, minutes):
    """The figures, and a problem for each thing that should not be."""
    clients = [work.Client(bench, "idle", *args) for args in parts(bench, running)]
    try:
        before = machine.settled_pss(running.pid)
        for client in clients:
            client.say("open")
        figures = watch(bench, running, clients, minutes)
    finally:
        for client in clients:
            machine.stop(client.process)
    figures["kib_per_stream"] = (figures["pss_kib_start"] - before) / bench.streams
    figures["kib_per_stream_end"] = (figures["pss_kib_end"] - before) / bench.streams
    judge(bench, figures, minutes)
    return figures


def parts(bench, running):
    """The arguments of the three clients."""
    h2 = max(100, bench.streams // 300 * 100)
    tls = (bench.streams - h2) // 2
    session = ["--session", running.session()]
    yield running.url(False, "/sse?rate=0"), "--n", bench.streams - h2 - tls, *session
    yield running.url(True, "/sse?rate=0"), "--n", tls, *session
    yield running.url(True, "/sse?rate=0"), "--n", h2, "--h2", 100, "--alpn", "h2", *session


def watch(bench, running, clients, minutes):
    """Looks at the streams every half minute until the time is over."""
    begin, cpu = time.monotonic(), machine.cpu_ns(running.pid)
    start = last = machine.settled_pss(running.pid)
    while True:
        left = begin + minutes * 60 - time.monotonic()
        time.sleep(max(0, min(LOOK, left)))
        seen, last = [client.say("count") for client in clients], machine.pss_kib(running.pid)
        seconds = time.monotonic() - begin
        used = machine.cpu_ns(running.pid) - cpu
        figures = {
            "streams": bench.streams,
            "minutes": seconds / 60,
            "lost": bench.streams - sum(one["open"] for one in seen),
            "comments_least": min(one["least"] for one in seen),
            "comments_most": max(one["most"] for one in seen),
            "longest_silence_s": max(one["longest_silence_ms"] for one in seen) / 1e3,
            "pss_kib_start": start,
            "pss_kib_end": last,
            "cpu_us_per_stream_minute": used / 1e3 / bench.streams / seconds * 60,
        }
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"    {shown}", flush=True)
        if left <= LOOK:
            return figures


def judge(bench, figures, minutes):
    """None may be lost, and none may have waited for its comment."""
    if figures["lost"]:
        bench.problem("long run", f"{figures['lost']} streams were lost")
    if figures["longest_silence_s"] > PATIENCE:
        bench.problem("long run", f"a stream was silent for {figures['longest_silence_s']:.1f} s")
    if figures["comments_least"] < minutes * 60 / PATIENCE - 1:
        bench.problem("long run", f"a stream had {figures['comments_least']} comments only")


def markdown(figures):
    """A sentence each."""
    yield (
        f"{figures['streams']:,} silent streams for {figures['minutes']:.1f} minutes (a third each over "
        f"HTTP/1.1, TLS, HTTP/2 × 100): {figures['lost']} lost; {figures['comments_least']} to "
        f"{figures['comments_most']} comments on each; longest silence {figures['longest_silence_s']:.1f} s "
        f"(a comment is due after {KEEPALIVE:.0f} s)."
    )
    yield (
        f"Memory of the process {figures['pss_kib_start'] / 1024:.1f} MiB at the start and "
        f"{figures['pss_kib_end'] / 1024:.1f} MiB at the end ({figures['kib_per_stream']:.1f} and "
        f"{figures['kib_per_stream_end']:.1f} KiB per stream); CPU "
        f"{figures['cpu_us_per_stream_minute']:.0f} µs per stream and minute."
    )
