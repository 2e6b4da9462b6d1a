"""A span, and the ids that it is known by wherever it is made."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Literal

from ..stored_times import EPOCH

AttributeValue = str | int | Sequence[str]

_TRACE_BYTES = 16
_SPAN_BYTES = 8
_MICROSECOND = timedelta(microseconds=1)
_LATEST_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SessionSpan:
    """A part of a session, at its end."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    """``None`` of a turn: a session has no span of its own, for nobody knows when it ends."""
    kind: Literal["internal", "client"]
    name: str
    start_ns: int
    """Nanoseconds since 1970."""
    end_ns: int
    """Never before the start, whatever the clocks of the entries say."""
    attributes: Mapping[str, AttributeValue] = field(repr=False)
    is_error: bool = False


def trace_id_of(session_id: str) -> bytes:
    """The trace of a session: its id where that is a UUID, so that one is found by the other."""
    try:
        found = uuid.UUID(session_id).bytes
    except ValueError:
        found = b""
    # No trace has an id of zeros.
    return found if any(found) else _digest(session_id, _TRACE_BYTES)


def span_id_of(trace_id: bytes, *parts: str) -> bytes:
    """The id of a part of a session, by what names it there."""
    return _digest("\0".join((trace_id.hex(), *parts)), _SPAN_BYTES)


def _digest(text: str, size: int) -> bytes:
    found = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
    return found if any(found) else b"\1" * size


def nanoseconds_of(at: datetime) -> int:
    """Nanoseconds since 1970, 0 before that."""
    # OTLP has room for more, and some who read it do not.
    return min(max((at - EPOCH) // _MICROSECOND * 1000, 0), _LATEST_NS)


def bounded_text(value: Any) -> str:
    """A text that every consumer can take: UTF-8 has no lone surrogates."""
    return str(value).encode("utf-8", "replace").decode()
