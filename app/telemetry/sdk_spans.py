"""Spans as OpenTelemetry's exporters take them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ..traces.otlp_json import SCOPE, SERVICE
from ..traces.spans import SessionSpan

logger = logging.getLogger("beanie_session_store.telemetry")

_SCOPE = InstrumentationScope(SCOPE)
_KINDS = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class SpanSender:
    """Hands spans to an exporter, beside the event loop, for exporters wait for their network."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        named = Resource.create()
        # Unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say it.
        is_unnamed = str(named.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
        self._resource = named.merge(Resource({SERVICE_NAME: SERVICE})) if is_unnamed else named

    async def send(self, spans: Sequence[SessionSpan]) -> bool:
        """Export spans, and return whether the exporter took them."""
        if not spans:
            return True
        ready = [self._readable(each) for each in spans]
        try:
            result = await asyncio.to_thread(self._exporter.export, ready)
        except Exception:
            # It should say so by its result, and what goes on for days is not ended by one failure.
            logger.exception("The exporter failed.")
            return False
        return result is SpanExportResult.SUCCESS

    def _readable(self, span: SessionSpan) -> ReadableSpan:
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace_id, span.span_id),
            parent=None if span.parent_id is None else _context(span.trace_id, span.parent_id),
            resource=self._resource,
            attributes=span.attributes,
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR if span.is_error else StatusCode.UNSET),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=_SCOPE,
        )


def _context(trace_id: bytes, span_id: bytes) -> SpanContext:
    return SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        is_remote=False,
        trace_flags=_SAMPLED,
    )
