"""In: command line flags. Out: a stateful MCP server on loopback, the same code under Python SDK 1.x and 2.x.

Prints one JSON line {"port", "pid"} on stdout once the socket is bound. With --log, every request becomes one JSON line
in that file, so that a test can count at the replica which sessions it served.
"""

import argparse
import asyncio
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serving import serve  # noqa: E402

try:  # SDK 2.x
    from mcp.server.mcpserver import Context
    from mcp.server.mcpserver import MCPServer as Server

    SDK = 2
except ImportError:  # SDK 1.x
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as Server

    SDK = 1


def main():
    args = arguments()
    options = {"json_response": args.mode == "json", "stateless_http": args.mode == "stateless"}
    server = Server("peers-python", log_level="ERROR", **(options if SDK == 1 else {}))
    add_tools(server)
    if args.mode == "sse":
        app = server.sse_app()
    else:
        app = server.streamable_http_app(**({} if SDK == 1 else options))
    sessions = None if args.mode == "sse" else lambda: len(server.session_manager._server_instances)
    serve(app, args.port, args.log, sessions)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["stateful", "stateless", "json", "sse"], default="stateful")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log")
    return parser.parse_args()


def add_tools(server):
    by_key = {}
    by_session = {}
    acks = {}

    @server.tool()
    async def echo(text: str) -> str:
        """Returns its text."""
        return text

    @server.tool()
    async def whoami(ctx: Context) -> dict:
        """The process that answered and the headers which reached it."""
        return {"pid": os.getpid(), "headers": dict(http_request(ctx).headers)}

    @server.tool()
    async def count(key: str, ctx: Context) -> dict:
        """Counts the calls with this key in this process, and the calls of this session."""
        session = session_id(ctx)
        by_key[key] = by_key.get(key, 0) + 1
        by_session[session] = by_session.get(session, 0) + 1
        return {"pid": os.getpid(), "count": by_key[key], "session": by_session[session] if session else None}

    @server.tool()
    async def delete_trace(key: str) -> dict:
        """Leaves its key in a file: proof that it ran, for tests of who may run it."""
        with open(f"{os.environ['PEERS_LOG']}.trace", "a") as file:
            file.write(key + "\n")
        return {"deleted": key}

    @server.tool()
    async def slow(steps: int, key: str, ctx: Context) -> str:
        """Sends progress `steps` times; with a key it waits for `ack` with that key after each one."""
        for step in range(steps):
            await ctx.report_progress(step, steps)
            if key:
                event = acks.setdefault((key, step), asyncio.Event())
                await asyncio.wait_for(event.wait(), 30)
                del acks[(key, step)]
            else:
                await asyncio.sleep(0.1)
        return "done"

    @server.tool()
    async def ack(key: str, step: int) -> str:
        """Lets `slow` take its next step: proves that the client had the progress before the next was sent."""
        acks.setdefault((key, step), asyncio.Event()).set()
        return "ok"

    @server.tool()
    async def silent(seconds: float) -> str:
        """Says nothing for some seconds."""
        await asyncio.sleep(seconds)
        return "spoke"

    @server.tool()
    async def big(size: int) -> str:
        """A text of `size` characters."""
        return "x" * size

    @server.tool()
    async def touch(ctx: Context) -> str:
        """Makes the server send notifications/tools/list_changed outside of this call."""
        modern = getattr(ctx, "protocol_version", None) or ""
        if modern >= "2026-07-28":
            await ctx.notify_tools_changed()
        else:
            await ctx.session.send_tool_list_changed()
        return "touched"


def http_request(ctx):
    return ctx.request_context.request


def session_id(ctx):
    request = http_request(ctx)
    return request.headers.get("mcp-session-id") or request.query_params.get("session_id")


if __name__ == "__main__":
    main()
