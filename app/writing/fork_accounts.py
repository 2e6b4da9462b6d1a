"""What the agent's account of cost had come to in a session when it was forked.

An agent that forks a session goes on with its account, and copies no state of it into the fork. The
session that was forked has the states. (A fork that the SDK makes begins an account of its own.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...models.counting.cost_accounts import Account, ForkPoint, account_in
from ..database.documents import Row
from ..database.driver import ClientSession
from ..storage.codec import idempotency_key
from ..storage.connection import Connection
from ..storage.living import live_of
from ..transcript_key import TranscriptKey


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

    ``None`` where that cannot be told: that session is gone, or is of another project.
    """
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

    begin = live.first_of("")
    copied = await first({"uuid": idempotency_key(point.uuid), "seq": {"$gte": begin}}, 1)
    if copied is None:
        return {}
    # What came there since is in no account that was carried over.
    since = await first({"seq": {"$gt": copied.seq}, "entry.type": "assistant"}, 1)
    until: dict[str, Any] = {"$gte": begin} | ({} if since is None else {"$lt": since.seq})
    found: dict[float, Account | None] = {}
    for start in starts:
        of_account = {"entry.type": "cost-state", "entry.startTime": start}
        state = await first({"seq": until, **of_account}, -1)
        found[start] = account_in(state.entry) if state else None
    return found
