"""What is written. In: all figures of a run; out: latest.json (raw), latest.md (tables), latest.svg (bars);
long.json and long.md of a long run."""

import json
from statistics import median

import chart
import figures
import growth
import long
from figures import EDGE, FIGURES, RATIOS, ratio


def write(result, folder):
    """All three files."""
    figures.derive(result["cells"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "latest.md").write_text(markdown(result))
    (folder / "latest.svg").write_text(chart.draw(result["cells"]))
    print(f"written: {folder}/latest.md, .json, .svg")


def write_long(about, lengthy, folder):
    """The long run's own files."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {"about": about, "cells": {}, "long": lengthy}
    lines = ["# The last long run", "", figures.machine_line(result), ""]
    lines += [f"FAILED: {problem}\n" for problem in about["problems"]] + [*long.markdown(lengthy)]
    (folder / "long.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "long.md").write_text("\n".join(lines) + "\n")
    print(f"written: {folder}/long.md, .json")


def markdown(result):
    """One table per work; each figure is the median, with least and most, and ×: the ratio to bare nginx."""
    about, cells = result["about"], result["cells"]
    lines = [
        "# The last run of `make bench`",
        "",
        figures.machine_line(result),
        f"{about['memory_gib']} GiB, load {about['load_before']:.1f} before and {about['load_after']:.1f} after.",
        f"Options: {', '.join(f'{k} {v}' for k, v in about['options'].items())}.",
    ]
    lines += [f"\nFAILED: {problem}" for problem in about["problems"]]
    if cells:
        lines += ["", *ROLES, "", "![ratios to bare nginx](latest.svg)", "", *summary(cells)]
    for title in cells:
        lines += ["", f"## {title}", "", *table(cells, title)]
    if result.get("growth"):
        lines += ["", "## Growth: instructions per admission", "", *growth.markdown(result["growth"])]
    return "\n".join(lines) + "\n"


ROLES = """\
One worker each, on core 0; load and backend on core 1. mcp-edge with sessions sealed, access log and
metrics on; `bare`: proxying alone; `same`: access log on and sticky by the session header. Figures are
`median (least–most)` over the rounds; `×` is the ratio to bare nginx in this run. `added` is the latency
less that of calls to the backend itself, without TLS, in the same round.""".splitlines()


def summary(cells):
    """The ratios of mcp-edge at a glance."""
    yield "| mcp-edge to bare nginx | " + " | ".join(FIGURES[f][0] for f in RATIOS) + " |"
    yield "|---|" + "---|" * len(RATIOS)
    for title in cells:
        shown = [ratio(cells, title, EDGE, figure) for figure in RATIOS]
        if any(shown):
            yield f"| {title} | " + " | ".join(f"{r:.2f}" if r else "" for r in shown) + " |"


def table(cells, title):
    """One work."""
    cell = cells[title]
    shown = [f for f in FIGURES if any(f in values for values in cell.values())]
    yield "| | " + " | ".join(FIGURES[f][0] + (" | ×" if f in RATIOS else "") for f in shown) + " |"
    yield "|---|" + "".join("---|" * (2 if f in RATIOS else 1) for f in shown)
    for peer, values in cell.items():
        row = []
        for figure in shown:
            row.append(spread(values.get(figure), FIGURES[figure][1]))
            if figure in RATIOS:
                times = ratio(cells, title, peer, figure)
                row.append(f"{times:.2f}" if times else "")
        yield f"| {peer} | " + " | ".join(row) + " |"


def spread(values, digits):
    """`median (least–most)`."""
    if not values:
        return ""
    middle = f"{median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"
