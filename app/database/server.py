"""What the servers behind a client are, and what time it is there."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from weakref import WeakKeyDictionary

from .driver import Client, announce, with_store_rules

logger = logging.getLogger("beanie_session_store.database")


@dataclass(frozen=True, slots=True)
class Server:
    """What a deployment can do, and how far its clock is from ours."""

    has_transactions: bool
    is_sharded: bool
    clock_origin: float
    """Epoch seconds of the server's clock at zero of the local steady clock."""

    def now_ms(self) -> int:
        """The server's time, epoch milliseconds."""
        return int((self.clock_origin + steady_seconds()) * 1000)

    def now(self) -> datetime:
        """The server's time, UTC, with the milliseconds that BSON keeps."""
        return date_of(self.now_ms())


def date_of(ms: int) -> datetime:
    """Epoch milliseconds as a date, UTC."""
    return datetime.fromtimestamp(ms / 1000, timezone.utc)


_servers: WeakKeyDictionary[Client, Server] = WeakKeyDictionary()


async def server_of(client: Client) -> Server:
    """Ask the deployment once per client what it is."""
    known = _servers.get(client)
    if known is not None:
        return known
    announce(client)
    asked = steady_seconds()
    # Not as the team's client would ask: it may read dates in a time zone of its own.
    hello = await with_store_rules(client.admin).command("hello")
    halfway = (asked + steady_seconds()) / 2
    is_sharded = hello.get("msg") == "isdbgrid"
    has_transactions = "setName" in hello or is_sharded
    if not has_transactions:
        logger.warning(
            "The MongoDB server has no transactions, for it is no replica set: an append that is "
            "cut off by a crash may be stored in part. Make it a replica set (of one member, if "
            "need be) before you rely on it."
        )
    server = Server(
        has_transactions=has_transactions,
        is_sharded=is_sharded,
        clock_origin=hello["localTime"].timestamp() - halfway,
    )
    _servers[client] = server
    return server


def steady_seconds() -> float:
    """Seconds by a clock that only ever goes on."""
    # Unlike the wall clock it is never set back, and unlike the monotonic clock of Linux it goes
    # on while the machine sleeps.
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
