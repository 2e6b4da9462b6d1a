"""Transactions whose writer died, which would block their session until MongoDB ends them.

That takes it 60 to 90 seconds. So whoever is refused for a while looks for transactions that
stand still, and ends them; a writer that lives after all is told to try again, as after any
conflict. Nothing but the store's own transactions of the same user is ever ended: each carries a
mark, for the names in a connection's handshake stand for all that a team's client does.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import pymongo
from bson import Timestamp
from pymongo import ReadPreference
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from ..instruments.operations import counted

logger = logging.getLogger("beanie_session_store.database")

_PATIENCE_SECONDS = 0.5
_LOOK_EVERY_SECONDS = 0.5
_LOOK_SECONDS = 2.0
# With its connection gone its writer is nearly surely dead. One that is still there may belong to
# a host that lost its power, and to a slow writer that sends a large batch.
_STILL_SECONDS = 2.0
_STILL_CONNECTED_SECONDS = 10.0

# A moment in 1970, so the server never waits for it. It shows what a transaction was begun with.
_MARK = Timestamp(1, 0xBEA11E)


class _MarkedReadConcern(ReadConcern):
    """The default of transactions, by which the store's can be told from a team's own."""

    @property
    def document(self) -> dict[str, Any]:
        return {"level": "local", "afterClusterTime": _MARK}


MARKED = _MarkedReadConcern("local")

_MARKED_FIELD = "transaction.parameters.readConcern.afterClusterTime"
_LOOK: dict[str, Any] = {
    "aggregate": 1,
    "pipeline": [
        {"$currentOp": {"allUsers": False, "idleSessions": True, "idleConnections": True}},
        {"$match": {"$or": [{"type": "idleSession", _MARKED_FIELD: _MARK}, {"type": "op"}]}},
        {
            "$project": {
                "type": 1,
                "connectionId": 1,
                "session": "$lsid.id",
                "number": "$transaction.parameters.txnNumber",
                "active": "$transaction.timeActiveMicros",
            }
        },
    ],
    # All that fits one answer: 16 MiB, which is some 100,000 connections.
    "cursor": {"batchSize": 2**31 - 1},
}


class _Standstill:
    """What a client saw of the store's idle transactions, and since when each has not moved."""

    def __init__(self) -> None:
        self.next_look = 0.0
        self._since: dict[tuple[Any, ...], float] = {}

    def seen(self, operations: list[dict[str, Any]], now: float) -> Iterator[dict[str, Any]]:
        """Take in one look; the transactions that have stood still for too long."""
        connections = {each.get("connectionId") for each in operations if each["type"] == "op"}
        before, self._since = self._since, {}
        for each in operations:
            if each["type"] != "idleSession":
                continue
            # Time it was active only grows, so one that did anything meanwhile is another one here.
            key = (bytes(each["session"]), each.get("number"), each.get("active"))
            since = self._since[key] = before.get(key, now)
            is_connected = each.get("connectionId") in connections
            if now - since >= (_STILL_CONNECTED_SECONDS if is_connected else _STILL_SECONDS):
                yield each


_standstills: WeakKeyDictionary[Any, _Standstill] = WeakKeyDictionary()


async def end_abandoned(client: Any, refused_seconds: float) -> None:
    """End the store's transactions of dead writers, for a writer that was refused for so long.

    It never fails: where the server does not show transactions or does not let the user end its
    own, writers wait until the server itself does.
    """
    now = time.monotonic()
    standstill = _standstills.setdefault(client, _Standstill())
    if refused_seconds < _PATIENCE_SECONDS or now < standstill.next_look:
        return
    # Before anything is awaited: one look is enough for all writers of the process.
    standstill.next_look = now + _LOOK_EVERY_SECONDS
    try:
        with pymongo.timeout(_LOOK_SECONDS):
            answer = await _on_primary(client, _LOOK)
            for dead in standstill.seen(answer["cursor"]["firstBatch"], now):
                await _on_primary(client, {"killSessions": [{"id": dead["session"]}]})
                counted("dead_writers.ended")
                logger.info("Ended a transaction of a session store writer that stood still.")
    except OperationFailure as error:
        if not error.timeout:
            standstill.next_look = math.inf
            logger.debug("Transactions of dead writers cannot be ended here: %s", error)
    except PyMongoError as error:
        logger.debug("Could not look for transactions of dead writers: %s", error)


async def _on_primary(client: Any, command: Mapping[str, Any]) -> dict[str, Any]:
    return await client.admin.command(dict(command), read_preference=ReadPreference.PRIMARY)
