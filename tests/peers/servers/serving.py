"""In: an ASGI application. Out: that application on a loopback port, with a log of the requests which reached it."""

import json
import os
import socket

import uvicorn


def serve(app, port, log_path, sessions=None):
    """Binds 127.0.0.1:port (0 = a free one), prints {"port", "pid"}, and serves until it is killed."""
    # asyncio sets TCP_NODELAY only where the protocol is named; without it each answer would wait 40 ms for an ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(512)
    print(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}), flush=True)
    if log_path:
        app = RequestLog(app, log_path)
    if sessions:
        app = SessionCount(app, sessions)
    uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)).run(sockets=[listener])


class SessionCount:
    """ASGI middleware: /peers/sessions says how many sessions the server holds, which no log of requests can tell."""

    def __init__(self, app, sessions):
        self.app, self.sessions = app, sessions

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] != "/peers/sessions":
            return await self.app(scope, receive, send)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(self.sessions()).encode()})


class RequestLog:
    """ASGI middleware: one JSON line per request, written when the response starts."""

    def __init__(self, app, path):
        self.app = app
        self.file = open(path, "a", buffering=1)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        sent = dict(scope["headers"])
        query = scope.get("query_string", b"").decode()
        line = {
            "pid": os.getpid(),
            "method": scope["method"],
            "path": scope["path"],
            "session": sent.get(b"mcp-session-id", b"").decode() or None,
            "query": query,
            "version": sent.get(b"mcp-protocol-version", b"").decode() or None,
            "rpc": sent.get(b"mcp-method", b"").decode() or None,
        }

        async def log_and_send(message):
            # The SDK's SSE endpoint starts a second response when its stream has ended: not another request.
            if message["type"] == "http.response.start" and "status" not in line:
                given = dict(message["headers"]).get(b"mcp-session-id")
                created = given and not line["session"] and message["status"] // 100 == 2
                line["status"] = message["status"]
                line["created"] = given.decode() if created else None
                self.file.write(json.dumps(line) + "\n")
            await send(message)

        await self.app(scope, receive, log_and_send)
