"""One response of the API: what an entry says of it, and what its entries took together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple, cast
from zlib import crc32

from ...app.stored_times import EPOCH

Counts = tuple[int, int, int, int, int, int, int]
"""Responses, input, output, tokens written to the cache, tokens read from it; of those written to
it, the ones that it keeps for an hour; and of the responses, those whose last count came."""

NOTHING: Counts = (0, 0, 0, 0, 0, 0, 0)
IDENTITY_BYTES = 8

INSTANT_BYTES = 16
"""An identity, and which entry of it."""

COPY_BYTES = 24

_MAX_REQUEST = 128
_64_BITS = 2**64 - 1


@dataclass(slots=True)
class CountedCall:
    """A call of a tool."""

    name: str
    failure: bytes
    """The digest that the entry with its first failing result carries."""
    has_failed: bool = False


class Taken(NamedTuple):
    """What a response took."""

    day: str
    """Of its latest entry, UTC; "" where none tells the time."""
    model: str
    counts: Counts
    cost: float
    """US dollars by what its entries say, as those of old agents do."""


class Response:
    """A response of the API, as far as its entries are known."""

    __slots__ = (
        *("first", "request", "day", "model", "counts"),
        *("cost", "calls", "chains", "instants"),
    )

    def __init__(
        self,
        first: int,
        request: str,
        day: str = "",
        model: str = "",
        counts: Counts = NOTHING,
        cost: float = 0.0,
    ) -> None:
        self.first = first
        """The position of the entry that began it."""
        self.request = request
        self.day = day
        self.model = model
        self.counts = counts
        self.cost = cost
        self.calls: dict[str, CountedCall] = {}
        self.chains: set[str] = set()
        self.instants: list[bytes] = []

    @property
    def taken(self) -> Taken:
        """What it took."""
        return Taken(self.day, self.model, self.counts, self.cost)

    def take(self, written: Written) -> None:
        """Add an entry of it."""
        self.chains.add(written.chain)
        self.request = self.request or written.request
        if written.cost > self.cost:
            self.cost = written.cost
        if written.counts[0]:
            if written.day >= self.day:
                self.day, self.model = written.day, written.model
            if not self.counts[0]:
                self.counts = written.counts
            elif written.counts != self.counts:
                self.counts = cast("Counts", tuple(map(max, self.counts, written.counts)))

    def may_be(self, request: str, counts: Counts) -> bool:
        """Whether an entry of the same id may belong to it, by its request and input tokens."""
        if request and self.request:
            return request == self.request
        mine, others = _input_of(self.counts), _input_of(counts)
        return mine == others or not any(mine) or not any(others)


def _input_of(counts: Counts) -> tuple[int, int, int]:
    return counts[1], counts[3], counts[4]


class Written(NamedTuple):
    """What an assistant entry says of the response that it is of."""

    identity: bytes | None
    """The digest of what all of its entries share, ``None`` where nothing is."""
    instant: bytes
    """The identity and the digest of what copies of the entry share."""
    chain: str
    request: str
    day: str
    model: str
    counts: Counts
    cost: float


def written_by(
    entry: Mapping[str, Any],
    message: Mapping[str, Any],
    chain: str,
    at: datetime | None,
    model: str,
    counts: Counts,
    cost: float,
) -> Written:
    """What tells the response that an entry is of."""
    response = message.get("id")
    request = entry.get("requestId")
    if not isinstance(request, str):
        request = ""
    elif len(request) > _MAX_REQUEST or not request.isascii():
        # BSON has no lone surrogates.
        request = request[:_MAX_REQUEST].encode("utf-8", "replace").decode()
    day = ""
    instant = b""
    if at is not None:
        day = at.date().isoformat()
        # Milliseconds, of dates before 1970 and far ahead modulo 48 bits.
        since = at - EPOCH
        ms = since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
        checksum = crc32(request.encode()) & 0xFFFF if request else 0
        instant = ((ms * 65536 + checksum) & _64_BITS).to_bytes(8, "big")
    if isinstance(response, str) and response:
        identity = _digest(response)
    elif request:
        identity = _digest(f"\0request {request}")
    elif at is not None:
        identity = _digest(f"\0time {at} {model} {counts[1]} {counts[3]} {counts[4]}")
    else:
        return Written(None, b"", chain, request, day, model, counts, cost)
    if not instant:
        instant = _digest(f"{_content_of(message)} {request}")
    return Written(identity, identity + instant, chain, request, day, model, counts, cost)


def chain_of(subpath: str, entry: Mapping[str, Any]) -> str:
    """The chain that an entry is in."""
    if subpath or entry.get("isSidechain") is not True:
        return subpath
    agent = entry.get("agentId")
    return f"\0{agent.encode('utf-8', 'replace').decode()}" if isinstance(agent, str) else "\0"


def failure_of(instant: bytes, call: str) -> bytes:
    """The digest for the failure of a call that the entry of an instant made."""
    return blake2b(instant + call.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _digest(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=IDENTITY_BYTES).digest()


def _content_of(message: Mapping[str, Any]) -> str:
    try:
        return json.dumps(message.get("content"), sort_keys=True)
    except (RecursionError, TypeError, ValueError):
        return ""
