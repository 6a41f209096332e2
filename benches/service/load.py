"""A steady load of every kind at once. In: addresses of an edge. Out: `Figures`: what was asked, what failed and why.

Each kind has a rate, shared by a few clients that keep to a timetable: a client that had to wait catches up. A request
that fails is counted by its cause and is not repeated. Every POST has an id of its own, which the backends write down.
"""

import asyncio
import itertools
import json
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field

from wire import H1, H2, PATIENCE, Answer, Failed

JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
ERA = {"mcp-protocol-version": "2025-11-25"}
SILENT = 3.0  # seconds without an event, of which there are four a second, until a stream counts as stuck


@dataclass
class Figures:
    """What became of a load."""

    asked: Counter = field(default_factory=Counter)
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # the kind of request, the id of a POST, the cause
    ids: dict[str, str] = field(default_factory=dict)  # of POSTs, and what became of them
    slowest: float = 0.0
    connections: int = 0
    streams: Counter = field(default_factory=Counter)  # how streams ended
    events: int = 0
    lost_sessions: int = 0

    def fail(self, kind: str, cause: str, ident: str = "") -> None:
        self.failures.append((kind, ident, cause))


def context() -> ssl.SSLContext:
    """TLS to an edge whose certificate is of its own making."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls


class Load:
    """All clients. `scale` multiplies the rates."""

    RATES = {"h1": (80, 8), "h1 new": (15, 3), "tls": (40, 4), "tls new": (5, 1), "h2": (80, 8), "sse post": (10, 5), "session": (60, 12)}
    STREAMS = 24

    def __init__(self, plain: tuple[str, int], tls: tuple[str, int], scale: float = 1.0):
        self.plain, self.tls, self.scale = plain, tls, scale
        self.figures = Figures()
        self.number = itertools.count(1)
        self.name = f"{time.time_ns():x}"
        self.over = asyncio.Event()
        self.tasks: list[asyncio.Task] = []
        self.trouble: list[str] = []

    def begin(self) -> None:
        """Starts all clients."""
        h1_tls, h2_tls = context(), context()
        h2_tls.set_alpn_protocols(["h2"])
        links = [H2(self.tls, h2_tls) for _ in range(2)]
        for kind, (rate, clients) in self.RATES.items():
            for n in range(clients):
                period = clients / (rate * self.scale)
                client = links[n % 2] if kind == "h2" else H1(self.tls if "tls" in kind else self.plain, h1_tls if "tls" in kind else None)
                work = self.session if kind == "session" else self.calls
                self.tasks.append(asyncio.create_task(work(kind, client, period, n * period / clients)))
        for n in range(self.STREAMS):
            client = H1(self.plain) if n % 2 else H1(self.tls, h1_tls)
            self.tasks.append(asyncio.create_task(self.listen(client, n / self.STREAMS)))

    async def end(self) -> Figures:
        """Lets what is under way finish."""
        self.over.set()
        _, late = await asyncio.wait(self.tasks, timeout=PATIENCE + 5) if self.tasks else ((), ())
        for task in late:
            task.cancel()
        for task in self.tasks:
            if not task.cancelled() and task.done() and task.exception():
                raise task.exception()
        if late:
            self.figures.fail("all", "a client hung")
        return self.figures

    async def pause(self, until: float) -> None:
        try:
            await asyncio.wait_for(self.over.wait(), max(0.0, until - time.monotonic()))
        except TimeoutError:
            pass

    async def calls(self, kind: str, client: H1 | H2, period: float, offset: float) -> None:
        """Calls of tools without a session."""
        due = time.monotonic() + offset
        arguments = {"steps": 4} if kind == "sse post" else {}
        while not self.over.is_set():
            await self.pause(due)
            if self.over.is_set():
                break
            await self.call(kind, client, arguments, {})
            if kind.endswith("new"):
                client.close()
            due += period
        if isinstance(client, H1):
            client.close()

    async def call(self, kind: str, client: H1 | H2, arguments: dict, fields: dict[str, str], method: str = "tools/call") -> Answer | None:
        """One POST; its answer where that is good."""
        ident = f"{self.name}-{next(self.number)}"
        params = {"name": "echo", "arguments": arguments}
        if method == "initialize":
            params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "load", "version": "1"}}
        message = {"jsonrpc": "2.0", "id": ident, "method": method, "params": params}
        self.figures.asked[kind] += 1
        begun = time.monotonic()
        try:
            answer = await client.ask("POST", {**JSON, **fields}, json.dumps(message).encode())
            self.figures.slowest = max(self.figures.slowest, time.monotonic() - begun)
            if answer.status == 404 and fields:
                self.figures.ids[ident] = "session gone"
                return answer
            if answer.status != 200:
                raise Failed(f"status {answer.status}{words(answer)}")
            if ident.encode() not in answer.body:
                raise Failed("answered without its result")
            self.figures.ids[ident] = "answered"
            return answer
        except Failed as why:
            self.figures.ids[ident] = "failed"
            self.figures.fail(kind, str(why), ident)
            self.trouble.append(f"{time.monotonic():.3f} {kind} {ident} {why}")
            return None

    async def session(self, kind: str, client: H1, period: float, offset: float) -> None:
        """Sessions of twenty calls each; told that one is gone (404), a client begins another."""
        due, session, left = time.monotonic() + offset, None, 0
        while not self.over.is_set():
            await self.pause(due)
            if self.over.is_set():
                break
            due += period
            if session is None:
                answer = await self.call(kind, client, {}, {}, "initialize")
                session, left = answer and answer.fields.get("mcp-session-id"), 20
                continue
            fields = {"mcp-session-id": session, **ERA}
            answer = await self.call(kind, client, {}, fields)
            left -= 1
            if answer is not None and answer.status == 404:
                self.figures.lost_sessions += 1
                session = None
            elif left == 0:
                await self.delete(kind, client, fields)
                session = None
        client.close()

    async def delete(self, kind: str, client: H1, fields: dict[str, str]) -> None:
        self.figures.asked[kind] += 1
        try:
            answer = await client.ask("DELETE", fields)
            if answer.status == 404:
                self.figures.lost_sessions += 1
            elif answer.status != 200:
                raise Failed(f"status {answer.status}{words(answer)}")
        except Failed as why:
            self.figures.fail(kind, f"DELETE: {why}")

    async def listen(self, client: H1, offset: float) -> None:
        """A session whose stream is open all the time; ended, it is asked for again."""
        kind, session = "stream", None
        await self.pause(time.monotonic() + offset)
        while not self.over.is_set():
            if session is None:
                answer = await self.call(kind, client, {}, {}, "initialize")
                if answer is None:
                    await self.pause(time.monotonic() + 0.5)
                    continue
                session = answer.fields.get("mcp-session-id")
            self.figures.asked[kind] += 1
            try:
                answer = await asyncio.wait_for(client.begin("GET", {"accept": "text/event-stream", "mcp-session-id": session, **ERA}), PATIENCE)
                if answer.status == 404:
                    self.figures.lost_sessions += 1
                    session = None
                    client.close()
                    continue
                if answer.status != 200:
                    client.close()
                    raise Failed(f"status {answer.status}")
                await self.events(client, answer)
            except (Failed, TimeoutError) as why:
                client.close()
                self.figures.fail(kind, f"GET: {str(why) or f'no answer in {PATIENCE} s'}")
                self.trouble.append(f"{time.monotonic():.3f} stream {session} {why}")
                await self.pause(time.monotonic() + 0.5)
        client.close()

    async def events(self, client: H1, answer: Answer) -> None:
        """Reads until the stream ends, and says how."""
        tail, pieces = b"", client.pieces(answer)
        while not self.over.is_set():
            try:
                piece = await asyncio.wait_for(anext(pieces), SILENT)
            except StopAsyncIteration:
                self.figures.streams["whole, told to come back" if b"retry:" in tail else "whole"] += 1
                return client.close()
            except Failed:
                self.figures.streams["broken off" if tail.endswith(b"\n\n") else "broken off inside an event"] += 1
                return client.close()
            except TimeoutError:
                self.figures.streams[f"silent for {SILENT:g} s"] += 1
                return client.close()
            self.figures.events += piece.count(b"data:")
            tail = (tail + piece)[-512:]
        client.close()


def words(answer: Answer) -> str:
    """What the edge's own refusals say; nothing of others."""
    try:
        return f": {json.loads(answer.body)['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return ""
