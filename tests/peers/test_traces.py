"""Calls to real servers with an audit log and traces; the spans are read by OpenTelemetry's own Python messages."""

import http.server
import json
import threading
import time

import pytest
import wire
from harness import Client, explain, log
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECONDS = 20


class Collector:
    """An OTLP receiver over HTTP; `spans` grows as they come."""

    def __init__(self):
        self.spans, self.resources, self.arrived = [], [], threading.Condition()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
                message = ExportTraceServiceRequest()
                message.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
                collector.take(message)
                body = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, message):
        with self.arrived:
            for resource in message.resource_spans:
                self.resources.append({a.key: a.value.string_value for a in resource.resource.attributes})
                for scope in resource.scope_spans:
                    self.spans += scope.spans
            self.arrived.notify_all()

    def wait(self, wanted):
        """The first span for which `wanted` is true."""
        deadline = time.monotonic() + SECONDS
        with self.arrived:
            while True:
                found = [span for span in self.spans if wanted(span)]
                if found:
                    return found[0]
                left = deadline - time.monotonic()
                assert left > 0 and self.arrived.wait(left), f"no such span among {[s.name for s in self.spans]}"


@pytest.fixture
def collector():
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


def attributes(span):
    return {a.key: a.value.string_value or a.value.int_value or a.value.double_value for a in span.attributes}


def audited(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_call_is_one_story_in_spans_and_logs(edge, fleet, collector, tmp_path):
    """What the server gets, what the collector gets and what the logs say is of one trace and one span."""
    audit = tmp_path / "audit.log"
    top = {
        "audit": {"to": str(audit)},
        "traces": {"endpoint": collector.url},
        "trusted_proxies": ["127.0.0.1"],
    }
    running = edge([fleet("python2")[0].url], top=top)
    url = running.http + "/mcp"
    session = wire.open_session(url)
    more = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
    status, headers, body = wire.request("POST", url, wire.tool("whoami"), session=session, **more)
    assert status == 200
    text = wire.message_of(body)["result"]
    seen = text.get("structuredContent") or json.loads(text["content"][0]["text"])
    reached = seen["headers"]
    version, trace, span_id, flags = reached["traceparent"].split("-")
    assert (version, trace, flags, reached["tracestate"]) == ("00", TRACE, "01", "vendor=1")
    span = collector.wait(lambda span: span.name == "tools/call whoami")
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, span_id, PARENT)
    told = attributes(span)
    assert (told["mcp.method.name"], told["gen_ai.tool.name"]) == ("tools/call", "whoami")
    assert told["http.response.status_code"] == 200
    assert collector.resources[0]["service.name"] == "mcp-edge"
    lines = [line for line in audited(audit) if line["request_id"] == headers["x-request-id"]]
    assert [line["event"] for line in lines] == ["call", "answer"]
    assert all(line["trace_id"] == TRACE for line in lines)
    assert (lines[0]["tool"], lines[0]["outcome"], lines[1]["status"]) == ("whoami", "allowed", 200)
    assert session not in audit.read_text()
    running.end()
    mine = [line for line in running.access if line["request_id"] == headers["x-request-id"]]
    assert mine and all(line["trace_id"] == TRACE for line in mine)
    log("one trace at the server, the collector, the access log and the audit log")


@pytest.mark.parametrize("client,kind", [("py2", "python2"), ("ts1", "ts1-pages"), ("ts2", "ts2")])
def test_sdk_clients_notice_nothing_and_all_their_calls_are_told(client, kind, edge, fleet, collector, tmp_path):
    audit = tmp_path / "audit.log"
    top = {"audit": {"to": str(audit), "arguments": "all"}, "traces": {"endpoint": collector.url}}
    running = edge([replica.url for replica in fleet(kind)], top=top)
    mode = "2026-07-28" if kind == "ts2" else "legacy"
    reports = Client(client, running.http + "/mcp", kind, sessions=4, mode=mode).run()
    assert all(r["ok"] for r in reports), explain(reports, running)
    running.end()
    calls = [line for line in running.access if line.get("rpc_method") == "tools/call" and line["event"] != "stream_end"]
    lines = audited(audit)
    told = [line for line in lines if line["event"] == "call" and line["rpc_method"] == "tools/call"]
    assert len(calls) > 4 and {c["request_id"] for c in calls} == {c["request_id"] for c in told}
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    answers = {line["request_id"] for line in lines if line["event"] == "answer"}
    assert {line["request_id"] for line in told} == answers & {line["request_id"] for line in told}
    spans = {span.trace_id.hex() for span in collector.spans}
    assert {c["trace_id"] for c in calls} <= spans, "the last ones come before the process ends"
    log(f"{client} at {kind}: {len(told)} calls in the audit log, {len(collector.spans)} spans")
