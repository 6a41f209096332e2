"""(g) What one request costs at any size of an installation. In: the `pieces` program; out: instructions per
admission, by kind and size (valgrind counts; no clock, no network), and the memory that sessions leave."""

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

TIMES = 1000
SIZES = {"sessions": (1, 1000, 1_000_000), "routes": (1, 100, 10_000), "replicas": (1, 10, 100, 1000)}
QUICK = {"sessions": (1, 10_000), "routes": (1, 10_000), "replicas": (1, 1000)}


def measure(pieces, quick, problem):
    """`{"instructions": {kind: {size: per request}}, "kept": {"sessions": n, "kib": k}}`; `None` without valgrind."""
    print("(g) growth, instructions per admission", flush=True)
    if not shutil.which("valgrind") or not shutil.which("callgrind_control"):
        print("    skipped: valgrind is missing; `make bench-tools` installs it on Debian")
        return None
    sizes = QUICK if quick else SIZES
    kinds = said(pieces, "kinds").splitlines()
    todo = [(kind, size) for kind in kinds for size in sizes[kind.split(",")[0]]]
    # long ones first; counts do not depend on what else runs
    todo.sort(key=lambda one: -one[1])
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(todo, pool.map(lambda one: count_or_none(pieces, *one, problem), todo)))
    table = {kind: {} for kind in kinds}
    for (kind, size), instructions in sorted(found.items()):
        if instructions is not None:
            table[kind][size] = instructions
    for kind, row in table.items():
        print(f"    {kind:28} " + ", ".join(f"{size}: {n:.0f}" for size, n in row.items()), flush=True)
    sessions = sizes["sessions"][-1]
    kib = int(said(pieces, "kept", sessions))
    print(f"    {sessions} sessions leave {kib} KiB behind", flush=True)
    return {"instructions": table, "kept": {"sessions": sessions, "kib": kib}}


def count_or_none(pieces, kind, size, problem):
    """One size; what goes wrong is noted."""
    try:
        return count(pieces, kind, size)
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        problem(f"growth, {kind}, {size}", error)
        return None


def count(pieces, kind, size):
    """Instructions per request. Counting starts when the program has prepared everything and waits."""
    tool = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=/dev/null"]
    argv = [*tool, str(pieces), "grow", kind, str(size), str(TIMES)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(process.communicate(timeout=20)[1])
            on = ["callgrind_control", "-i", "on", str(process.pid)]
            subprocess.run(on, check=False, capture_output=True, timeout=60)
            said = process.communicate("go\n", timeout=300)[1]
        finally:
            process.kill()
    collected = re.search(r"Collected : (\d+)", said)
    if not collected or int(collected[1]) == 0:
        raise RuntimeError("callgrind_control could not switch counting on")
    return int(collected[1]) / TIMES


def said(pieces, *args):
    """What the program prints."""
    argv = [str(pieces), *map(str, args)]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


def markdown(growth):
    """A table: a row per kind, a column per size."""
    sizes = sorted({int(size) for row in growth["instructions"].values() for size in row})
    yield "| | " + " | ".join(f"{size:,}" for size in sizes) + " | last to first |"
    yield "|---|" + "---|" * (len(sizes) + 1)
    for kind, row in growth["instructions"].items():
        row = {int(size): n for size, n in row.items()}
        if row:
            cells = [f"{row[size]:,.0f}" if size in row else "" for size in sizes]
            yield f"| {kind} | " + " | ".join(cells) + f" | {row[max(row)] / row[min(row)]:.2f} |"
    sessions, kib = growth["kept"]["sessions"], max(0, growth["kept"]["kib"])
    yield ""
    yield f"{sessions:,} sessions, each opened and used once, leave {kib} KiB behind."
