"""In: --port, --log. Out: a server on Python SDK 2.x with the tools, resources and prompts that the conformance suite asks for.

It serves both eras on /mcp: sessions for revisions up to 2025-11-25, none for 2026-07-28. Everything a session or a
`requestState` needs lives in this process only, so a request that reaches the wrong replica fails a check.
"""

import argparse
import asyncio
import base64
import json
import os
import struct
import sys
import uuid
import zlib
from typing import Annotated, Any, Literal

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mcp.server.mcpserver import Context, MCPServer  # noqa: E402
from mcp.server.mcpserver.prompts.base import UserMessage  # noqa: E402
from mcp.server.streamable_http import EventMessage, EventStore  # noqa: E402
from mcp.shared.exceptions import MCPError  # noqa: E402
from mcp_types import (  # noqa: E402
    AudioContent,
    CallToolResult,
    ClientCapabilities,
    Completion,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field  # noqa: E402
from serving import serve  # noqa: E402

server = MCPServer("peers-everything", version="1.0.0", log_level="ERROR")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log")
    args = parser.parse_args()
    app = server.streamable_http_app(event_store=Events(), retry_interval=500)
    serve(app, args.port, args.log)


class Events(EventStore):
    """Keeps what was sent on each stream, so that a client may come back with Last-Event-ID."""

    def __init__(self):
        self.sent = []

    async def store_event(self, stream_id, message):
        self.sent.append((stream_id, message))
        return str(len(self.sent))

    async def replay_events_after(self, last_event_id, send_callback):
        last = int(last_event_id)
        if not 0 < last <= len(self.sent):
            return None
        stream = self.sent[last - 1][0]
        for number, (stream_id, message) in enumerate(self.sent[last:], last + 1):
            if stream_id == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def png():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b"")


def wav():
    data = b"\x80" * 8
    form = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


PNG = base64.b64encode(png()).decode()
WAV = base64.b64encode(wav()).decode()


def text(words):
    return TextContent(type="text", text=words)


def image():
    return ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri, mime_type, words):
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=words))


def result(*content, **more):
    return CallToolResult(content=list(content), **more)


# --- tools with plain answers


@server.tool()
async def test_simple_text() -> CallToolResult:
    """A text."""
    return result(text("This is a simple text response for testing."))


@server.tool()
async def test_image_content() -> CallToolResult:
    """An image."""
    return result(image())


@server.tool()
async def test_audio_content() -> CallToolResult:
    """A sound."""
    return result(AudioContent(type="audio", data=WAV, mime_type="audio/wav"))


@server.tool()
async def test_embedded_resource() -> CallToolResult:
    """A resource in the answer."""
    return result(embedded("test://embedded-resource", "text/plain", "This is an embedded resource content."))


@server.tool()
async def test_multiple_content_types() -> CallToolResult:
    """Text, image and resource."""
    data = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    return result(text("Multiple content types test:"), image(), data)


@server.tool()
async def test_error_handling() -> CallToolResult:
    """Always fails."""
    return result(text("This tool intentionally returns an error for testing"), is_error=True)


@server.tool()
async def test_tool_with_logging(ctx: Context) -> CallToolResult:
    """Logs three times."""
    await ctx.info("Tool execution started")
    await asyncio.sleep(0.05)
    await ctx.info("Tool processing data")
    await asyncio.sleep(0.05)
    await ctx.info("Tool execution completed")
    return result(text("Logged."))


@server.tool()
async def test_logging_tool(ctx: Context) -> CallToolResult:
    """Logs once, which only reaches a client that asked for logs."""
    await ctx.info("A line of log")
    return result(text("Logged."))


@server.tool()
async def test_tool_with_progress(ctx: Context) -> CallToolResult:
    """Progress 0, 50, 100."""
    for step in (0, 50, 100):
        await ctx.report_progress(step, 100)
        await asyncio.sleep(0.05)
    return result(text("Done."))


@server.tool()
async def test_reconnection(ctx: Context) -> CallToolResult:
    """Closes its stream in the middle; the answer waits for the client that comes back."""
    await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    return result(text("The answer after reconnecting."))


@server.tool()
async def test_custom_header(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})], query: str = ""
) -> CallToolResult:
    """One argument is mirrored into a header."""
    return result(text(f"{region} {query}"))


@server.tool()
async def json_schema_2020_12_tool() -> CallToolResult:
    """Tool with JSON Schema 2020-12 features"""
    return result(text("ok"))


SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
server._tool_manager.get_tool("json_schema_2020_12_tool").parameters = SCHEMA


# --- tools that ask the client, up to 2025-11-25


@server.tool()
async def test_sampling(prompt: str, ctx: Context) -> CallToolResult:
    """Asks the client's model."""
    message = SamplingMessage(role="user", content=text(prompt))
    answer = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return result(text(f"LLM response: {getattr(answer.content, 'text', '')}"))


class User(BaseModel):
    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


@server.tool()
async def test_elicitation(message: str, ctx: Context) -> CallToolResult:
    """Asks the user."""
    answer = await ctx.elicit(message, User)
    data = getattr(answer, "data", None)
    content = data.model_dump() if data else {}
    return result(text(f"User response: action={answer.action}, content={json.dumps(content)}"))


async def elicit(ctx, message, properties):
    schema = {"type": "object", "properties": properties, "required": []}
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    content = json.dumps(answer.content or {})
    return result(text(f"Elicitation completed: action={answer.action}, content={content}"))


@server.tool()
async def test_elicitation_sep1034_defaults(ctx: Context) -> CallToolResult:
    """A form with a default of each kind."""
    return await elicit(
        ctx,
        "Please review the defaults",
        {
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            "verified": {"type": "boolean", "default": True},
        },
    )


def titled(*names):
    return [{"const": f"value{n}", "title": f"{name}"} for n, name in enumerate(names, 1)]


@server.tool()
async def test_elicitation_sep1330_enums(ctx: Context) -> CallToolResult:
    """A form with each kind of enum."""
    options = ["option1", "option2", "option3"]
    return await elicit(
        ctx,
        "Please choose",
        {
            "untitledSingle": {"type": "string", "enum": options},
            "titledSingle": {"type": "string", "oneOf": titled("First Option", "Second Option", "Third Option")},
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
            "titledMulti": {
                "type": "array",
                "items": {"anyOf": titled("First Choice", "Second Choice", "Third Choice")},
            },
        },
    )


# --- tools that ask the client, 2026-07-28: the answer says what is missing, the client calls again


def question(words, **properties):
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return ElicitRequest(params=ElicitRequestFormParams(message=words, requested_schema=schema))


def name_question():
    return question("What is your name?", name={"type": "string"})


def sampling(words, tokens):
    message = SamplingMessage(role="user", content=text(words))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=tokens))


def ask(state=None, **requests):
    return InputRequiredResult(input_requests=requests, request_state=state)


def answers(ctx, *keys):
    """The client's answers to these questions, or None when one is missing."""
    given = ctx.input_responses or {}
    return [given[key] for key in keys] if all(key in given for key in keys) else None


def accepted(answer):
    return isinstance(answer, ElicitResult) and answer.action == "accept" and isinstance(answer.content, dict)


@server.tool()
async def test_input_required_result_elicitation(ctx: Context) -> CallToolResult | InputRequiredResult:
    """Asks for a name."""
    given = answers(ctx, "user_name")
    if not given or not accepted(given[0]) or not isinstance(given[0].content.get("name"), str):
        return ask(user_name=name_question())
    return result(text(f"Hello, {given[0].content['name']}!"))


@server.tool()
async def test_input_required_result_sampling(ctx: Context) -> CallToolResult | InputRequiredResult:
    """Asks the client's model."""
    given = answers(ctx, "capital_question")
    if not given:
        return ask(capital_question=sampling("What is the capital of France?", 100))
    return result(text(getattr(given[0].content, "text", "")))


@server.tool()
async def test_input_required_result_list_roots(ctx: Context) -> CallToolResult | InputRequiredResult:
    """Asks for the roots."""
    given = answers(ctx, "client_roots")
    if not given:
        return ask(client_roots=ListRootsRequest())
    return result(text("Roots: " + ", ".join(str(root.uri) for root in given[0].roots)))


@server.tool()
async def test_input_required_result_request_state(ctx: Context) -> CallToolResult | InputRequiredResult:
    """Wants its state back."""
    given = answers(ctx, "confirm")
    if not given or ctx.request_state != "confirming":
        return ask("confirming", confirm=question("Please confirm", ok={"type": "boolean"}))
    return result(text("state-ok"))


@server.tool()
async def test_input_required_result_multiple_inputs(ctx: Context) -> CallToolResult | InputRequiredResult:
    """Three questions at once."""
    if not answers(ctx, "user_name", "greeting", "client_roots") or not ctx.request_state:
        return ask(
            "three",
            user_name=name_question(),
            greeting=sampling("Generate a greeting", 50),
            client_roots=ListRootsRequest(),
        )
    return result(text("Got all three."))


@server.tool()
async def test_input_required_result_multi_round(ctx: Context) -> CallToolResult | InputRequiredResult:
    """Two rounds of questions."""
    state = ctx.request_state
    if state == "round-1" and answers(ctx, "step1"):
        return ask("round-2", step2=question("Step 2: What is your favorite color?", color={"type": "string"}))
    if state == "round-2" and answers(ctx, "step2"):
        return result(text("Two rounds done."))
    return ask("round-1", step1=question("Step 1: What is your name?", name={"type": "string"}))


@server.tool()
async def test_input_required_result_tampered_state(ctx: Context) -> CallToolResult | InputRequiredResult:
    """The SDK seals the state; a changed one never gets here."""
    if not answers(ctx, "confirm"):
        return ask("sealed", confirm=question("Please confirm", ok={"type": "boolean"}))
    return result(text("Confirmed."))


@server.tool()
async def test_input_required_result_capabilities(ctx: Context) -> CallToolResult | InputRequiredResult:
    """Asks only what the client can answer."""
    can = ctx.client_capabilities or ClientCapabilities()
    requests = {}
    if can.sampling is not None:
        requests["greeting"] = sampling("Generate a greeting", 50)
    if can.elicitation is not None:
        requests["user_name"] = name_question()
    if can.roots is not None:
        requests["client_roots"] = ListRootsRequest()
    if not requests or ctx.input_responses:
        return result(text("Nothing to ask."))
    return ask(**requests)


@server.tool()
async def test_missing_capability(ctx: Context) -> CallToolResult:
    """Needs sampling."""
    can = ctx.client_capabilities or ClientCapabilities()
    if can.sampling is None:
        data = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(code=-32021, message="Client lacks the capability: sampling", data=data)
    return result(text("The client can sample."))


@server.tool()
async def test_streaming_elicitation(ctx: Context) -> CallToolResult | InputRequiredResult:
    """Progress first, then a question."""
    await ctx.report_progress(1, 2)
    if not answers(ctx, "user_name"):
        return ask(user_name=name_question())
    return result(text("Done."))


@server.tool()
async def test_trigger_tool_change(ctx: Context) -> CallToolResult:
    """Says that the tools changed."""
    await ctx.notify_tools_changed()
    return result(text("Triggered."))


@server.tool()
async def test_trigger_prompt_change(ctx: Context) -> CallToolResult:
    """Says that the prompts changed."""
    await ctx.notify_prompts_changed()
    return result(text("Triggered."))


# --- resources


@server.resource("test://static-text", description="A text", mime_type="text/plain")
def static_text() -> str:
    return "This is the content of the static text resource."


@server.resource("test://static-binary", description="An image", mime_type="image/png")
def static_binary() -> bytes:
    return png()


@server.resource("test://watched-resource", description="One to subscribe to", mime_type="text/plain")
def watched() -> str:
    return "Watched."


@server.resource("test://template/{id}/data", description="Data by id", mime_type="application/json")
def templated(id: str) -> str:
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


# --- prompts


@server.prompt(description="Simple")
def test_simple_prompt() -> list[UserMessage]:
    return [said(text("This is a simple prompt for testing."))]


@server.prompt(description="With arguments")
def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
    return [said(text(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))]


@server.prompt(description="With a resource")
def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
    resource = embedded(resourceUri, "text/plain", "Embedded resource content for testing.")
    return [said(resource), said(text("Please process the embedded resource above."))]


@server.prompt(description="With an image")
def test_prompt_with_image() -> list[UserMessage]:
    return [said(image()), said(text("Please analyze the image above."))]


@server.prompt(description="Asks first")
def test_input_required_result_prompt(ctx: Context) -> Any:
    given = answers(ctx, "user_context")
    if not given:
        return ask(user_context=question("What context should the prompt use?", context={"type": "string"}))
    return [said(text(f"Context: {(given[0].content or {}).get('context')}"))]


def said(content):
    return UserMessage(content)


# --- what has no decorator


@server.completion()
async def complete(ref, argument, context):
    names = [name for name in ("paris", "park", "party") if name.startswith(argument.value)]
    return Completion(values=names, total=len(names), has_more=False)


async def accept(ctx, params):
    return EmptyResult()


for method, params in (
    ("logging/setLevel", SetLevelRequestParams),
    ("resources/subscribe", SubscribeRequestParams),
    ("resources/unsubscribe", UnsubscribeRequestParams),
):
    server._lowlevel_server.add_request_handler(method, params, accept)


if __name__ == "__main__":
    main()
