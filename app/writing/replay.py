"""Which entries of a batch are stored already.

A batch is a replay when its first try did land, or when a transcript is imported again. Entries
with a uuid are recognised by it and their content, for agents write different entries under one
uuid, too. They are the anchors for those without: such an entry counts as
stored if an equal one is stored between the same anchors, or, where an earlier import put it
back later, behind them. Each stored entry stands for one of the batch at most. Where nothing in a
batch proves that it comes again, it counts as new rather than be lost.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, takewhile
from typing import Any

from bson import ObjectId

from ...models.entry import MAX_SEQ
from ...models.views.lenient import Count
from ..database.documents import Row
from ..database.driver import ClientSession
from ..storage.codec import EncodedEntry
from ..storage.connection import Connection
from ..storage.living import live_of
from ..storage.uuids import fingerprint, further_key
from ..storage.values import CONTENT, content_of
from ..transcript_key import TranscriptKey

_MAX_POSITIONS = 1024


@dataclass(frozen=True, slots=True)
class Recognised:
    """What of a batch is stored: a flag per entry, and where the last entry stands if it is."""

    stored: tuple[bool, ...]
    position: ReplayPosition | None
    last: int | None
    """Where the last of those stands that are stored."""
    remains: tuple[ObjectId, ...] = ()
    """Entries of a session that is gone, not swept yet, whose uuids the batch has."""


class _PositionRow(Row):
    seq: Any = None


class _EndRow(Row):
    next_seq: Count = 0


@dataclass(frozen=True, slots=True)
class _Marker:
    """A stored entry without uuid."""

    seq: int
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class ReplayPosition:
    """Where a replay under way has arrived."""

    seq: int
    """The position of the last entry that was repeated."""
    end: int | None
    """The first position that was free then, if what others store from there on is their own."""


async def recognise(
    connection: Connection,
    key: TranscriptKey,
    batch: Sequence[EncodedEntry],
    after: ReplayPosition | None,
    session: ClientSession | None,
    until: int | None = None,
) -> Recognised:
    """Compare a batch with the transcript.

    ``after`` is where an earlier replay of the transcript ended, which the batch may go on with.
    What has no uuid is not looked for from position ``until`` on. Entries that are not stored are
    given the idempotency key under which they can be.
    """
    live = await live_of(connection, key, session)
    # Without a session all that there is remains of one that is gone.
    first = MAX_SEQ if live is None else live.first_of(key.subpath)
    stored = _StoredTranscript(connection, key, session, first, until)
    known = await stored.places(batch)
    remains = tuple(stored.remains)
    fixed = [(index, seq) for index, seq in enumerate(known) if seq is not None]
    if not fixed:
        if after is not None and live is not None:
            return replace(await _continued(stored, batch, after), remains=remains)
        return Recognised((False,) * len(batch), None, None, remains)
    if after is not None and after.seq < fixed[0][1]:
        fixed.insert(0, (-1, after.seq))
    prints = [None if e.uuid is not None else fingerprint(e.content()) for e in batch]
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
            match(range(index + 1, next_index), await stored.markers(seq, next_seq))
    first_index, first_seq = fixed[0]
    if first_index > 0:
        start = await stored.uuid_next_to({"$lt": first_seq}, -1)
        run = await stored.markers(start, first_seq)
        match(range(first_index - 1, -1, -1), reversed(run))
    last_index, last_seq = fixed[-1]
    if last_index < len(batch) - 1:
        before = await stored.uuid_next_to({"$gt": last_seq}, 1)
        match(range(last_index + 1, len(batch)), await stored.markers(last_seq, before))
    if any(seq is None and prints[index] for index, seq in enumerate(known)):
        last_fixed = max(seq for _, seq in fixed)
        match(range(len(batch)), await stored.markers(last_fixed, None))
    last = known[-1]
    return Recognised(
        stored=tuple(seq is not None for seq in known),
        position=None if last is None else ReplayPosition(last, await stored.end()),
        last=next((seq for seq in reversed(known) if seq is not None), None),
        remains=remains,
    )


async def places(
    connection: Connection, key: TranscriptKey, batch: Sequence[EncodedEntry]
) -> list[int | None]:
    """Where those entries of a batch stand in a transcript that have a uuid and are stored."""
    live = await live_of(connection, key, None)
    first = MAX_SEQ if live is None else live.first_of(key.subpath)
    return await _StoredTranscript(connection, key, None, first, None).places(batch)


async def _continued(
    stored: _StoredTranscript, batch: Sequence[EncodedEntry], after: ReplayPosition
) -> Recognised:
    """Compare a batch that may go on with a replay, but has no uuid that proves it.

    It does if all of it is stored there, or if its head is just what the transcript ended with when
    the replay was there. Anything else equal is another writer's.
    """
    head = list(takewhile(lambda entry: entry.uuid is None, batch))
    next_uuid = await stored.uuid_next_to({"$gt": after.seq}, 1)
    ends = [end for end in (next_uuid, after.end) if end is not None]
    run = await stored.markers(after.seq, min(ends, default=None))
    prints = [fingerprint(entry.content()) for entry in head]
    if len(head) == len(batch):
        rest = iter(run)
        places = [next((m.seq for m in rest if m.fingerprint == each), None) for each in prints]
        if places[-1] is not None and None not in places:
            position = ReplayPosition(places[-1], after.end)
            return Recognised((True,) * len(batch), position, places[-1])
    is_end = next_uuid is None and [m.fingerprint for m in run] == prints[: len(run)]
    count = len(run) if is_end else 0
    last = run[count - 1].seq if count else None
    return Recognised(tuple(index < count for index in range(len(batch))), None, last)


@dataclass(frozen=True, slots=True)
class _StoredTranscript:
    """What is stored of a transcript."""

    connection: Connection
    key: TranscriptKey
    session: ClientSession | None
    first: int
    """Where it begins; what stands before is of a session that is gone."""
    until: int | None
    remains: list[ObjectId] = field(default_factory=list[ObjectId])
    """Of those that were looked for, what is of a session that is gone."""

    async def places(self, batch: Sequence[EncodedEntry]) -> list[int | None]:
        """Where those entries stand that have a uuid and are stored.

        The others get the key under which they can be: that of their uuid, unless another entry
        has it.
        """
        owners: dict[str, _Marker] = {}
        uuids = list(dict.fromkeys(key for each in batch if (key := each.own_key) is not None))
        async for document in self._under(uuids, {**CONTENT, "uuid": 1}):
            digest = await _fingerprint(await self._content_of(document))
            owners[document["uuid"]] = _Marker(document["seq"], digest)
        firsts: dict[str, EncodedEntry] = {}
        places: list[int | None] = [None] * len(batch)
        further: dict[str, list[int]] = {}
        for index, encoded in enumerate(batch):
            uuid = encoded.own_key
            if uuid is None:
                continue
            owner, first = owners.get(uuid), firsts.setdefault(uuid, encoded)
            if owner is None and first is encoded:
                encoded.rekey(uuid)
                continue
            digest = await _fingerprint(encoded.content())
            if owner is not None and owner.fingerprint == digest:
                places[index] = owner.seq
            elif owner is None and digest == fingerprint(first.content()):
                encoded.rekey(uuid)
            else:
                encoded.rekey(further_key(uuid, digest))
                further.setdefault(encoded.uuid or "", []).append(index)
        async for document in self._under(list(further), {"_id": 0, "uuid": 1, "seq": 1}):
            for index in further[document["uuid"]]:
                places[index] = document["seq"]
        return places

    async def _under(
        self, uuids: list[str], fields: dict[str, int]
    ) -> AsyncIterator[dict[str, Any]]:
        if uuids:
            query = {**self.key.of_transcript, "uuid": {"$in": uuids}}
            fields = {**fields, "_id": 1}
            # The driver's own, here and below: a model of each entry takes as long as reading it.
            async for document in self.connection.entries.collection.find(
                query, fields, session=self.session
            ):
                if document["seq"] < self.first:
                    self.remains.append(document["_id"])
                else:
                    yield document

    async def markers(self, behind: int | None, before: int | None) -> list[_Marker]:
        """The entries without uuid between two positions, in order."""
        bounds: dict[str, int] = {"$gte": self.first}
        if behind is not None:
            bounds["$gt"] = behind
        ends = [end for end in (before, self.until) if end is not None]
        if ends:
            bounds["$lt"] = min(ends)
        query = {**self.key.of_transcript, "seq": bounds, "uuid": {"$exists": False}}
        cursor = self.connection.entries.collection.find(
            query, CONTENT, sort=[("seq", 1)], session=self.session
        )
        return [
            _Marker(document["seq"], fingerprint(await self._content_of(document)))
            async for document in cursor
        ]

    async def uuid_next_to(self, seqs: dict[str, int], direction: int) -> int | None:
        """Where the nearest entry with a uuid stands in a direction."""
        found = await self.connection.entries.find_one(
            self.key.of_transcript,
            {"seq": {"$gte": self.first, **seqs}, "uuid": {"$exists": True}},
            rows=_PositionRow,
            sort=[("seq", direction)],
            session=self.session,
        )
        return None if found is None else found.seq

    async def end(self) -> int:
        """The position that the session's next entry gets."""
        found = await self.connection.summaries.find_one(
            self.key.of_session, rows=_EndRow, session=self.session
        )
        return 0 if found is None else found.next_seq

    async def _content_of(self, document: dict[str, Any]) -> dict[str, Any]:
        return await content_of(self.connection, self.key, document, self.session)


async def _fingerprint(entry: Mapping[str, Any]) -> bytes:
    digest = fingerprint(entry)
    # Of many large entries it takes long, and other tasks wait.
    await asyncio.sleep(0)
    return digest


class ReplayPositions:
    """Where the replays under way have arrived, per transcript, for the most recent ones."""

    def __init__(self) -> None:
        self._positions: OrderedDict[TranscriptKey, ReplayPosition] = OrderedDict()

    def take(self, key: TranscriptKey) -> ReplayPosition | None:
        """The position behind which the next batch may repeat the transcript; forgotten."""
        return self._positions.pop(key, None)

    def put(self, key: TranscriptKey, position: ReplayPosition) -> None:
        """Note that the next batch may repeat what is stored behind a position."""
        self._positions[key] = position
        self._positions.move_to_end(key)
        if len(self._positions) > _MAX_POSITIONS:
            self._positions.popitem(last=False)

    def clear(self) -> None:
        """Forget all positions."""
        self._positions.clear()
