"""What is written. In: all figures of a run; out: latest.json (raw), latest.md (tables), latest.svg (bars)."""

import json
from html import escape
from statistics import median

BASE = "nginx bare"
# figure -> what it is called, digits
FIGURES = {
    "cpu_us": ("CPU µs", 1),
    "per_second": ("per second", 0),
    "p50_us": ("p50 µs", 0),
    "p99_us": ("p99 µs", 0),
    "kib": ("KiB", 1),
    "kib_after_waves": ("KiB after waves", 1),
    "kib_after_bodies": ("KiB after bodies", 1),
    "sockets_left": ("sockets left after closing", 0),
    "idle_cpu_us_per_stream_minute": ("CPU µs/stream/min", 0),
}
RATIOS = ("cpu_us", "p50_us", "p99_us", "kib", "kib_after_waves", "kib_after_bodies")


def write(result, folder):
    """All three files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "latest.md").write_text(markdown(result))
    (folder / "latest.svg").write_text(chart(result["cells"]))
    print(f"written: {folder}/latest.md, .json, .svg")


def markdown(result):
    """One table per work; each figure is the median, with least and most, and ×: the ratio to bare nginx."""
    about, lines = result["about"], ["# The last run of `make bench`", ""]
    versions = ", ".join(f"{k}: {v}" for k, v in about["versions"].items())
    lines += [
        f"{about['date']}, {about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, Linux",
        f"{about['kernel']}, load {about['load_before']:.1f} before. {versions}.",
        f"Options: {', '.join(f'{k} {v}' for k, v in about['options'].items())}.",
        "",
        "One worker each, on core 0; load and backend on core 1. mcp-edge with sessions sealed, access log and",
        "metrics on; `bare`: proxying alone; `same`: access log on and sticky by the session header. Figures are",
        "`median (least–most)` over the rounds; `×` is the ratio to bare nginx in this run.",
        "",
        summary(result["cells"]),
    ]
    lines += [f"\nFAILED: {problem}" for problem in about["problems"]]
    for title, cell in result["cells"].items():
        lines += ["", f"## {title}", "", *table(cell)]
    return "\n".join(lines) + "\n"


def summary(cells):
    """The ratios of mcp-edge at a glance."""
    lines = ["| mcp-edge to bare nginx | " + " | ".join(FIGURES[f][0] for f in RATIOS) + " |"]
    lines.append("|---|" + "---|" * len(RATIOS))
    for title, cell in cells.items():
        shown = [ratio(cell, "mcp-edge", figure) for figure in RATIOS]
        if any(shown):
            lines.append(f"| {title} | " + " | ".join(f"{r:.2f}" if r else "" for r in shown) + " |")
    return "\n".join(lines)


def table(cell):
    """One work."""
    figures = [f for f in FIGURES if any(f in values for values in cell.values())]
    yield "| | " + " | ".join(FIGURES[f][0] + (" | ×" if f in RATIOS else "") for f in figures) + " |"
    yield "|---|" + "".join("---|" * (2 if f in RATIOS else 1) for f in figures)
    for peer, values in cell.items():
        row = []
        for figure in figures:
            row.append(spread(values.get(figure), FIGURES[figure][1]))
            if figure in RATIOS:
                times = ratio(cell, peer, figure)
                row.append(f"{times:.2f}" if times else "")
        yield f"| {peer} | " + " | ".join(row) + " |"


def spread(values, digits):
    """`median (least–most)`."""
    if not values:
        return ""
    middle = f"{median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def ratio(cell, peer, figure):
    """To bare nginx; `None` where one of them has no figure."""
    ours, base = cell.get(peer, {}).get(figure), cell.get(BASE, {}).get(figure)
    if not ours or not base or not median(base):
        return None
    return median(ours) / median(base)


COLORS = {"mcp-edge": "#c2410c", "nginx": "#15803d", "haproxy": "#1d4ed8", "envoy": "#7e22ce", "caddy": "#0e7490"}
LEFT, WIDTH, BAR, TOP = 400, 420, 13, 46


def chart(cells):
    """Bars: CPU per request, call, stream or event, and memory per idle stream, as ratios to bare nginx."""
    groups = []
    for title, cell in cells.items():
        for figure in ("cpu_us", "kib"):
            bars = [(peer, ratio(cell, peer, figure)) for peer in cell]
            bars = [(peer, value) for peer, value in bars if value]
            if bars:
                groups.append((f"{title}: {'CPU' if figure == 'cpu_us' else 'memory'}", bars))
    most = max((value for _, bars in groups for _, value in bars), default=1)
    scale, y, out = WIDTH / max(1.2, min(most, 4)), TOP, []
    for title, bars in groups:
        out.append(text(LEFT - 100, y + 10, title, "end", "bold"))
        for peer, value in bars:
            out += bar(peer, value, y, scale)
            y += BAR
        y += 9
    one = LEFT + scale
    line = f'<line x1="{one:.1f}" y1="{TOP - 6}" x2="{one:.1f}" y2="{y}" stroke="#64748b" stroke-dasharray="3"/>'
    head = text(12, 22, "Less is better. 1.0 = nginx bare, one worker, same run.", "start", "bold")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 60}" height="{y + 12}" '
        'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join([head, *out, line])
        + "\n</svg>\n"
    )


def bar(peer, value, y, scale):
    """One peer's bar; those beyond the edge are cut, their figure says so."""
    width = min(value * scale, WIDTH)
    color = COLORS.get(peer.split()[0], "#475569")
    opacity = "0.55" if peer.endswith("same") else "1"
    yield text(LEFT - 6, y + 10, peer, "end")
    yield f'<rect x="{LEFT}" y="{y + 1}" width="{width:.1f}" height="{BAR - 3}" fill="{color}" opacity="{opacity}"/>'
    yield text(LEFT + width + 5, y + 10, f"{value:.2f}", "start")


def text(x, y, words, anchor, weight="normal"):
    """A piece of text."""
    return (
        f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="#0f172a">{escape(words)}</text>'
    )
