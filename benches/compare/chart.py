"""The chart. In: cells; out: an SVG with a bar per proxy and work, the ratio to bare nginx. Shorter is better."""

from html import escape

import figures

# peer -> colour; others are not in the chart, and bare nginx is the line at 1
BARS = {"mcp-edge": "#c2410c", "haproxy bare": "#60a5fa", "haproxy same": "#1d4ed8", "nginx same": "#86b49a"}
NAMES = {
    "mcp-edge": "mcp-edge",
    "haproxy bare": "HAProxy",
    "haproxy same": "HAProxy, log and stickiness on",
    "nginx same": "nginx, log and stickiness on",
}
PARTS = {"CPU": "CPU", "Time": "Time", "Memory": "Memory of the proxy"}
LEFT, WIDTH, RIGHT = 270, 440, 60
BAR, GAP, TOP = 9, 9, 74
MOST = 2.5


def draw(cells):
    """The whole picture."""
    y, out = TOP, []
    for part, title in PARTS.items():
        rows = [row for row in rows_of(cells) if row[0] == part]
        if rows:
            out.append(text(12, y + 10, title, weight="bold", size=13))
            y += 22
        for _, words, bars in rows:
            y = row(words, bars, y, out)
        y += 10 if rows else 0
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{y + 6}" '
        'font-family="DejaVu Sans, Verdana, sans-serif">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join([*head(y), *out])
        + "\n</svg>\n"
    )


def rows_of(cells):
    """Part, words, and peers with their ratios; works that were not run are left out."""
    for part, words, title, figure, _ in figures.ROWS:
        bars = [(peer, figures.ratio(cells, title, peer, figure)) for peer in BARS]
        bars = [(peer, value) for peer, value in bars if value is not None]
        if bars:
            yield part, words, bars


def head(bottom):
    """Title, legend and the scale."""
    yield text(12, 22, "What one operation costs, with nginx (bare) = 1; shorter is better", weight="bold", size=14)
    x = 12
    for peer, colour in BARS.items():
        yield f'<rect x="{x}" y="34" width="10" height="10" fill="{colour}"/>'
        yield text(x + 15, 43, NAMES[peer])
        x += 34 + 6.3 * len(NAMES[peer])
    for tick in (0, 0.5, 1, 1.5, 2, 2.5):
        at, own = LEFT + tick * WIDTH / MOST, tick == 1
        colour, width = ("#15803d", 1.5) if own else ("#e2e8f0", 1)
        yield f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{bottom}" stroke="{colour}" stroke-width="{width}"/>'
        yield text(at, TOP - 6, "nginx = 1" if own else f"{tick:g}", anchor="middle")


def row(words, bars, y, out):
    """One work; gives where the next one begins."""
    out.append(text(LEFT - 8, y + len(bars) * BAR / 2 + 4, words, anchor="end"))
    for peer, value in bars:
        width = max(1, min(value, MOST) * WIDTH / MOST)
        weight = "bold" if peer == figures.EDGE else "normal"
        out.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 1}" fill="{BARS[peer]}"/>')
        label = f"{value:.2f}" + (" ›" if value > MOST else "")
        out.append(text(LEFT + width + 4, y + 8, label, weight=weight, size=9))
        y += BAR
    return y + GAP


def text(x, y, words, anchor="start", weight="normal", size=11):
    """A piece of text, with a rim that lines do not cross."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}" '
        f'fill="#0f172a" stroke="white" stroke-width="3" paint-order="stroke">{escape(words)}</text>'
    )
