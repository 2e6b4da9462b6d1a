"""What the store tells OpenTelemetry, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from beanie_session_store.app.instruments import providers


class Recorded:
    """Providers that keep what they get."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = self.tracer_provider.get_tracer("application")

    def spans(self, operation: str = "") -> list[ReadableSpan]:
        """The spans that have ended, those of the store's operation if one is named."""
        spans = self._exporter.get_finished_spans()
        return [s for s in spans if not operation or said(s).get("db.operation.name") == operation]

    def span(self, operation: str) -> ReadableSpan:
        """The only one of an operation."""
        (span,) = self.spans(operation)
        return span

    def forget(self) -> None:
        """Drop the spans so far."""
        self._exporter.clear()

    def points(self, name: str) -> list[Any]:
        """All points of a metric, by sets of attributes."""
        found = self._reader.get_metrics_data()
        return [
            point
            for resource in (found.resource_metrics if found else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def total(self, name: str, **attributes: str) -> float:
        """The sum of a counter's points, or of those with some attributes."""
        wanted = {name.replace("_", "."): value for name, value in attributes.items()}
        return sum(
            point.value
            for point in self.points(f"session_store.{name}")
            if wanted.items() <= dict(point.attributes).items()
        )


def said(span: ReadableSpan) -> dict[str, Any]:
    """The attributes of a span."""
    return dict(span.attributes or {})


@contextmanager
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """Have the store record into memory."""
    recorded = Recorded()
    monkeypatch.setattr(providers, "_made", None)
    providers.use(recorded.tracer_provider, recorded.meter_provider)
    yield recorded
