"""Which entries of a batch are stored already.

A batch is a replay when its first try did land, or when a transcript is imported again. Entries
with a uuid are recognised by it, and are the anchors for those without: such an entry counts as
stored if an equal one is stored between the same anchors, or, where an earlier import put it
back later, behind them. Each stored entry stands for one of the batch at most.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .codec import EncodedEntry, fingerprint
from .connection import Connection
from .key import TranscriptKey
from .reader import CONTENT, content_of, retried

_MAX_POSITIONS = 1024


@dataclass(frozen=True, slots=True)
class Recognised:
    """What of a batch is stored: a flag per entry, and where the last entry stands if it is."""

    stored: tuple[bool, ...]
    last_seq: int | None


@dataclass(frozen=True, slots=True)
class _Marker:
    """A stored entry without uuid."""

    seq: int
    fingerprint: bytes


async def recognise(
    connection: Connection,
    key: TranscriptKey,
    batch: Sequence[EncodedEntry],
    after: int | None,
) -> Recognised:
    """Compare a batch with the transcript.

    ``after`` is the position behind which the batch may go on repeating the transcript, where
    an earlier replay of it, or a try with an unknown outcome, ended.
    """
    return await retried(lambda: _recognise(connection, key, batch, after))


async def _recognise(
    connection: Connection,
    key: TranscriptKey,
    batch: Sequence[EncodedEntry],
    after: int | None,
) -> Recognised:
    anchors = await _positions(connection, key, [e.uuid for e in batch if e.uuid is not None])
    known = [None if entry.uuid is None else anchors.get(entry.uuid) for entry in batch]
    fixed = [(index, seq) for index, seq in enumerate(known) if seq is not None]
    if after is not None and (not fixed or after < fixed[0][1]):
        fixed.insert(0, (-1, after))
    if not fixed:
        return Recognised((False,) * len(batch), None)
    prints = [None if e.uuid is not None else fingerprint(e.entry) for e in batch]
    used: set[int] = set()

    def match(indexes: Iterable[int], markers: Iterable[_Marker]) -> None:
        """Pair equal entries, each with the first in the order of both that is still free."""
        free: dict[bytes, deque[int]] = defaultdict(deque)
        for marker in markers:
            if marker.seq not in used:
                free[marker.fingerprint].append(marker.seq)
        for index in indexes:
            digest = prints[index]
            if known[index] is None and digest is not None and free.get(digest):
                known[index] = seq = free[digest].popleft()
                used.add(seq)

    for (index, seq), (next_index, next_seq) in pairwise(fixed):
        if next_index - index > 1 and seq < next_seq:
            between = await _markers(connection, key, seq, next_seq)
            match(range(index + 1, next_index), between)
    first_index, first_seq = fixed[0]
    if first_index > 0:
        start = await _uuid_next_to(connection, key, {"$lt": first_seq}, -1)
        run = await _markers(connection, key, start, first_seq)
        match(range(first_index - 1, -1, -1), reversed(run))
    last_index, last_seq = fixed[-1]
    if last_index < len(batch) - 1:
        end = await _uuid_next_to(connection, key, {"$gt": last_seq}, 1)
        match(range(last_index + 1, len(batch)), await _markers(connection, key, last_seq, end))
    is_replay = any(seq is not None for seq in known)
    if is_replay and any(seq is None and prints[index] for index, seq in enumerate(known)):
        last_fixed = max(seq for _, seq in fixed)
        match(range(len(batch)), await _markers(connection, key, last_fixed, None))
    return Recognised(tuple(seq is not None for seq in known), known[-1] if known else None)


async def _positions(
    connection: Connection, key: TranscriptKey, uuids: Sequence[str]
) -> dict[str, int]:
    if not uuids:
        return {}
    query = {**key.transcript_filter(), "uuid": {"$in": uuids}}
    cursor = connection.entries.find(query, {"_id": 0, "uuid": 1, "seq": 1})
    return {document["uuid"]: document["seq"] async for document in cursor}


async def _markers(
    connection: Connection, key: TranscriptKey, behind: int | None, before: int | None
) -> list[_Marker]:
    """The stored entries without uuid between two positions, in order."""
    bounds: dict[str, int] = {}
    if behind is not None:
        bounds["$gt"] = behind
    if before is not None:
        bounds["$lt"] = before
    query = {**key.transcript_filter(), "seq": bounds, "uuid": {"$exists": False}}
    cursor = connection.entries.find(query, CONTENT, sort=[("seq", 1)])
    return [
        _Marker(document["seq"], fingerprint(await content_of(connection, key, document)))
        async for document in cursor
    ]


async def _uuid_next_to(
    connection: Connection, key: TranscriptKey, seqs: dict[str, int], direction: int
) -> int | None:
    """Where the nearest stored entry with a uuid stands in a direction."""
    found = await connection.entries.find_one(
        {**key.transcript_filter(), "seq": seqs, "uuid": {"$exists": True}},
        {"_id": 0, "seq": 1},
        sort=[("seq", direction)],
    )
    return None if found is None else found["seq"]


class ReplayPositions:
    """Where the replays under way have arrived, per transcript, for the most recent ones."""

    def __init__(self) -> None:
        self._seqs: OrderedDict[TranscriptKey, int] = OrderedDict()

    def take(self, key: TranscriptKey) -> int | None:
        """The position behind which the next batch may repeat the transcript; forgotten."""
        return self._seqs.pop(key, None)

    def put(self, key: TranscriptKey, seq: int) -> None:
        """Note that the next batch may repeat what is stored behind ``seq``."""
        self._seqs[key] = seq
        self._seqs.move_to_end(key)
        if len(self._seqs) > _MAX_POSITIONS:
            self._seqs.popitem(last=False)

    def clear(self) -> None:
        """Forget all positions."""
        self._seqs.clear()
