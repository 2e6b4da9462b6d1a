"""A collector on this machine, which takes traces as any does: protobuf over HTTP."""

from __future__ import annotations

import gzip
import json
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """What was sent to it."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def spans(self) -> list[Span]:
        """All spans, as they came."""
        return spans_of(*self.requests)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.headers["Content-Type"] == "application/x-protobuf"
            if collector.status == 200:
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(collector.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def spans_of(*requests: ExportTraceServiceRequest) -> list[Span]:
    """The spans of some exports."""
    return [
        span
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def of_json(line: bytes) -> ExportTraceServiceRequest:
    """An export in OTLP's JSON, whose ids are in hex, unlike those of protobuf's."""
    found = json.loads(line)
    for resource in found["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = b64encode(bytes.fromhex(span[name])).decode()
    return json_format.ParseDict(found, ExportTraceServiceRequest())


def attributes_of(span: Span) -> dict[str, Any]:
    """The attributes of a span."""
    return {each.key: _value(each.value) for each in span.attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    assert kind is not None
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)


@dataclass(frozen=True)
class Problem:
    """What a consumer would refuse, or read wrongly."""

    span: str
    reason: str


# Name, type, and whether it must be there, by the operation; of the conventions for generative AI.
_COMMON: Mapping[str, tuple[type, bool]] = {
    "gen_ai.operation.name": (str, True),
    "gen_ai.provider.name": (str, True),
    "gen_ai.conversation.id": (str, True),
}
_BY_OPERATION: Mapping[str, Mapping[str, tuple[type, bool]]] = {
    "chat": {
        "gen_ai.response.model": (str, True),
        "gen_ai.response.id": (str, False),
        "gen_ai.response.finish_reasons": (list, False),
        "gen_ai.usage.input_tokens": (int, True),
        "gen_ai.usage.output_tokens": (int, True),
        "gen_ai.usage.cache_read.input_tokens": (int, True),
        "gen_ai.usage.cache_creation.input_tokens": (int, True),
        "gen_ai.output.messages": (str, False),
    },
    "execute_tool": {
        "gen_ai.tool.name": (str, True),
        "gen_ai.tool.type": (str, True),
        "gen_ai.tool.call.id": (str, False),
        "gen_ai.tool.call.arguments": (str, False),
        "gen_ai.tool.call.result": (str, False),
        "error.type": (str, False),
    },
    "invoke_agent": {
        "gen_ai.agent.name": (str, False),
        "gen_ai.agent.id": (str, False),
        "gen_ai.input.messages": (str, False),
    },
}


def problems_of(spans: list[Span]) -> list[Problem]:
    """What is wrong with the spans of one or several sessions, each sent once."""
    found: list[Problem] = []

    def check(span: Span, is_right: bool, reason: str) -> None:
        if not is_right:
            found.append(Problem(span.name, reason))

    ids = [(span.trace_id, span.span_id) for span in spans]
    for span in spans:
        check(span, len(span.trace_id) == 16 and any(span.trace_id), "trace id")
        check(span, len(span.span_id) == 8 and any(span.span_id), "span id")
        check(span, ids.count((span.trace_id, span.span_id)) == 1, "is there twice")
        check(span, span.end_time_unix_nano >= span.start_time_unix_nano, "ends before it starts")
        check(span, 0 <= span.end_time_unix_nano < 2**63, "time")
        if span.parent_span_id:
            check(span, (span.trace_id, span.parent_span_id) in ids, "has a parent nobody sent")
            check(span, span.parent_span_id != span.span_id, "is its own parent")
        said = attributes_of(span)
        operation = said.get("gen_ai.operation.name", "")
        check(span, span.name.split(" ")[0] == operation, "is named after another operation")
        kind = Span.SPAN_KIND_CLIENT if operation == "chat" else Span.SPAN_KIND_INTERNAL
        check(span, span.kind == kind, "kind")
        wanted = {**_COMMON, **_BY_OPERATION.get(operation, {})}
        for name, value in said.items():
            check(span, name in wanted and type(value) is wanted[name][0], f"says {name}")
        for name, (_, is_required) in wanted.items():
            check(span, name in said or not is_required, f"does not say {name}")
        if operation == "chat":
            cached = sum(
                said.get(f"gen_ai.usage.cache_{each}.input_tokens", 0)
                for each in ("read", "creation")
            )
            check(span, said["gen_ai.usage.input_tokens"] >= cached, "input without the cache")
        if span.status.code:
            check(span, "error.type" in said, "fails without a type")
    return found
