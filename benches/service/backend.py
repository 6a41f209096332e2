"""An MCP server for the load table. In: a port, a name, a file. Out: answers; in the file, a line per POST that it ran.

Sessions live in memory and die with the process, as those of the SDKs' servers do. On SIGTERM it does what uvicorn does:
it accepts no more, closes connections that wait for a request, ends its streams, answers what is under way, and exits.
On SIGUSR1 only its readiness (`/healthz`) turns 503, as before a rolling update; `/busy` says what it has to do still.
"""

import asyncio
import json
import os
import signal
import sys
import uuid

EVERY = 0.25  # seconds between the events of a stream


class Server:
    """One replica."""

    def __init__(self, name: str, log: str):
        self.name = name
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.sessions: set[str] = set()
        self.idle: set[asyncio.StreamWriter] = set()
        self.busy = self.posts = self.streams = 0
        self.leaving = False
        self.stopping = asyncio.Event()
        self.nothing_left = asyncio.Event()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not self.stopping.is_set():
                self.idle.add(writer)
                head = await reader.readuntil(b"\r\n\r\n")
                self.idle.discard(writer)
                self.busy += 1
                try:
                    await self.request(head, reader, writer)
                finally:
                    self.busy -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.idle.discard(writer)
            writer.close()
            if self.stopping.is_set() and not self.busy:
                self.nothing_left.set()

    async def request(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target = first.split(" ")[:2]
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
        body = await self.body(fields, reader)
        if target == "/healthz":
            return self.answer(writer, 503 if self.leaving else 200, None)
        if target == "/busy":
            return self.answer(writer, 200, {"posts": self.posts, "streams": self.streams, "sessions": len(self.sessions)})
        session = fields.get("mcp-session-id")
        if session and session not in self.sessions:
            return self.answer(writer, 404, {"jsonrpc": "2.0", "id": None, "error": {"code": -32001, "message": "Session not found"}})
        if method == "GET":
            self.streams += 1
            try:
                return await self.events(writer, idle=target.endswith("?idle"))
            finally:
                self.streams -= 1
        if method == "DELETE":
            self.sessions.discard(session or "")
            return self.answer(writer, 200, None)
        message = json.loads(body)
        # before anything else: what was begun counts as run, also when the process dies
        os.write(self.log, f"{message.get('id')} {message.get('method')}\n".encode())
        self.posts += 1
        try:
            await self.post(message, writer)
        finally:
            self.posts -= 1

    async def body(self, fields: dict[str, str], reader: asyncio.StreamReader) -> bytes:
        if "chunked" in fields.get("transfer-encoding", ""):
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readuntil(b"\r\n")
            return body
        return await reader.readexactly(int(fields.get("content-length", 0)))

    async def post(self, message: dict, writer: asyncio.StreamWriter) -> None:
        method, ident = message.get("method"), message.get("id")
        if ident is None:
            return self.answer(writer, 202, None)
        if method == "initialize":
            session = uuid.uuid4().hex
            self.sessions.add(session)
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": self.name, "version": "1"}}
            return self.answer(writer, 200, {"jsonrpc": "2.0", "id": ident, "result": result}, session)
        if method == "server/discover":
            result = {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}, "serverInfo": {"name": self.name, "version": "1"}}
            return self.answer(writer, 200, {"jsonrpc": "2.0", "id": ident, "result": result})
        arguments = message.get("params", {}).get("arguments", {})
        answer = {"jsonrpc": "2.0", "id": ident, "result": {"content": [{"type": "text", "text": self.name}]}}
        if steps := arguments.get("steps"):
            return await self.steps(writer, steps, answer)
        if wait := arguments.get("wait"):
            await asyncio.sleep(wait)
        self.answer(writer, 200, answer)

    async def steps(self, writer: asyncio.StreamWriter, steps: int, answer: dict) -> None:
        """An answer that is a stream: progress, then the result."""
        self.begin_events(writer)
        for n in range(steps):
            note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": n}}
            await self.event(writer, note)
            await asyncio.sleep(0.05)
        await self.event(writer, answer)
        writer.write(b"0\r\n\r\n")

    async def events(self, writer: asyncio.StreamWriter, idle: bool) -> None:
        """Four events a second; of an idle stream, one."""
        self.begin_events(writer)
        n = 0
        while not self.stopping.is_set():
            n += 1
            await self.event(writer, {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": n}})
            try:
                await asyncio.wait_for(self.stopping.wait(), None if idle else EVERY)
            except TimeoutError:
                pass
        writer.write(b"0\r\n\r\n")

    def begin_events(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n")

    async def event(self, writer: asyncio.StreamWriter, message: dict) -> None:
        data = f"event: message\ndata: {json.dumps(message)}\n\n".encode()
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await writer.drain()

    def answer(self, writer: asyncio.StreamWriter, status: int, message: dict | None, session: str | None = None) -> None:
        body = json.dumps(message).encode() if message is not None else b""
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n"
        if body:
            head += "content-type: application/json\r\n"
        if session:
            head += f"mcp-session-id: {session}\r\n"
        if self.stopping.is_set():
            head += "connection: close\r\n"
        writer.write(head.encode() + b"\r\n" + body)

    def leave(self) -> None:
        self.leaving = True

    def stop(self) -> None:
        self.stopping.set()
        for writer in list(self.idle):
            writer.close()
        if not self.busy:
            self.nothing_left.set()


async def main() -> None:
    port, name, log = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    server = Server(name, log)
    listening = await asyncio.start_server(server.connection, "127.0.0.1", port, backlog=1024)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, server.leave)
    await server.stopping.wait()
    listening.close()
    try:
        await asyncio.wait_for(server.nothing_left.wait(), 5)
    except TimeoutError:
        pass


asyncio.run(main())
