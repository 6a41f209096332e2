"""Processes and what they cost. In: process ids; out: CPU nanoseconds and kibibytes, all threads and
children counted. Also: free ports, a certificate, and the words for the machine."""

import os
import platform
import re
import socket
import subprocess
import time
from pathlib import Path

PROXY_CORE, LOAD_CORE = "0", "1"


def spawn(core, argv, log=None, **more):
    """Starts a program on one core; its output goes to a file, or to our pipe."""
    out = open(log, "ab") if log else subprocess.PIPE
    argv = ["taskset", "-c", core, *map(str, argv)]
    return subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT if log else None, **more
    )


def stop(process):
    """Ends a program that we started, and waits for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            for pid in family(process.pid):
                os.kill(pid, 9)
            process.wait(10)


def family(pid):
    """A process and all below it."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                todo.extend(map(int, (task / "children").read_text().split()))
            except OSError:
                pass
    return found


def cpu_ns(pid):
    """Time on a core so far, user and system, of all threads that live."""
    total = 0
    for one in family(pid):
        for task in Path(f"/proc/{one}/task").glob("*"):
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                pass
    return total


def pss_kib(pid):
    """Proportional set size: private pages, and a share of the shared ones."""
    total = 0
    for one in family(pid):
        text = Path(f"/proc/{one}/smaps_rollup").read_text()
        total += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])
    return total


def settled_pss(pid, limit=8.0):
    """The same once it has not moved for a second, or after `limit` seconds."""
    end, last = time.monotonic() + limit, pss_kib(pid)
    while time.monotonic() < end:
        time.sleep(1)
        now = pss_kib(pid)
        if abs(now - last) <= max(32, now // 500):
            return now
        last = now
    return last


def descriptors(pid):
    """Open files and sockets."""
    return sum(len(os.listdir(f"/proc/{one}/fd")) for one in family(pid))


def await_closed(pid, wanted, limit=15.0):
    """Waits until a proxy has no more than so many descriptors; gives how many are too many at the end."""
    end = time.monotonic() + limit
    while descriptors(pid) > wanted and time.monotonic() < end:
        time.sleep(0.05)
    return max(0, descriptors(pid) - wanted)


def free_port():
    """A TCP port that nobody has right now, on both loopback addresses that are used."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def await_port(port, process, what):
    """Returns when the port takes connections; raises when the program ends or ten seconds pass."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{what} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"{what} does not listen")


def certificate(folder):
    """An ECDSA P-256 certificate for localhost, made once per run."""
    conf = folder / "cert.conf"
    conf.write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=ext\nprompt=no\n[dn]\nCN=localhost\n"
        "[ext]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n"
    )
    cert, key, both = folder / "cert.pem", folder / "key.pem", folder / "both.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30"
    subprocess.run(
        [*make.split(), "-config", conf, "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    both.write_text(cert.read_text() + key.read_text())
    return {"CERT": cert, "KEY": key, "PEM": both}


def words():
    """What the figures depend on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory[1]) / 2**20),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
    }
