"""Where spans and measurements go: nowhere, until an application has set OpenTelemetry up.

Nothing here imports OpenTelemetry before the application has: whoever sets up a provider imports
its API first, and whoever does not should not wait for it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .followers import longest_waits, numbers_of_followers

if TYPE_CHECKING:
    from opentelemetry.metrics import (
        CallbackOptions,
        Counter,
        Histogram,
        MeterProvider,
        Observation,
    )
    from opentelemetry.trace import Tracer, TracerProvider

logger = logging.getLogger("beanie_session_store.instruments")

SCOPE = "beanie_session_store"

# Those of the conventions for databases, in seconds.
_DURATIONS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_GROUP_SIZES = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Instruments:
    """What operations are recorded with."""

    tracer: Tracer
    duration: Histogram
    shared_commits: Histogram
    counters: dict[str, Counter]


COUNTERS = {
    "append.entries": ("{entry}", "Entries that appends stored."),
    "append.bytes": ("By", "Bytes of the entries that appends stored, as they are stored."),
    "append.packed_entries": (
        "{entry}",
        "Entries that appends stored in packed form, for MongoDB would not keep them as they are.",
    ),
    "append.replays": ("{entry}", "Entries given to appends that were stored already."),
    "append.contention": ("{conflict}", "Tries that lost to another writer of the session."),
    "append.unknown_outcomes": (
        "{commit}",
        "Commits of which no server said in time whether they hold.",
    ),
    "operation.retries": ("{retry}", "Tries of operations after the first one."),
    "dead_writers.ended": ("{transaction}", "Transactions of dead writers that were ended."),
    "leases.lost": ("{lease}", "Leases that were lost before the end of their block."),
}
"""The counters by their names behind ``session_store.``: unit, and what is counted."""

_made: Instruments | None = None
_is_unusable = False
_has_warned = False


def instruments() -> Instruments | None:
    """What to record with; ``None`` where nobody has set OpenTelemetry up.

    Every append asks, so it looks at what is imported already, and at nothing once it is set up.
    """
    if _made is None and not _is_unusable and "opentelemetry.trace" in sys.modules:
        _look()
    return _made


def use(tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> None:
    """Record with these providers from now on; ``None`` stands for the process's own."""
    global _made
    _made = _instruments_of(tracer_provider, meter_provider)


def _look() -> None:
    global _is_unusable
    try:
        if any(_is_set(*each) for each in _GETTERS):
            use(None, None)
    except Exception:
        # An API of another age, or a provider that is named but not installed: nothing to lose an
        # append for.
        _is_unusable = True
        logger.warning("The store records no spans and metrics, for this fails:", exc_info=True)


def warn_of_failure() -> None:
    """Say once that what the application set up fails at what it is given."""
    global _has_warned
    if not _has_warned:
        _has_warned = True
        logger.warning(
            "OpenTelemetry, as it is set up here, fails at what the store records; the store goes "
            "on without. It is not said again:",
            exc_info=True,
        )


_GETTERS = (
    ("opentelemetry.trace", "get_tracer_provider"),
    ("opentelemetry.metrics", "get_meter_provider"),
)


def _is_set(api: str, getter: str) -> bool:
    # Another thread may be importing it just now.
    get = getattr(sys.modules.get(api), getter, None)
    # Of the API's own providers none records anything.
    return get is not None and not type(get()).__module__.startswith(api)


def _instruments_of(
    tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
) -> Instruments:
    from opentelemetry import metrics, trace

    meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
    meter.create_observable_up_down_counter(
        "session_store.followers",
        callbacks=[partial(_observe, numbers_of_followers)],
        unit="{follower}",
        description="Watchers and feeds that are open.",
    )
    meter.create_observable_gauge(
        "session_store.followers.lag",
        callbacks=[partial(_observe, longest_waits)],
        unit="s",
        description="How long what the slowest watcher, or feed, is at has waited for it.",
    )
    return Instruments(
        tracer=trace.get_tracer(SCOPE, tracer_provider=tracer_provider),
        duration=meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_DURATIONS,
        ),
        shared_commits=meter.create_histogram(
            "session_store.shared_commit.size",
            unit="{append}",
            description="Appends of different sessions that one transaction stored.",
            explicit_bucket_boundaries_advisory=_GROUP_SIZES,
        ),
        counters={
            name: meter.create_counter(f"session_store.{name}", unit, description)
            for name, (unit, description) in COUNTERS.items()
        },
    )


def _observe(figures: Any, _: CallbackOptions) -> Iterable[Observation]:
    from opentelemetry.metrics import Observation

    return [Observation(value, {"session_store.follower": kind}) for kind, value in figures()]
