"""Which promises were broken. In: a row of the load table and what its trial allows, or the rows of the soak. Out:
sentences; none where all was kept.
"""

import math
from dataclasses import dataclass, field

DIED = "under way on the replica that died"
ANY = math.inf


@dataclass(frozen=True)
class Allowance:
    """What may happen in a trial besides what nobody can help (`DIED`). Never: a POST that is run twice, or answered
    without being run."""

    failed: dict[str, float] = field(default_factory=dict)  # how a cause begins, and how many requests may have it
    sessions: bool = False  # whether sessions may be lost
    streams: tuple[str, ...] = ("whole",)  # how the words for the ends of streams may begin


def of_trial(row: dict, allowed: Allowance, loaded: bool) -> list[str]:
    """What one row breaks; `loaded`: whether clients asked all the time."""
    found = list(row["broken"])
    if loaded and not row["asked"]:
        found.append("nothing was asked")
    if row["twice"]:
        found.append(f"{row['twice']} POSTs were run twice")
    if row["answered, never run"]:
        found.append(f"{row['answered, never run']} POSTs were answered and never run")
    if row["sessions lost"] and not allowed.sessions:
        found.append(f"{row['sessions lost']} sessions were lost")
    for cause, kinds in row["causes"].items():
        count = sum(kinds.values())
        most = ANY if cause == DIED else max((most for begin, most in allowed.failed.items() if cause.startswith(begin)), default=0)
        if count > most:
            found.append(f"{count} × {cause}, allowed: {most:g}")
    for how, count in row["streams"].items():
        if not how.startswith(allowed.streams):
            found.append(f"{count} streams ended {how}")
    return [f"{row['trial']}: {words}" for words in found]


def of_soak(rows: list[dict], wanted: dict[str, int]) -> list[str]:
    """What the soak breaks: each work, as much of it as wanted, with no errors, and at its end what it took in its
    warm-up, but for a tenth, 1 MiB and two descriptors. Each work has rows of its own after one called `warm-up`."""
    found, warm, last = [], None, {}
    for row in rows:
        if row["errors"]:
            found.append(f"{row['work']}: {row['errors']} errors")
        if row["work"] == "warm-up":
            warm = row
        else:
            last[row["work"]] = (warm, row)
    for work, count in wanted.items():
        if work not in last or last[work][1]["done"] < count:
            found.append(f"{work}: less than {count:,} were done")
            continue
        before, after = last[work]
        if after["rss"] > before["rss"] * 1.1 + 1024:
            found.append(f"{work}: RSS grew from {before['rss']} to {after['rss']} KiB")
        if after["files"] > before["files"] + 2:
            found.append(f"{work}: descriptors grew from {before['files']} to {after['files']}")
    return found
