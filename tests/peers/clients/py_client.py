"""In: the URL of an MCP server. Out: one JSON line per session on stdout: {"session", "ok", "pids", "counts", ...}.

Runs under Python SDK 1.x and 2.x. Each session does initialize, tools/list, a call with progress whose server waits for
the client's word after each step, count, a message on the GET stream, count again, DELETE. With --pause it prints
{"event": "paused"} when all sessions are half way, and goes on after one line on stdin.
"""

import argparse
import asyncio
import json
import os
import ssl
import sys
import traceback
import uuid
from contextlib import asynccontextmanager

try:
    import httpx2 as httpx
    from mcp import Client

    SDK = 2
except ImportError:
    import httpx

    SDK = 1
from mcp import ClientSession, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

STEPS = 4
SECONDS = 100


def main():
    args = arguments()
    asyncio.run(run_all(args))


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--transport", choices=["http", "sse", "stdio"], default="http")
    parser.add_argument("--command", help="stdio only: JSON list; the URL is appended (mcp-remote)")
    parser.add_argument("--mode", default="legacy", help="legacy | auto | 2026-07-28 (SDK 2.x only)")
    parser.add_argument("--ca")
    parser.add_argument("--header", help="sent with every request: `Name: value`")
    parser.add_argument("--h2", action="store_true")
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--tools", choices=["kit", "everything", "demo"], default="kit")
    parser.add_argument("--stateless", action="store_true", help="the server keeps no session: no gate, no GET stream")
    parser.add_argument("--json", action="store_true", help="the server answers plain JSON: no progress can arrive")
    parser.add_argument("--pause", action="store_true")
    return parser.parse_args()


async def run_all(args):
    barrier = Barrier(args.sessions, args.pause)
    results = await asyncio.gather(*(guarded(args, n, barrier) for n in range(args.sessions)))
    for result in results:
        print(json.dumps(result), flush=True)
    # A session that hangs may hang in its clean-up too: leave without asking it.
    os._exit(0 if all(r["ok"] for r in results) else 1)


async def guarded(args, number, barrier):
    report = {"session": number, "ok": False, "pids": [], "counts": [], "http": []}
    report["step"] = "connect"
    task = asyncio.create_task(one_session(args, report, barrier))
    await asyncio.wait([task], timeout=SECONDS)
    if not task.done():
        report["error"] = f"the session took longer than {SECONDS} s"
    elif error := task.exception():
        report["error"] = "".join(traceback.format_exception_only(leaf(error))).strip()[:500]
    else:
        report["ok"] = True
        report.pop("step")
    barrier.leave(report)
    report["pids"] = sorted(set(report["pids"]))
    report["http"] = sorted(set(report["http"]))
    return report


async def one_session(args, report, barrier):
    heard = asyncio.Event()

    async def on_message(message):
        kind = type(getattr(message, "root", message)).__name__
        if kind == "ToolListChangedNotification":
            heard.set()

    async with connected(args, report, on_message) as session:
        modern = report["protocol"] >= "2026-07-28"
        steps = Steps(session, args, report, heard, sticky=not (modern or args.stateless))
        await steps.first_half()
        report["step"] = "barrier"
        await barrier.wait(report)
        await steps.second_half()
        report["step"] = "close"


class Steps:
    """The calls of one session, in two halves: the edge may be restarted between them."""

    def __init__(self, session, args, report, heard, sticky):
        self.session, self.args, self.report, self.heard, self.sticky = session, args, report, heard, sticky
        self.key = uuid.uuid4().hex

    async def first_half(self):
        self.report["step"] = "tools/list"
        tools = await self.session.list_tools()
        assert len(tools.tools) > 0, "no tools"
        if self.args.tools == "kit":
            await self.progress()
            await self.count()
            await self.count()
            await self.message()
            await self.large()
        else:
            await self.other_server()

    async def second_half(self):
        if self.args.tools == "kit":
            await self.count()
            await self.message()
            await self.progress()
        else:
            await self.other_server()

    async def progress(self):
        self.report["step"] = "progress"
        seen = asyncio.Queue()

        async def on_progress(progress, total, message):
            await seen.put(progress)

        key = self.key if self.sticky and not self.args.json else ""
        call = asyncio.create_task(self.call("slow", {"steps": STEPS, "key": key}, on_progress))
        arrived = 0
        while arrived < STEPS and not call.done():
            wait = asyncio.create_task(seen.get())
            await asyncio.wait([wait, call], return_when=asyncio.FIRST_COMPLETED)
            if not wait.done():
                wait.cancel()
                break
            arrived += 1
            if key:
                await self.call("ack", {"key": key, "step": int(wait.result())})
        assert text_of(await call) == "done"
        arrived += seen.qsize()
        self.report["progress"] = arrived
        assert arrived >= 3 or self.args.json, f"only {arrived} progress notifications"

    async def count(self):
        self.report["step"] = "count"
        answer = json_of(await self.call("count", {"key": self.key}))
        self.report["pids"].append(answer["pid"])
        self.report["counts"].append(answer["count"])
        if self.sticky:
            assert answer["session"] == len(self.report["counts"]), f"session counter: {answer}"
            assert answer["count"] == len(self.report["counts"]), f"counter of another replica: {answer}"

    async def message(self):
        """A message which belongs to no request: it must come over the GET stream (or a listen stream)."""
        self.report["step"] = "server message"
        if self.report["protocol"] >= "2026-07-28" and self.args.sessions == 1:
            return await self.listen()
        if not self.sticky:
            return
        for attempt in range(1, 11):  # the SDK opens its GET stream in the background, so the first may be too early
            self.heard.clear()
            await self.call("touch", {})
            try:
                await asyncio.wait_for(self.heard.wait(), 1.5)
                self.report["touches"] = self.report.get("touches", 0) + attempt
                return
            except (asyncio.TimeoutError, TimeoutError):
                continue
        raise AssertionError("no message arrived on the GET stream in 10 tries")

    async def listen(self):
        """2026-07-28: the listen stream and the call that causes the message must meet on one replica."""
        async with self.session.listen(tools_list_changed=True) as subscription:
            await self.call("touch", {})
            async with asyncio.timeout(10):
                async for _ in subscription:
                    break
        self.report["listened"] = self.report.get("listened", 0) + 1

    async def large(self):
        self.report["step"] = "big"
        assert len(text_of(await self.call("big", {"size": 200_000}))) == 200_000

    async def other_server(self):
        """Servers that are not ours: they have an echo and a slow call with progress."""
        self.report["step"] = "echo"
        assert self.key in text_of(await self.call("echo", {"message": self.key}))
        name, arguments = "trigger-long-running-operation", {"duration": 1, "steps": 4}
        if self.args.tools == "demo":
            name, arguments = "slow", {"n": 4, "interval_ms": 100}
            for _ in range(2):
                self.report["pids"].append(text_of(await self.call("whoami", {})))
                self.report["counts"].append(int(text_of(await self.call("count", {}))))
            counted = list(range(1, len(self.report["counts"]) + 1))
            assert self.report["counts"] == counted, f"session counter: {self.report['counts']}"
        self.report["step"] = "progress"
        seen = []

        async def on_progress(progress, total, message):
            seen.append(progress)

        await self.call(name, arguments, on_progress)
        self.report["progress"] = len(seen)
        assert len(seen) >= 3, f"only {len(seen)} progress notifications"

    async def call(self, name, arguments, on_progress=None):
        result = await self.session.call_tool(name, arguments, progress_callback=on_progress)
        failed = getattr(result, "is_error", None) or getattr(result, "isError", None)
        assert not failed, f"{name}: {text_of(result)}"
        return result


@asynccontextmanager
async def connected(args, report, on_message):
    if SDK == 2 and args.transport == "http":
        async with http_client(args, report) as http:
            transport = streamable_http_client(args.url, http_client=http)
            async with Client(transport, mode=args.mode, message_handler=on_message, cache=None) as client:
                report["protocol"] = client.protocol_version
                yield client
        return
    if args.transport == "stdio":
        command, *rest = json.loads(args.command)
        opened = stdio_client(StdioServerParameters(command=command, args=[*rest, args.url], env=dict(os.environ)))
    elif args.transport == "sse":
        # Both SDKs call the factory with headers, timeout and auth.
        def factory(headers=None, timeout=None, auth=None):
            return http_client(args, report, headers=headers, auth=auth)

        opened = sse_client(args.url, httpx_client_factory=factory)
    else:
        opened = http_then_transport(args, report)
    async with opened as streams:
        async with ClientSession(streams[0], streams[1], message_handler=on_message) as session:
            started = await session.initialize()
            report["protocol"] = getattr(started, "protocol_version", None) or started.protocolVersion
            yield session


@asynccontextmanager
async def http_then_transport(args, report):
    async with http_client(args, report) as http:
        async with streamable_http_client(args.url, http_client=http) as streams:
            yield streams


def http_client(args, report, **more):
    async def note(response):
        report["http"].append(response.http_version)

    verify = ssl.create_default_context(cafile=args.ca) if args.ca else True
    more = {name: value for name, value in more.items() if value is not None}
    if args.header:
        name, value = args.header.split(": ", 1)
        more["headers"] = {**more.get("headers", {}), name: value}
    timeout = httpx.Timeout(30, read=300)
    return httpx.AsyncClient(
        verify=verify, http1=not args.h2, http2=args.h2, timeout=timeout, event_hooks={"response": [note]}, **more
    )


class Barrier:
    """All sessions meet here; a session that failed no longer counts."""

    def __init__(self, parties, pause):
        self.parties, self.pause, self.open = parties, pause, asyncio.Event()
        self.arrived = set()

    async def wait(self, report):
        self.leave(report)
        await self.open.wait()

    def leave(self, report):
        """Counts this session as arrived; the last one opens the barrier."""
        before = len(self.arrived)
        self.arrived.add(report["session"])
        if before < self.parties == len(self.arrived):
            self.task = asyncio.create_task(self.release())

    async def release(self):
        if self.pause:
            print(json.dumps({"event": "paused"}), flush=True)
            await asyncio.to_thread(sys.stdin.readline)
        self.open.set()


def text_of(result):
    return "".join(getattr(part, "text", "") for part in result.content)


def json_of(result):
    return json.loads(text_of(result))


def leaf(error):
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
