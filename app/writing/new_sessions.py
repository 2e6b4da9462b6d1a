"""Whole sessions that are not stored yet, many of them in one transaction.

The write path takes four commands for a new session, however small it is, so tens of thousands of
small ones take that many times four. Here a few commands store a hundred of them. Whatever is not
plain, such as a session that another writer has begun, is left to the write path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from bson import ObjectId
from pymongo.errors import BulkWriteError

from ...models.counting.marks import Mark
from ...models.counting.tally import Tally
from ..database.attempts import Attempts
from ..database.commands import insert_encoded
from ..database.driver import ClientSession, with_confirmed_reads
from ..database.reads import retried
from ..database.server_codes import DUPLICATE_KEY
from ..database.transactions import OutcomeUnknownError, TransientFailureError, transact
from ..errors import InvalidEntryError
from ..sdk import SessionKey
from ..storage.codec import EncodedEntry, EncodedValue, encode_entries
from ..storage.connection import Connection
from ..storage.criteria import ERASED, NOT_EXPIRED, KeyRow
from ..storage.seals import cipher_to_write
from ..storage.state import Folded, fold_on
from ..storage.values import CONTENT, content_of
from ..stored_times import whole_ms
from ..text import shown
from ..transcript_key import TranscriptKey, checked_name
from .summary_update import planned_update
from .written_documents import entry_documents, summary_document


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session with all of its entries."""

    project_key: str
    session_id: str
    mtime: int | None
    """When it changed last, epoch milliseconds; ``None`` is now."""
    transcripts: Mapping[str, Sequence[Mapping[str, Any]]] = field(repr=False)
    """The entries by subpath; ``""`` is the main transcript."""

    def key(self) -> SessionKey:
        """The key of its main transcript."""
        return {"project_key": self.project_key, "session_id": self.session_id}


def checked_sessions(sessions: object) -> list[Any]:
    """What may be sessions, one by one.

    Raises:
        InvalidEntryError: it is no sequence.
    """
    if not isinstance(sessions, Sequence) or isinstance(sessions, (str, bytes)):
        raise InvalidEntryError(
            f"sessions must be a list of NewSession, not {shown(sessions)}; nothing was stored. "
            "Pass [NewSession(...), ...]."
        )
    return list(cast("Sequence[Any]", sessions))


def checked_session(session: object) -> NewSession:
    """One session, whose entries are looked at later.

    Raises:
        InvalidEntryError: it is none.
        InvalidKeyError: a subpath is no usable name.
    """
    transcripts: object = session.transcripts if isinstance(session, NewSession) else None
    if not isinstance(session, NewSession) or not isinstance(transcripts, Mapping):
        raise InvalidEntryError(
            f"{shown(session)} is no session; nothing was stored. Pass "
            'NewSession(project_key, session_id, mtime, {"": entries}).'
        )
    checked_mtime(session.mtime)
    for subpath, entries in cast("Mapping[object, object]", transcripts).items():
        if subpath != "":
            checked_name("subpath", subpath)
        if not isinstance(entries, Sequence) or isinstance(entries, (str, bytes)):
            raise InvalidEntryError(
                f"the entries of a transcript must be a list, not {shown(entries)}; nothing was "
                "stored. Pass the JSON objects."
            )
    return session


def checked_mtime(mtime: object) -> None:
    """Refuse what is no time of a session.

    Raises:
        InvalidEntryError: it is neither ``None`` nor epoch milliseconds that are a time.
    """
    if mtime is not None and (type(mtime) is not int or whole_ms(mtime) is None):
        raise InvalidEntryError(
            f"mtime must be epoch milliseconds (an int) or None, not {shown(mtime)}; nothing was "
            "stored. Leave it out for now."
        )


@dataclass(slots=True)
class _NewDocuments:
    summaries: list[dict[str, Any]]
    entries: list[bytes]


async def insert_sessions(
    connection: Connection,
    sessions: Sequence[tuple[TranscriptKey, NewSession]],
    metadata: EncodedValue | None,
) -> list[int | None]:
    """Store those sessions that are not stored yet, all of them or none.

    It says how many entries of each were stored: 0 where exactly these are there already, and
    ``None`` where the write path has to look. The keys are those of main transcripts, each once.

    Raises:
        InvalidEntryError: an entry is no JSON object; nothing was stored.
        PyMongoError: what the driver raises.
    """
    outcome: list[int | None] = [None] * len(sessions)
    if not connection.server.has_transactions:
        return outcome
    # An election in the meantime costs a look more, and not the sessions that come after.
    known = await retried(
        connection.client, lambda: _known(connection, [key for key, _ in sessions])
    )
    counts = {key: sum(map(len, session.transcripts.values())) for key, session in sessions}
    # One of which more is stored is another one, and may not fit the memory.
    comparable = [
        key
        for key, next_seq in known.items()
        if type(next_seq) is int and next_seq <= counts[key] + 1
    ]
    new = [key for key, _ in sessions if key not in known]
    found = await retried(connection.client, lambda: _stored(connection, comparable))
    # Of an earlier session of the same key, which is gone.
    has_remains = await retried(connection.client, lambda: _with_entries(connection, new))
    documents = _NewDocuments([], [])
    for index, (key, session) in enumerate(sessions):
        if key in known:
            given = {subpath: list(e) for subpath, e in session.transcripts.items() if e}
            outcome[index] = 0 if found.get(key) == given else None
        elif key in has_remains:
            continue
        elif (made := await _documents(connection, key, session, metadata)) is not None:
            outcome[index] = len(made.entries)
            documents.summaries += made.summaries
            documents.entries += made.entries
    if not documents.summaries:
        return outcome
    if not await _insert(connection, documents):
        return [None if count else count for count in outcome]
    return outcome


async def _insert(connection: Connection, documents: _NewDocuments) -> bool:
    async def work(session: ClientSession | None) -> None:
        # The driver's own: what a class of a team adds is encoded already.
        await connection.summaries.collection.insert_many(documents.summaries, session=session)
        await insert_encoded(connection.entries.collection, documents.entries, session)

    try:
        await transact(connection.client, connection.server, work, Attempts())
    except (TransientFailureError, OutcomeUnknownError):
        return False
    except BulkWriteError as error:
        # Another writer began one of them first.
        if all(e.get("code") == DUPLICATE_KEY for e in error.details.get("writeErrors", ())):
            return False
        raise
    return True


# One that was erased is left to the write path, which refuses it.
_KNOWN = {"$or": [NOT_EXPIRED, ERASED]}


class _KnownRow(KeyRow):
    next_seq: Any = None


async def _known(connection: Connection, keys: Sequence[TranscriptKey]) -> dict[TranscriptKey, Any]:
    """Those of the sessions that are stored or erased, with what each has for its next position."""
    known: dict[TranscriptKey, Any] = {}
    for owner in _owners(keys):
        async for row in connection.summaries.find(owner, _KNOWN, rows=_KnownRow):
            known[row.key] = row.next_seq
    return known


async def _stored(
    connection: Connection, keys: Sequence[TranscriptKey]
) -> dict[TranscriptKey, dict[str, list[dict[str, Any]]]]:
    """The entries of sessions by subpath, once a majority has them."""
    # The driver's own cursor: a model of each entry would take as long as reading it.
    entries = with_confirmed_reads(connection.entries.collection)
    fields = {**CONTENT, "tenant": 1, "project_key": 1, "session_id": 1, "subpath": 1}
    order = [(name, 1) for name in ("tenant", "project_key", "session_id", "subpath", "seq")]
    found: dict[TranscriptKey, dict[str, list[dict[str, Any]]]] = {}
    for owner in _owners(keys):
        async for row in entries.find(owner, fields, sort=order):
            key = TranscriptKey(row["tenant"], row["project_key"], row["session_id"])
            content = await content_of(connection, key.with_subpath(row["subpath"]), row)
            found.setdefault(key, {}).setdefault(row["subpath"], []).append(content)
    return found


async def _with_entries(
    connection: Connection, keys: Sequence[TranscriptKey]
) -> set[TranscriptKey]:
    """Those of the sessions of which entries are stored."""
    found: set[TranscriptKey] = set()
    for owner in _owners(keys):
        # There is one at most in hundreds; then each is asked for.
        if await connection.entries.find_one(owner).exists():
            for key in keys:
                if await connection.entries.find_one(key.of_session).exists():
                    found.add(key)
    return found


def _owners(keys: Sequence[TranscriptKey]) -> list[dict[str, Any]]:
    """Queries for all of the sessions; each starts with the shard key."""
    by_project: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        by_project.setdefault((key.tenant, key.project_key), []).append(key.session_id)
    return [
        {"tenant": tenant, "project_key": project_key, "session_id": {"$in": session_ids}}
        for (tenant, project_key), session_ids in by_project.items()
    ]


async def _documents(
    connection: Connection,
    key: TranscriptKey,
    session: NewSession,
    metadata: EncodedValue | None,
) -> _NewDocuments | None:
    """What is stored of a session; ``None`` of one that takes more than a document per entry."""
    retention = await connection.retention_of(key)
    if retention.is_managed:
        # It has dates, which the write path gives.
        return None
    encoded: dict[str, list[EncodedEntry]] = {}
    totals = Tally(is_complete=True)
    totals.is_exact = connection.has_marks
    marks: dict[int, Mark] = {}
    first = 1
    data: dict[str, Any] | None = None
    for subpath, entries in session.transcripts.items():
        encoded[subpath] = batch = await encode_entries(list(entries))
        # At once, for the caller may change its dicts as soon as something is awaited.
        contents = [each.entry for each in batch]
        marks |= totals.add(contents, subpath, first)
        first += len(batch)
        if batch and not subpath:
            data = fold_on(None, key, contents)
    count = sum(map(len, encoded.values()))
    if not count or any(entry.chunks for batch in encoded.values() for entry in batch):
        return None
    if totals.accounts_asked:
        # What a fork carried over is looked up in another session.
        return None

    def mtime(now: int, _: int | None) -> int:
        return now if session.mtime is None else min(session.mtime, now)

    folded = Folded(data, totals, marks if connection.has_marks else {}, totals.wanted)
    cipher = await cipher_to_write(connection, key, None, metadata)
    update = planned_update(connection, count, None, folded, retention, (), mtime, cipher)
    if update.data_chunks:
        return None
    documents = _NewDocuments([summary_document(connection, key, update, metadata)], [])
    first = update.first_seq
    for subpath, batch in encoded.items():
        # Each batch has an id of its own, as if it had been appended.
        part = update._replace(first_seq=first, tries=(ObjectId(),))
        transcript = key.with_subpath(subpath)
        documents.entries += entry_documents(connection, transcript, batch, part)
        first += len(batch)
    return documents
