"""What happens to an edge under load. In: a `Scene`. Out: the same, with what was noticed beside the requests."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from verdict import ANY, Allowance
from wire import H1, PATIENCE
from world import Adopted, Edge, Replica, free_ports, until


@dataclass
class Scene:
    """Replicas, edges before them, and where clients come in."""

    binary: Path
    folder: Path
    replicas: list[Replica]
    upstream: str = ""  # more of the upstream's config
    edges: list[Edge] = field(default_factory=list)
    others: list[subprocess.Popen] = field(default_factory=list)
    plain: int = 0
    tls: int = 0
    notes: list[str] = field(default_factory=list)
    died: set[str] = field(default_factory=set)  # POSTs that processes had begun that were killed
    broken: list[str] = field(default_factory=list)  # promises, beside those of requests

    @property
    def edge(self) -> Edge:
        return self.edges[0]

    def note(self, what: str, kept: bool = True) -> None:
        """Something to be said with the row; not `kept`: a promise that was broken."""
        self.notes.append(what)
        if not kept:
            self.broken.append(what)

    def end(self) -> None:
        for other in self.others:
            other.kill()
            other.wait()
        for process in [*self.edges, *self.replicas]:
            process.end()


@dataclass
class Trial:
    """How a scene is set up, and what happens in it."""

    prepare: Callable[[Scene], Awaitable[None]]
    happen: Callable[[Scene], Awaitable[None]]
    upstream: str = ""  # more of the upstream's config, where nothing else is asked for
    loaded: bool = True  # whether the steady load is there
    allowed: Allowance = Allowance()


async def one_edge(scene: Scene) -> None:
    """Clients speak to the edge itself."""
    edge = Edge(scene.binary, scene.folder, scene.replicas, upstream=scene.upstream)
    edge.begin()
    await edge.ready()
    scene.edges.append(edge)
    scene.plain, scene.tls = edge.plain, edge.tls


HAPROXY = """global
  maxconn 4000
defaults
  mode tcp
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  option redispatch
  retries 3
  default-server check inter 200ms fall 1 rise 1
{sides}
"""


async def two_edges(scene: Scene) -> None:
    """Clients speak to HAProxy, which passes TCP on to edges whose health path says 200."""
    for name in ("edge1", "edge2"):
        edge = Edge(scene.binary, scene.folder, scene.replicas, name, top="shutdown: { delay: 1s }", upstream=scene.upstream)
        edge.begin()
        await edge.ready()
        scene.edges.append(edge)
    scene.plain, scene.tls = free_ports(2)
    sides = ""
    for name, port in (("plain", scene.plain), ("tls", scene.tls)):
        sides += f"listen {name}\n  bind 127.0.0.1:{port}\n  option httpchk GET /healthz\n  http-check send hdr Host localhost\n"
        for edge in scene.edges:
            sides += f"  server {edge.name} 127.0.0.1:{getattr(edge, name)} check port {edge.plain}\n"
    config = scene.folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(sides=sides))
    scene.others.append(subprocess.Popen(["/usr/sbin/haproxy", "-db", "-f", config], stderr=subprocess.DEVNULL))
    await asyncio.sleep(1)


async def nothing(scene: Scene) -> None:
    await asyncio.sleep(6)


async def reloads(scene: Scene) -> None:
    """Each with another config, so that there is something to do."""
    for n in range(20):
        scene.edge.write(f"buffer_budget: {64 + n}MiB")
        scene.edge.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.5)
    taken = scene.edge.said().count("SIGHUP was taken")
    scene.note(f"{taken} taken", taken == 20)


async def broken(scene: Scene) -> None:
    scene.edge.write("listners: []")
    scene.edge.process.send_signal(signal.SIGHUP)
    await asyncio.sleep(3)
    told = [line for line in scene.edge.said().splitlines() if "listners" in line]
    scene.note("said why" if told else "not said why", bool(told))


async def rolling(scene: Scene) -> None:
    for replica in scene.replicas:
        await replica.restart()
        await asyncio.sleep(3)


async def told_beforehand(scene: Scene) -> None:
    """As Kubernetes does it: a replica says that it is not ready, and stops when the edge has left it with nothing but
    the streams of its sessions."""
    for replica in scene.replicas:
        replica.signal(signal.SIGUSR1)
        await until_so(f"{replica.name} is down", lambda: scene.edge.sees(replica)["state"] == "down")
        await until_so(f"{replica.name} has nothing to do", lambda: is_idle(scene, replica))
        await replica.restart()
        await until_so(f"{replica.name} is up", lambda: scene.edge.sees(replica)["state"] == "up")
        await asyncio.sleep(2)


def is_idle(scene: Scene, replica: Replica) -> bool:
    """No request is under way there; of sessions, only those are left that listen."""
    busy = replica.busy()
    under_way = scene.edge.sees(replica)["in_flight"]
    return busy["posts"] == 0 and busy["sessions"] <= busy["streams"] and under_way <= busy["streams"]


async def until_so(what: str, true: Callable[[], bool], limit: float = 30) -> None:
    """Asks somebody again and again, and lets the load go on meanwhile."""
    end = time.monotonic() + limit
    while not await asyncio.to_thread(true):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {limit:g} s: {what}")
        await asyncio.sleep(0.05)


async def killed(scene: Scene) -> None:
    """It comes back after five seconds, as by a service manager."""
    victim = scene.replicas[1]
    victim.signal(signal.SIGKILL)
    victim.process.wait()
    scene.died.update(victim.ran())
    await asyncio.sleep(5)
    victim.begin()
    await victim.ready()
    await asyncio.sleep(3)


async def hung(scene: Scene) -> None:
    """It accepts connections, the system does, and answers nothing for longer than any client waits."""
    scene.replicas[1].signal(signal.SIGSTOP)
    await asyncio.sleep(PATIENCE + 10)
    scene.replicas[1].signal(signal.SIGCONT)
    await asyncio.sleep(3)


async def restarted(scene: Scene) -> None:
    """SIGTERM, and a new process when the old one has gone: what a plain restart costs."""
    begun = time.monotonic()
    scene.edge.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(scene.edge.process.wait)
    scene.note(f"exit {code} after {time.monotonic() - begun:.2f} s", code == 0)
    (scene.edge.folder / "stderr").unlink()
    scene.edge.begin()
    await scene.edge.ready()


STREAMS = 24


async def left_idle(scene: Scene) -> None:
    """SIGTERM while there are streams without events; how long after the end of the last one the process is there."""
    ended: list[float] = []
    clients = [H1(("127.0.0.1", scene.plain)) for _ in range(STREAMS)]
    streams = [asyncio.create_task(listen(client, ended)) for client in clients]
    await until("all streams are open", lambda: sum(r.busy()["streams"] for r in scene.replicas) == STREAMS)
    begun = time.monotonic()
    scene.edge.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(scene.edge.process.wait)
    gone = time.monotonic()
    await asyncio.gather(*streams)
    left = gone - max(ended)
    scene.note(f"exit {code} {left:.2f} s after the last of {len(ended)} streams ended, {gone - begun:.2f} s after SIGTERM", code == 0 and left < 1)


async def listen(client: H1, ended: list[float]) -> None:
    """Reads an idle stream to its end. As a client does that waits before it comes back, it keeps the connection."""
    client.path = "/mcp?idle"
    answer = await client.begin("GET", {"accept": "text/event-stream"})
    async for _ in client.pieces(answer):
        pass
    ended.append(time.monotonic())


async def left_alone(scene: Scene) -> None:
    """SIGTERM while nobody is connected."""
    begun = time.monotonic()
    scene.edge.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(scene.edge.process.wait)
    took = time.monotonic() - begun
    scene.note(f"exit {code} after {took:.2f} s", code == 0 and took < 0.5)


async def drained(scene: Scene) -> None:
    """One edge of two behind a balancer stops, and comes back; then the other."""
    for edge in scene.edges:
        begun = time.monotonic()
        edge.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(edge.process.wait)
        scene.note(f"{edge.name}: exit {code} after {time.monotonic() - begun:.2f} s", code == 0)
        (edge.folder / "stderr").unlink()
        edge.begin()
        await edge.ready()
        await asyncio.sleep(2)


async def upgraded(scene: Scene) -> None:
    """The binary is replaced by itself, three times."""
    for _ in range(3):
        begun = time.monotonic()
        command = [scene.binary, "upgrade", "--config", scene.edge.file]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        took = time.monotonic() - begun
        scene.note(f"exit {done.returncode} after {took:.2f} s {done.stderr.strip()}".strip(), done.returncode == 0)
        if done.returncode != 0:
            return
        old = scene.edge.process
        code = await asyncio.to_thread(old.wait)
        scene.notes.append(f"old one gone, exit {code}, {time.monotonic() - begun:.2f} s")
        scene.edge.process = Adopted(int(done.stdout.split()[1]))
        await asyncio.sleep(2)


OFTEN = "every: 1s, timeout: 1s, up_after: 1, down_after: 2"
CHECKED = f"health: {{ mcp: {{ path: /mcp }}, {OFTEN} }}"
# With a stopped replica: what was under way there is not answered, for any client.
SILENCE = ("no answer", "GET: no answer", "DELETE: no answer")
# As many as there are clients, and streams: each waits there once, before checks have found it out.
CLIENTS = 41 + 24
# A connection that a replica closes, without having read what was just sent: nobody may send that again.
CLOSED = Allowance({"status 502": 5}, sessions=True)
TRIALS = {
    "nothing": Trial(one_edge, nothing),
    "20 reloads": Trial(one_edge, reloads),
    "reload with a broken file": Trial(one_edge, broken),
    "rolling restart of all replicas": Trial(one_edge, rolling, allowed=CLOSED),
    "rolling restart, told beforehand": Trial(
        one_edge, told_beforehand, f"health: {{ http: {{ path: /healthz }}, {OFTEN} }}", allowed=Allowance(sessions=True)
    ),
    "kill -9 of one of three": Trial(one_edge, killed, allowed=Allowance(sessions=True, streams=("whole", "broken off"))),
    "a hung replica": Trial(
        one_edge, hung, CHECKED, allowed=Allowance(dict.fromkeys(SILENCE, CLIENTS), sessions=True, streams=("whole", "silent"))
    ),
    "a hung replica, without any check": Trial(
        one_edge, hung, allowed=Allowance(dict.fromkeys(SILENCE, ANY), streams=("whole", "silent"))
    ),
    "SIGTERM with idle streams": Trial(one_edge, left_idle, loaded=False),
    "SIGTERM with nothing": Trial(one_edge, left_alone, loaded=False),
    "restart of the edge": Trial(one_edge, restarted, allowed=Allowance({"connect: refused": ANY, "GET: connect: refused": ANY})),
    "full drain": Trial(two_edges, drained),
    "binary upgrade": Trial(one_edge, upgraded),
}
