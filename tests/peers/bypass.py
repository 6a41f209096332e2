"""In: a server's URL, or an edge's before it. Out: forbidden calls sent there in odd ways, and whether they ran."""

import http.client
import json
import pathlib
import ssl
import urllib.parse
import uuid

import attacks
import wire

TOOL = "delete_trace"


class Target:
    """A server of one kind, directly or through an edge; `replica` is the one whose traces are looked at."""

    headers = {"mcp-protocol-version": "2025-11-25"}

    def __init__(self, url, replica, ca=None, token=None):
        self.url, self.ca, self.session = url, ca, None
        self.credentials = {"authorization": f"Bearer {token}"} if token else {}
        self.trace = pathlib.Path(f"{replica.log}.trace")
        self.open()

    def open(self):
        pass

    def message(self, name, key):
        return self.dressed(wire.tool(name, key=key))

    def dressed(self, message):
        """What this era adds to a message, and below to its headers."""
        return message

    def of(self, name, method="tools/call"):
        return {}

    def call(self, name, key):
        """A call as every client makes it: the status and the result."""
        return self.exchange(self.message(name, key), self.of(name))

    def ask(self, method, params):
        """Another request as every client makes it: its result."""
        status, result = self.exchange(self.dressed(wire.call(method, params)), self.of(None, method))
        assert result is not None, f"{method}: {status}"
        return result

    def exchange(self, message, more):
        status, _, body = self.send(attacks.post(json.dumps(message)), more)
        return status, result_of(body)

    def attack(self, make):
        """Sends one forbidden call as `make` says; returns the answer's status and whether the tool ran."""
        key = uuid.uuid4().hex
        status, _, _ = self.send(make(self.message(TOOL, key)), self.of(TOOL))
        # This answer proves that what was sent before has been dealt with.
        answered, result = self.call("count", key)
        if answered not in (200, 202):  # the odd request ended the session: DELETE does
            self.open()
            answered, result = self.call("count", key)
        assert result and not result.get("isError"), f"{answered} {result}"
        return status, self.ran(key)

    def ran(self, key):
        return self.trace.exists() and key in self.trace.read_text().split()

    def send(self, request, more=None):
        """One exchange on a connection of its own; a connection that the other side closes is an answer, too."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self.ca)
            connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=30, context=context)
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        sent = {"accept": "application/json, text/event-stream", "content-length": str(len(request.body))}
        if self.session:
            sent |= {"mcp-session-id": self.session}
        sent |= self.headers | (more or {}) | self.credentials | request.headers
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.putrequest(request.method, target, skip_accept_encoding=True)
            for name, value in sent.items():
                for each in value if isinstance(value, list) else [value]:
                    if each:  # an empty one stands for none
                        connection.putheader(name, each)
            connection.endheaders(request.body)
            answer = connection.getresponse()
            stream = "event-stream" in answer.headers.get("content-type", "") and request.method == "GET"
            return answer.status, answer.headers, b"" if stream else answer.read()
        except (http.client.HTTPException, OSError) as error:
            return 0, {}, repr(error).encode()
        finally:
            connection.close()


class Sessions(Target):
    """The revisions from 2025-03-26 on, with a session."""

    def open(self):
        self.session = wire.open_session(self.url, self.ca, **self.credentials)


class Modern(Target):
    """2026-07-28: no session; headers repeat what the body says."""

    headers = {"mcp-protocol-version": "2026-07-28"}

    def dressed(self, message):
        start = "io.modelcontextprotocol/"
        who = {"name": "peers-wire", "version": "1"}
        meta = {f"{start}protocolVersion": "2026-07-28", f"{start}clientInfo": who, f"{start}clientCapabilities": {}}
        return message | {"params": {"_meta": meta, **message["params"]}}

    def of(self, name, method="tools/call"):
        return {"mcp-method": method, "mcp-name": name}


class Events(Target):
    """The transport of 2024-11-05: calls go to the address of the first event, answers come on the stream."""

    headers = {}

    def open(self):
        self.home = getattr(self, "home", self.url)
        self.stream = wire.Stream(self.home, self.ca, seconds=60, **self.credentials)
        _, line = self.stream.wait(lambda line: line.startswith("data:"), 20)
        self.url = urllib.parse.urljoin(self.home, line.split(":", 1)[1].strip())
        for message in (wire.call("initialize", wire.INITIALIZE), wire.call("notifications/initialized", notification=True)):
            status, _, body = self.send(attacks.post(json.dumps(message)))
            assert status == 202, f"{status} {body[:300]}"

    def exchange(self, message, more):
        status, _, body = self.send(attacks.post(json.dumps(message)))
        if status != 202:
            return status, result_of(body)
        wanted = lambda line: line.startswith("data:") and f'"id":{message["id"]}' in line.replace(" ", "")  # noqa: E731
        _, line = self.stream.wait(wanted, 20)
        return status, json.loads(line[5:]).get("result")


def result_of(body):
    """The result of a JSON or SSE answer, or None where it is an error or nothing of the kind."""
    try:
        return wire.message_of(body).get("result")
    except (json.JSONDecodeError, IndexError, UnicodeDecodeError, AttributeError):
        return None
