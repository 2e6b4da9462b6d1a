"""What stored entries carry, so that what is written again is not counted again.

Each entry of a response carries a digest, under a unique index of the session. The usual append
asks nothing: what it counts is taken for new, and the index refuses it if it is not. Then all that
is stored of the responses in the batch is looked up here, and the batch is counted once more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from struct import Struct
from typing import Any, cast

from beanie.operators import Unset
from bson import Binary
from bson.int64 import Int64
from pymongo import UpdateOne

from ...models.counting.assistant_entry import StoredEntry, failures_of, written_in
from ...models.counting.marks import Mark, Wanted
from ...models.counting.one_response import COPY_BYTES, IDENTITY_BYTES, INSTANT_BYTES, chain_of
from ...models.counting.tally import Tally
from ...models.views.prompts import blocks_of, prompt_of
from ..database.reads import retried
from ..reading.load import told_of_others
from ..storage.bson_elements import bson_elements, int64_bytes
from ..storage.connection import Connection
from ..storage.values import CONTENT, content_of
from ..transcript_key import TranscriptKey
from .summary_update import SummaryUpdate

# BSON elements without their values, which are binary and an Int64.
_COUNTED_HEAD = b"\x05counted\0"
_RESPONSE_HEAD = b"\x12response\0"
_INT32 = Struct("<i").pack
_ASKED_AT_ONCE = 200
_MARKED_AT_ONCE = 1000

_FIELDS = {**CONTENT, "subpath": 1, "counted": 1, "response": 1}


def mark_elements(mark: Mark) -> bytes:
    """The BSON elements of a stored entry that carries a mark."""
    if len(mark.counted) != 1:
        return bson_elements(_mark_fields(mark))
    (digest,) = mark.counted
    elements = _COUNTED_HEAD + _INT32(len(digest)) + b"\0" + digest
    if mark.response is not None:
        elements += _RESPONSE_HEAD + int64_bytes(mark.response)
    return elements


def _mark_fields(mark: Mark) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if mark.counted:
        digests = [Binary(digest) for digest in mark.counted]
        fields["counted"] = digests[0] if len(digests) == 1 else digests
    if mark.response is not None:
        fields["response"] = Int64(mark.response)
    return fields


async def learn(
    connection: Connection, key: TranscriptKey, totals: Tally, wanted: Wanted, first_seq: int
) -> None:
    """Tell ``totals``, as they were before a batch, all that is stored of what the batch has.

    ``wanted`` is what came of counting the batch onto them. What stands before ``first_seq`` is of
    a session that is gone.
    """
    instants = {identity: set(found) for identity, found in wanted.instants.items()}
    calls = {call: await _call(connection, key, *call) for call in wanted.calls}
    calls = {
        call: found if found is not None and found.seq >= first_seq else None
        for call, found in calls.items()
    }
    for found in calls.values():
        if found is not None and not totals.is_copy(found.entry, found.subpath, found.seq):
            identity = written_in(found.entry, found.subpath).identity
            if identity is not None:
                instants.setdefault(identity, set())
    stored = [
        each async for each in _entries_of(connection, key, list(instants)) if each.seq >= first_seq
    ]
    stored.sort(key=lambda each: each.seq)
    stored = await _with_prompts(connection, key, stored, instants)
    failures = failures_of(stored) | wanted.failures
    totals.restore(stored, await _stored_digests(connection, key, failures))
    for (subpath, call), found in calls.items():
        totals.restore_call(subpath, call, found)


async def _call(
    connection: Connection, key: TranscriptKey, subpath: str, call: str
) -> StoredEntry | None:
    """The last entry of a transcript that makes a call."""
    query = {
        **key.with_subpath(subpath).of_transcript,
        "entry.type": "assistant",
        "entry.message.content.id": call,
    }
    # Here and below the driver's own cursor: a model of each entry takes as long as reading it.
    async for row in connection.entries.collection.find(
        query, _FIELDS, sort=[("seq", -1)], limit=1
    ):
        plain = await _stored(connection, key, row)
        break
    else:
        plain = None
    if connection.keyring is None:
        return plain
    # Of what is sealed the server knows only that it was counted.
    sealed: dict[str, Any] = {
        **key.with_subpath(subpath).of_transcript,
        "seq": {"$gt": plain.seq if plain is not None else 0},
        "packed": {"$exists": True},
    }
    async for row in connection.entries.collection.find(sealed, _FIELDS, sort=[("seq", -1)]):
        found = await _stored(connection, key, row)
        if found.entry.get("type") == "assistant" and any(
            block.get("id") == call for block in _blocks_in(found.entry)
        ):
            return found
    return plain


def _blocks_in(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    message = entry.get("message")
    if not isinstance(message, dict):
        return []
    return blocks_of(cast("dict[str, Any]", message).get("content"))


async def _entries_of(
    connection: Connection, key: TranscriptKey, identities: Sequence[bytes]
) -> AsyncIterator[StoredEntry]:
    for at in range(0, len(identities), _ASKED_AT_ONCE):
        # The server compares binary values by their length first.
        bounds = [
            {"counted": _between(identity, size)}
            for identity in identities[at : at + _ASKED_AT_ONCE]
            for size in (IDENTITY_BYTES, INSTANT_BYTES, COPY_BYTES)
        ]
        query = {**key.of_session, "$or": bounds}
        async for row in connection.entries.collection.find(query, _FIELDS):
            yield await _stored(connection, key, row)


def _between(identity: bytes, size: int) -> Any:
    rest = size - len(identity)
    if not rest:
        return Binary(identity)
    return {
        "$gte": Binary(identity + bytes(rest)),
        "$lte": Binary(identity + b"\xff" * rest),
    }


async def _stored(connection: Connection, key: TranscriptKey, row: dict[str, Any]) -> StoredEntry:
    subpath: str = row["subpath"]
    entry = await content_of(connection, key.with_subpath(subpath), row)
    return StoredEntry(subpath, row["seq"], row.get("response"), entry, has_prompt_since=False)


async def _with_prompts(
    connection: Connection,
    key: TranscriptKey,
    stored: Sequence[StoredEntry],
    instants: Mapping[bytes, set[bytes]],
) -> list[StoredEntry]:
    """The same entries, those of the transcript with whether a prompt has come behind them.

    It matters only where the batch has more of a response than is stored.
    """
    last: dict[tuple[str, bytes], int] = {}
    for each in stored:
        written = written_in(each.entry, each.subpath)
        if written.identity is not None:
            instants.get(written.identity, set()).discard(written.instant)
            if each.subpath == key.subpath:
                last[written.chain, written.identity] = each.seq
    asked = {place: seq for place, seq in last.items() if instants.get(place[1])}
    if not asked:
        return list(stored)
    left = {chain for chain, _ in asked}
    prompts: dict[str, int] = {}
    query = {
        **key.of_transcript,
        "seq": {"$gt": min(asked.values())},
        "$or": [{"entry.type": "user"}, {"entry": {"$exists": False}}],
    }
    async for row in connection.entries.collection.find(query, _FIELDS, sort=[("seq", -1)]):
        entry = await content_of(connection, key, row)
        chain = chain_of(key.subpath, entry)
        if chain in left and entry.get("type") == "user" and prompt_of(entry) is not None:
            prompts[chain] = row["seq"]
            left.remove(chain)
            if not left:
                break
    return [
        each._replace(
            has_prompt_since=each.subpath == key.subpath
            and prompts.get(chain_of(each.subpath, each.entry), 0) > each.seq
        )
        for each in stored
    ]


async def _stored_digests(
    connection: Connection, key: TranscriptKey, digests: Collection[bytes]
) -> set[bytes]:
    """Those of the digests that entries carry."""
    found: set[bytes] = set()
    asked = [Binary(digest) for digest in digests]
    for at in range(0, len(asked), _MARKED_AT_ONCE):
        query = {**key.of_session, "counted": {"$in": asked[at : at + _MARKED_AT_ONCE]}}
        async for row in connection.entries.collection.find(query, {"_id": 0, "counted": 1}):
            found.update(_digests(row["counted"]))
    return found & set(digests)


def _digests(counted: bytes | list[bytes] | None) -> tuple[bytes, ...]:
    if counted is None:
        return ()
    return tuple(counted) if isinstance(counted, list) else (counted,)


async def free_marks(connection: Connection, key: TranscriptKey, update: SummaryUpdate) -> None:
    """Let remains of an earlier session refuse nothing that was counted there, but not here."""
    first_seq = update.next.first_seq
    if first_seq == 1:
        return
    digests = [Binary(digest) for mark in update.marks.values() for digest in mark.counted]
    remains = {**key.of_session, "counted": {"$in": digests}, "seq": {"$lt": first_seq}}
    await connection.entries.find(remains).update(Unset({"counted": ""}))


async def mark_entries(connection: Connection, key: TranscriptKey) -> None:
    """Give the stored entries of a session the marks that they would have been stored with.

    What an older release stored has none, and what was deleted takes with it what others rest on.
    It can be repeated, and goes in writes of bounded size; what is appended meanwhile is the
    caller's to tell.
    """

    async def attempt() -> None:
        marked = {"counted": {"$exists": True}}
        if await connection.entries.find_one(key.of_session, marked).exists():
            # First away with what is wrong, for it may be right on another entry.
            await _mark(connection, key, clears=True)
        await _mark(connection, key, clears=False)

    await retried(connection.client, attempt)


async def _mark(connection: Connection, key: TranscriptKey, *, clears: bool) -> None:
    totals = Tally(is_complete=True)
    totals.copied_until = (await told_of_others(connection, key, None)).copied_until
    changes: list[UpdateOne] = []
    # No index has the order of all transcripts together, and what is sorted may be large.
    # The driver's own cursor and bulk, for there may be very many.
    rows = connection.entries.collection.find(
        key.of_session, _FIELDS, sort=[("seq", 1)], allow_disk_use=True
    )
    async for row in rows:
        each = await _stored(connection, key, row)
        mark = totals.add((each.entry,), each.subpath, each.seq).get(each.seq)
        carried = Mark(_digests(row.get("counted")), each.response)
        if carried == (mark or _NO_MARK) or (clears and carried == _NO_MARK):
            continue
        fields = {} if mark is None or clears else _mark_fields(mark)
        gone = [name for name in ("counted", "response") if name in row and name not in fields]
        change = {"$set": fields, "$unset": dict.fromkeys(gone, "")}
        owner = {**key.with_subpath(each.subpath).of_transcript, "seq": Int64(each.seq)}
        changes.append(UpdateOne(owner, {name: part for name, part in change.items() if part}))
        if len(changes) == _MARKED_AT_ONCE:
            await connection.entries.collection.bulk_write(changes, ordered=False)
            changes = []
    if changes:
        await connection.entries.collection.bulk_write(changes, ordered=False)


_NO_MARK = Mark((), None)
