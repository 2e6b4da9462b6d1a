"""Spans as lines of OTLP's JSON, as collectors read it from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .spans import AttributeValue, SessionSpan

SCOPE = "beanie_session_store.traces"
SERVICE = "claude-agent"

_KINDS = {"internal": 1, "client": 3}
_ERROR = 2


def otlp_line(spans: Sequence[SessionSpan]) -> bytes:
    """One export of some spans, with its line feed."""
    scope = {"scope": {"name": SCOPE}, "spans": [_span(each) for each in spans]}
    resource = {"attributes": [_attribute("service.name", SERVICE)]}
    found = {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}
    return json.dumps(found, separators=(",", ":")).encode() + b"\n"


def _span(span: SessionSpan) -> dict[str, Any]:
    found: dict[str, Any] = {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "name": span.name,
        "kind": _KINDS[span.kind],
        # As texts: JavaScript has no numbers as large.
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": [_attribute(*each) for each in span.attributes.items()],
    }
    if span.parent_id is not None:
        found["parentSpanId"] = span.parent_id.hex()
    if span.is_error:
        found["status"] = {"code": _ERROR}
    return found


def _attribute(name: str, value: AttributeValue) -> dict[str, Any]:
    return {"key": name, "value": _value(value)}


def _value(value: AttributeValue) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"arrayValue": {"values": [_value(each) for each in value]}}
