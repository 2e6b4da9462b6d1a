"""What is looked up among the stored entries before the totals of a batch are right."""

from __future__ import annotations

from ...models.counting.cost_accounts import Account
from ...models.counting.tally import Tally
from ..database.reads import retried
from ..reading.load import stored_before
from ..storage.connection import Connection
from ..storage.state import SessionState
from ..transcript_key import TranscriptKey
from .fork_accounts import accounts_at


async def settle_leaves(
    connection: Connection, key: TranscriptKey, known: SessionState | None, totals: Tally
) -> None:
    """Look up which of the summaries of a batch are about what is stored already."""
    if known is None or known.is_expired:
        return totals.settle_leaves(())

    async def attempt() -> set[str]:
        leaves = totals.leaves_asked
        return await stored_before(connection, key, leaves, known.next_seq, None)

    totals.settle_leaves(await retried(connection.client, attempt))


async def settle_accounts(connection: Connection, key: TranscriptKey, totals: Tally) -> None:
    """Look up what accounts of cost had come to when the session was forked from another one."""
    point = totals.fork_point
    assert point is not None

    async def attempt() -> dict[float, Account | None]:
        return await accounts_at(connection, key, point, totals.accounts_asked, None)

    totals.settle_accounts(await retried(connection.client, attempt))
