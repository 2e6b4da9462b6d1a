"""A collector that takes traces over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from ..jobs.report import TransferReport
from ..store import BeanieSessionStore
from .sending import send_traces


async def send_traces_to(store: BeanieSessionStore, url: str, **wanted: Any) -> TransferReport:
    """Send sessions as :func:`send_traces` does, to an address such as
    ``http://localhost:4318/v1/traces``; headers and the like are of ``OTEL_EXPORTER_OTLP_*``."""
    exporter = OTLPSpanExporter(endpoint=url)
    try:
        return await send_traces(store, exporter, **wanted)
    finally:
        await asyncio.to_thread(exporter.shutdown)
