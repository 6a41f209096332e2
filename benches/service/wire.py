"""HTTP clients that tell why a request failed. In: an address, requests. Out: answers, or `Failed` with a cause."""

import asyncio
import ssl

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

PATIENCE = 30  # seconds until an answer counts as lost; the clients of MCP's SDKs wait for 30 to 60 s


class Failed(Exception):
    """A request that got no answer, or a wrong one; its words are the cause in the table."""


class Answer:
    """A status, fields, and a body or a stream."""

    def __init__(self, status: int, fields: dict[str, str], body: bytes = b""):
        self.status, self.fields, self.body = status, fields, body


async def opened(address: tuple[str, int], tls: ssl.SSLContext | None):
    """A connection; the cause where there is none."""
    try:
        return await asyncio.wait_for(asyncio.open_connection(*address, ssl=tls, server_hostname="localhost" if tls else None), 5)
    except TimeoutError:
        raise Failed("connect: no answer in 5 s") from None
    except ConnectionRefusedError:
        raise Failed("connect: refused") from None
    except (OSError, ssl.SSLError) as e:
        raise Failed(f"connect: {type(e).__name__}") from None


class H1:
    """One HTTP/1.1 client: a connection that is kept where the server lets it, opened again where not.

    It does not repeat what failed on a connection that was closed in that very moment, as many clients do: it counts.
    """

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None = None):
        self.address, self.tls = address, tls
        self.reader = self.writer = None
        self.path = "/mcp"
        self.used = 0

    async def ask(self, method: str, fields: dict[str, str], body: bytes = b"") -> Answer:
        """An answer with all of its body."""
        try:
            return await asyncio.wait_for(self._ask(method, fields, body), PATIENCE)
        except TimeoutError:
            self.close()
            raise Failed(f"no answer in {PATIENCE} s") from None
        except Failed:
            self.close()
            raise

    async def _ask(self, method: str, fields: dict[str, str], body: bytes) -> Answer:
        answer = await self.begin(method, fields, body)
        pieces = [piece async for piece in self.pieces(answer)]
        answer.body = b"".join(pieces)
        if answer.fields.get("connection") == "close":
            self.close()
        return answer

    async def begin(self, method: str, fields: dict[str, str], body: bytes = b"") -> Answer:
        """Sends a request and reads the head of its answer."""
        if self.reader is None or self.reader.at_eof() or self.writer.is_closing():
            self.close()
            self.reader, self.writer = await opened(self.address, self.tls)
            self.used = 0
        where = "on a kept connection" if self.used else "on a new connection"
        self.used += 1
        head = f"{method} {self.path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        try:
            self.writer.write(head.encode() + b"\r\n" + body)
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as e:
            raise Failed(f"closed in the middle of a head" if e.partial else f"closed before an answer, {where}") from None
        except ConnectionError:
            raise Failed(f"reset before an answer, {where}") from None
        first, *lines = raw.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return Answer(int(first.split(" ")[1]), {k.lower(): v.strip() for k, _, v in pairs})

    async def pieces(self, answer: Answer):
        """The body as it comes; `Failed` where it breaks off."""
        try:
            if "chunked" in answer.fields.get("transfer-encoding", ""):
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    yield (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readuntil(b"\r\n")
            elif length := int(answer.fields.get("content-length", 0)):
                yield await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            raise Failed("broke off in the middle of a body") from None

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class H2:
    """One HTTP/2 client with several requests at once on a connection; told to go away, it opens another."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext):
        self.address, self.tls = address, tls
        self.link: Link | None = None
        self.opening = asyncio.Lock()

    async def ask(self, method: str, fields: dict[str, str], body: bytes = b"") -> Answer:
        async with self.opening:
            if self.link is None or self.link.leaving:
                self.link = Link(*await opened(self.address, self.tls))
            link = self.link
            # sent before anything else can happen: it must not follow a GOAWAY that we have seen
            stream, answer = link.begin(method, fields, body)
        try:
            return await asyncio.wait_for(answer, PATIENCE)
        except TimeoutError:
            raise Failed(f"no answer in {PATIENCE} s") from None
        finally:
            link.end(stream)


class Link:
    """One connection of HTTP/2."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer
        self.leaving = False
        self.waiting: dict[int, asyncio.Future] = {}
        self.answers: dict[int, Answer] = {}
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.state.initiate_connection()
        self.send()
        self.task = asyncio.create_task(self.read())

    def send(self) -> None:
        if not self.writer.is_closing():
            self.writer.write(self.state.data_to_send())

    def begin(self, method: str, fields: dict[str, str], body: bytes) -> tuple[int, asyncio.Future]:
        stream = self.state.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", "/mcp")]
        waiter = self.waiting[stream] = asyncio.get_running_loop().create_future()
        try:
            self.state.send_headers(stream, pseudo + [(k.lower(), v) for k, v in fields.items()], end_stream=not body)
            if body:
                self.state.send_data(stream, body, end_stream=True)
        except h2.exceptions.ProtocolError as e:
            self.waiting.pop(stream)
            raise Failed(f"h2: {type(e).__name__}") from None
        self.send()
        return stream, waiter

    def end(self, stream: int) -> None:
        self.waiting.pop(stream, None)
        if self.leaving and not self.waiting:
            self.writer.close()

    async def read(self) -> None:
        why = "h2: closed before an answer"
        try:
            while True:
                # frame by frame: the library takes a GOAWAY for the end, but answers follow it (RFC 9113 section 6.8)
                head = await self.reader.readexactly(9)
                frame = head + await self.reader.readexactly(int.from_bytes(head[:3]))
                for event in self.state.receive_data(frame):
                    self.took(event)
                self.send()
        except asyncio.IncompleteReadError:
            pass
        except (ConnectionError, ssl.SSLError):
            why = "h2: reset before an answer"
        except h2.exceptions.ProtocolError as e:
            why = f"h2: {type(e).__name__}"
        self.leaving = True
        self.writer.close()
        self.fail(list(self.waiting), why)

    def took(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                fields = dict(event.headers)
                self.answers[event.stream_id] = Answer(int(fields.pop(":status")), fields)
            case h2.events.DataReceived():
                self.answers[event.stream_id].body += event.data
                self.state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                waiter, answer = self.waiting.get(event.stream_id), self.answers.pop(event.stream_id, None)
                if waiter and not waiter.done():
                    waiter.set_result(answer)
            case h2.events.StreamReset():
                self.fail([event.stream_id], f"h2: stream reset, code {int(event.error_code)}")
            case h2.events.ConnectionTerminated():
                self.leaving = True
                self.state.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
                self.fail([s for s in self.waiting if s > event.last_stream_id], "h2: begun after GOAWAY's last stream")

    def fail(self, streams: list[int], why: str) -> None:
        for stream in streams:
            waiter = self.waiting.get(stream)
            if waiter and not waiter.done():
                waiter.set_exception(Failed(why))
