"""In: a URL of an MCP server. Out: single requests and raw streams, without an SDK that would hide what came and when."""

import http.client
import itertools
import json
import ssl
import threading
import time
import urllib.parse

ids = itertools.count(1)
INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "peers-wire", "version": "1"},
}


def connect(url, ca=None, seconds=30):
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=seconds, context=context)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)


def request(method, url, body=None, ca=None, session=None, seconds=30, **headers):
    """One exchange on a connection of its own; returns status, headers and the whole body."""
    connection, answer = begin(method, url, body, ca, session, seconds, **headers)
    data = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data


def begin(method, url, body=None, ca=None, session=None, seconds=30, **headers):
    """Sends a request and returns when the response head has come."""
    connection = connect(url, ca, seconds)
    parts = urllib.parse.urlsplit(url)
    sent = {"accept": "application/json, text/event-stream"}
    if body is not None:
        sent["content-type"] = "application/json"
    if session is not None:
        sent |= {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.request(method, target, json.dumps(body) if body is not None else None, sent)
    return connection, connection.getresponse()


def call(method, params=None, notification=False):
    message = {"jsonrpc": "2.0", "method": method} | ({"params": params} if params is not None else {})
    return message if notification else message | {"id": next(ids)}


def tool(name, **arguments):
    return call("tools/call", {"name": name, "arguments": arguments})


def open_session(url, ca=None, **more):
    """initialize + notifications/initialized; returns the session id that the client is given."""
    status, headers, body = request("POST", url, call("initialize", INITIALIZE), ca, **more)
    assert status == 200, f"initialize: {status} {body[:300]}"
    session = headers["mcp-session-id"]
    status, _, body = request("POST", url, call("notifications/initialized", notification=True), ca, session, **more)
    assert status == 202, f"initialized: {status} {body[:300]}"
    return session


def message_of(body):
    """The JSON-RPC message of a body that is JSON, or the last one of an event stream."""
    text = body.decode()
    if text.lstrip().startswith("{"):
        return json.loads(text)
    return json.loads([line[5:] for line in text.splitlines() if line.startswith("data:") and line[5:].strip()][-1])


class Stream:
    """An event stream whose lines a thread reads, each with the moment of its arrival."""

    def __init__(self, url, ca=None, session=None, seconds=30, **headers):
        headers = {"accept": "text/event-stream", **headers}
        self.connection, self.answer = begin("GET", url, ca=ca, session=session, seconds=seconds, **headers)
        self.status = self.answer.status
        self.socket = self.connection.sock or self.answer.fp.raw._sock
        self.lines, self.changed, self.error, self.ended = [], threading.Condition(), None, None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        try:
            while line := self.answer.readline():
                with self.changed:
                    self.lines.append((time.monotonic(), line.decode().rstrip("\r\n")))
                    self.changed.notify_all()
        except Exception as error:  # a reset or a timeout: the test says whether that is fine
            self.error = repr(error)
        with self.changed:
            self.ended = time.monotonic()
            self.changed.notify_all()

    def wait(self, wanted, seconds):
        """The first (moment, line) that fits, from the start of the stream."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while True:
                for moment, line in self.lines:
                    if wanted(line):
                        return moment, line
                left = deadline - time.monotonic()
                assert left > 0, f"no such line in {seconds} s; came: {self.lines[-20:]} error: {self.error}"
                assert self.ended is None, f"the stream ended; came: {self.lines[-20:]} error: {self.error}"
                self.changed.wait(left)

    def comments(self):
        return [moment for moment, line in self.lines if line.startswith(":")]

    def abort(self):
        """Goes away as a client does whose process ends: the connection closes without another word."""
        self.socket.shutdown(2)
        self.connection.close()
        self.reader.join(10)
