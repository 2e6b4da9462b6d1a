"""The store in OpenTelemetry: spans and metrics of what it does, and sessions as traces.

Spans and metrics need nothing from here: once an application has set OpenTelemetry up, the store
records what it does. See ``docs/telemetry.md``.
"""

try:
    import opentelemetry.sdk.trace.export  # noqa: F401  # pyright: ignore[reportUnusedImport]
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
except ModuleNotFoundError as missing:
    raise ImportError(
        f"beanie_session_store.telemetry needs {missing.name}, which is not installed. Install it "
        "with `pip install 'beanie-session-store[telemetry]'`."
    ) from missing

from .app.instruments.providers import use
from .app.telemetry.following import follow_traces
from .app.telemetry.sending import send_traces

__all__ = ["follow_traces", "send_traces", "use_providers"]


def use_providers(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Have the stores of this process record with these providers, from now on.

    For an application that has several, or whose own one is not to have the store's: with
    ``opentelemetry.trace.NoOpTracerProvider()`` there are no spans.

    Args:
        tracer_provider: for spans; ``None`` is the process's own.
        meter_provider: for metrics; ``None`` is the process's own.
    """
    use(tracer_provider, meter_provider)
