"""In: the URL of a protected MCP server, and nothing else that is known of it. Out: one JSON line {"session", "ok", …}.

Runs under Python SDK 1.x and 2.x; the SDK's own OAuth client finds its way (--flow code: registration, PKCE, a browser
without a person; document: a client id metadata document; program: client_credentials). Then it does the --steps in order:
list; count (a counter of the session); admin (a tool for which the token may need more scope); renew (count until the SDK
has renewed its token).
"""

import argparse
import asyncio
import json
import os
import ssl
import sys
import traceback
import urllib.parse

import browser

try:
    import httpx2 as httpx
    from mcp import Client
    from mcp.shared.auth import AuthorizationCodeResult

    SDK = 2
except ImportError:
    import httpx

    SDK = 1
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

SECONDS = 60
CALLBACK = "http://localhost:1/callback"


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--ca")
    parser.add_argument("--user", default="alice")
    parser.add_argument("--transport", choices=["http", "sse"], default="http")
    parser.add_argument("--flow", choices=["code", "document", "program"], default="code")
    parser.add_argument("--document", help="the URL of the client's metadata document")
    parser.add_argument("--client", help="CLIENT_ID:SECRET of a program")
    parser.add_argument("--issuer", help="where a program is registered")
    parser.add_argument("--scope")
    parser.add_argument("--mode", default="legacy")
    parser.add_argument("--steps", default="list,count")
    return parser.parse_args()


class Storage:
    """Where the SDK keeps what it got."""

    def __init__(self, report):
        self.tokens, self.client, self.report = None, None, report

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens
        self.report["tokens"].append(tokens.access_token)
        self.report["scopes"].append(tokens.scope)

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client
        self.report["client"] = client.client_id


def provider(args, report):
    storage = Storage(report)
    if args.flow == "program":
        name, secret = args.client.split(":")
        scope = {"scope" if SDK == 2 else "scopes": args.scope}
        return ClientCredentialsOAuthProvider(args.url, storage, name, secret, issuer=args.issuer, **scope)
    came = {}

    async def redirect(url):
        report["logins"].append(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query)).get("scope"))
        last = await asyncio.to_thread(browser.follow, url, args.ca, args.user)
        came.update(urllib.parse.parse_qsl(urllib.parse.urlsplit(last).query))

    async def callback():
        if SDK == 2:
            return AuthorizationCodeResult(code=came["code"], state=came.get("state"), iss=came.get("iss"))
        return came["code"], came.get("state")

    metadata = OAuthClientMetadata(
        client_name="peers",
        redirect_uris=[CALLBACK],
        grant_types=["authorization_code", "refresh_token"],
        token_endpoint_auth_method="none",
    )
    document = {"client_metadata_url": args.document} if args.flow == "document" else {}
    return OAuthClientProvider(args.url, metadata, storage, redirect, callback, **document)


def http_client(args, report, auth, **more):
    async def note(response):
        session = response.headers.get("mcp-session-id")
        if session and session not in report["sessions"]:
            report["sessions"].append(session)
        report["requests"].append([response.request.method, str(response.request.url), response.status_code])

    verify = ssl.create_default_context(cafile=args.ca)
    timeout = httpx.Timeout(20, read=60)
    more = {name: value for name, value in more.items() if value is not None}
    return httpx.AsyncClient(verify=verify, timeout=timeout, auth=auth, event_hooks={"response": [note]}, **more)


async def one_session(args, report):
    auth = provider(args, report)
    if args.transport == "sse":

        def factory(headers=None, timeout=None, auth=None):
            return http_client(args, report, auth, headers=headers)

        async with sse_client(args.url, httpx_client_factory=factory, auth=auth) as streams:
            return await with_streams(args, report, streams)
    async with http_client(args, report, auth) as http:
        transport = streamable_http_client(args.url, http_client=http)
        if SDK == 2:
            async with Client(transport, mode=args.mode, cache=None) as client:
                return await steps(args, report, client)
        async with transport as streams:
            await with_streams(args, report, streams)


async def with_streams(args, report, streams):
    async with ClientSession(streams[0], streams[1]) as session:
        await session.initialize()
        await steps(args, report, session)


async def steps(args, report, session):
    for step in args.steps.split(","):
        report["step"] = step
        if step == "list":
            report["tools"] = sorted(tool.name for tool in (await session.list_tools()).tools)
        elif step == "count":
            report["counts"].append(await call(session, "count"))
        elif step == "admin":
            report["admin"] = await call(session, "delete_trace")
        elif step == "renew":
            held = len(report["tokens"])
            while len(report["tokens"]) == held:  # until the SDK has had to ask for another
                report["counts"].append(await call(session, "count"))
                await asyncio.sleep(0.1)
    report["step"] = "close"


async def call(session, name):
    result = await session.call_tool(name, {"key": "oauth"})
    text = "".join(getattr(part, "text", "") for part in result.content)
    failed = getattr(result, "is_error", None) or getattr(result, "isError", None)
    assert not failed, f"{name}: {text}"
    return json.loads(text)


def leaf(error):
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error


async def main(args):
    report = {"session": 0, "ok": False, "step": "connect", "tools": None, "admin": None, "client": None}
    report |= {name: [] for name in ("counts", "sessions", "logins", "tokens", "scopes", "requests")}
    task = asyncio.create_task(one_session(args, report))
    await asyncio.wait([task], timeout=SECONDS)
    if not task.done():
        report["error"] = f"the session took longer than {SECONDS} s"
    elif error := task.exception():
        report["error"] = "".join(traceback.format_exception_only(leaf(error))).strip()[:800]
    else:
        report["ok"] = True
    print(json.dumps(report), flush=True)
    sys.stdout.flush()
    # A session that hangs may hang in its clean-up too: leave without asking it.
    os._exit(0 if report["ok"] else 1)


if __name__ == "__main__":
    asyncio.run(main(arguments()))
