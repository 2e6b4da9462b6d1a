"""What the agent's account of cost had come to in a session when it was forked.

An agent that forks a session goes on with its account, and copies no state of it into the fork. The
session that was forked has the states. (A fork that the SDK makes begins an account of its own.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ...models.counting.cost_accounts import Account, ForkPoint, account_in
from ..database.documents import Row
from ..database.driver import ClientSession
from ..errors import CorruptEntryError, EncryptionError, KeyServiceError
from ..storage.codec import idempotency_key
from ..storage.connection import Connection
from ..storage.living import live_of
from ..storage.values import CONTENT, content_of
from ..transcript_key import TranscriptKey


def _is_of(start: float, entry: dict[str, Any]) -> bool:
    return entry.get("type") == "cost-state" and entry.get("startTime") == start


class _AccountEntryRow(Row):
    seq: Any = None
    entry: Any = None


async def accounts_at(
    connection: Connection,
    key: TranscriptKey,
    point: ForkPoint,
    starts: Iterable[float],
    session: ClientSession | None,
) -> dict[float, Account | None]:
    """The states of accounts, by their start, when ``key`` was forked from another session.

    ``None`` where that cannot be told: that session is gone, is of another project, or cannot be
    read.
    """
    try:
        return await _accounts_in_source(connection, key, point, starts, session)
    except KeyServiceError:
        # Later it can be told.
        raise
    except (CorruptEntryError, EncryptionError):
        # Whatever became of the other session, the fork goes on.
        return {}


async def _accounts_in_source(
    connection: Connection,
    key: TranscriptKey,
    point: ForkPoint,
    starts: Iterable[float],
    session: ClientSession | None,
) -> dict[float, Account | None]:
    source = key.session._replace(session_id=point.session_id)
    live = await live_of(connection, source, session)
    if live is None:
        return {}
    entries = connection.entries if session else connection.entries.confirmed

    async def first(query: dict[str, Any], order: int) -> _AccountEntryRow | None:
        return await entries.find_one(
            source.of_transcript,
            query,
            rows=_AccountEntryRow,
            sort=[("seq", order)],
            session=session,
        )

    async def first_sealed(
        query: dict[str, Any], order: int, is_it: Callable[[dict[str, Any]], bool]
    ) -> _AccountEntryRow | None:
        """The same of entries that the server cannot look into, which are looked at one by one."""
        if connection.keyring is None:
            return None
        sealed = {**source.of_transcript, **query, "entry": {"$exists": False}}
        # The driver's own: a model of each would take as long as reading it.
        async for row in entries.collection.find(
            sealed, CONTENT, sort=[("seq", order)], session=session
        ):
            entry = await content_of(connection, source, row, session)
            if is_it(entry):
                return _AccountEntryRow(seq=row["seq"], entry=entry)
        return None

    async def nearest(
        query: dict[str, Any],
        order: int,
        named: dict[str, Any],
        is_it: Callable[[dict[str, Any]], bool],
    ) -> _AccountEntryRow | None:
        found = [await first({**query, **named}, order), await first_sealed(query, order, is_it)]
        there = [each for each in found if each is not None]
        return min(there, key=lambda each: order * each.seq, default=None)

    begin = live.first_of("")
    copied = await first({"uuid": idempotency_key(point.uuid), "seq": {"$gte": begin}}, 1)
    if copied is None:
        return {}
    # What came there since is in no account that was carried over.
    since = await nearest(
        {"seq": {"$gt": copied.seq}},
        1,
        {"entry.type": "assistant"},
        lambda entry: entry.get("type") == "assistant",
    )
    until: dict[str, Any] = {"$gte": begin} | ({} if since is None else {"$lt": since.seq})
    found: dict[float, Account | None] = {}
    for start in starts:
        of_account = {"entry.type": "cost-state", "entry.startTime": start}
        state = await nearest({"seq": until}, -1, of_account, partial(_is_of, start))
        found[start] = account_in(state.entry) if state else None
    return found
