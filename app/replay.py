"""Which entries of a batch are stored already.

A batch is a replay when its first try did land, or when a transcript is imported again. Entries
with a uuid are recognised by it. An entry without one counts as stored if it stands next to a
stored neighbour in the batch and is stored next to it with equal content.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(slots=True)
class _Stored:
    seq: int
    uuid: str | None
    fingerprint: bytes | None
    matched: bool = False


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
    if not anchors and after is None:
        return Recognised((False,) * len(batch), None)
    neighbours = await _neighbours(connection, key, batch, anchors, after)
    places = [stored.seq for stored in neighbours]
    seqs: list[int | None] = [
        anchors.get(entry.uuid) if entry.uuid is not None else None for entry in batch
    ]
    known = list(seqs)
    for step in (1, -1):
        if step == 1 and after is not None:
            _walk(batch, known, neighbours, -1, bisect_right(places, after) - 1, step)
        for index, seq in enumerate(seqs):
            if seq is not None:
                _walk(batch, known, neighbours, index, bisect_left(places, seq), step)
    return Recognised(tuple(seq is not None for seq in known), known[-1] if known else None)


def _walk(
    batch: Sequence[EncodedEntry],
    known: list[int | None],
    neighbours: Sequence[_Stored],
    index: int,
    place: int,
    step: int,
) -> None:
    """Match entries without uuid, from a stored neighbour on, while they are equal."""
    while True:
        index += step
        place += step
        if not (0 <= index < len(batch) and 0 <= place < len(neighbours)):
            return
        entry, stored = batch[index], neighbours[place]
        if entry.uuid is not None or stored.uuid is not None:
            return
        if known[index] is None and not stored.matched:
            if fingerprint(entry.entry) != stored.fingerprint:
                return
            known[index] = stored.seq
            stored.matched = True
        elif known[index] != stored.seq:
            return


async def _positions(
    connection: Connection, key: TranscriptKey, uuids: Sequence[str]
) -> dict[str, int]:
    if not uuids:
        return {}
    query = {**key.transcript_filter(), "uuid": {"$in": uuids}}
    cursor = connection.entries.find(query, {"_id": 0, "uuid": 1, "seq": 1})
    return {document["uuid"]: document["seq"] async for document in cursor}


async def _neighbours(
    connection: Connection,
    key: TranscriptKey,
    batch: Sequence[EncodedEntry],
    anchors: dict[str, int],
    after: int | None,
) -> list[_Stored]:
    """The stored entries from before the first anchor to behind the last, in order.

    As many more on either side as the batch has entries without uuid there.
    """
    leading = next(
        (index for index, entry in enumerate(batch) if entry.uuid in anchors), len(batch)
    )
    trailing = next(
        (index for index, entry in enumerate(reversed(batch)) if entry.uuid in anchors), len(batch)
    )
    positions = [*anchors.values(), *([] if after is None else [after])]
    first, last = min(positions), max(positions)
    before = await _read(connection, key, {"$lt": first}, -1, leading)
    between = await _read(connection, key, {"$gte": first, "$lte": last}, 1, None)
    behind = await _read(connection, key, {"$gt": last}, 1, max(trailing, leading))
    return [*reversed(before), *between, *behind]


async def _read(
    connection: Connection,
    key: TranscriptKey,
    seqs: dict[str, int],
    direction: int,
    limit: int | None,
) -> list[_Stored]:
    if limit == 0:
        return []
    query = {**key.transcript_filter(), "seq": seqs}
    found: list[_Stored] = []
    async for document in connection.entries.find(
        query, {**CONTENT, "uuid": 1}, sort=[("seq", direction)], limit=limit or 0
    ):
        uuid = document.get("uuid")
        # Only entries without a uuid are compared, so only theirs is worth the memory.
        digest = None
        if uuid is None:
            digest = fingerprint(await content_of(connection, key, document))
        found.append(_Stored(document["seq"], uuid, digest))
    return found


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
