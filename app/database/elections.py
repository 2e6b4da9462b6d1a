"""Reads that have all that earlier primaries acknowledged."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from bson import ObjectId
from pymongo.errors import AutoReconnect

from .driver import Client, with_store_rules

# The election of which a client knows that it is confirmed; of a deployment without any, None.
_confirmed: WeakKeyDictionary[Client, ObjectId | None] = WeakKeyDictionary()


@asynccontextmanager
async def confirmed_primary(client: Client) -> AsyncGenerator[None]:
    """What is read inside is read from one primary, whose election is confirmed.

    A member that has just been elected has all that was acknowledged, but answers from before the
    last of it until a majority has followed it in its own term.

    Raises:
        AutoReconnect: it is not confirmed yet, or was replaced meanwhile; read again.
    """
    election = _election(client)
    if client not in _confirmed or _confirmed[client] != election:
        election = await _confirm(client)
    yield
    if _election(client) != election:
        raise AutoReconnect("another primary was elected meanwhile")


def _election(client: Client) -> ObjectId | None:
    """The election of the primary that the client sends its reads to."""
    for server in client.topology_description.server_descriptions().values():
        if server.is_writable:
            return server.election_id
    return None


async def _confirm(client: Client) -> ObjectId | None:
    hello = await with_store_rules(client.admin).command("hello")
    last = hello.get("lastWrite", {})
    # A primary begins with an entry of its own term.
    if "majorityOpTime" in last and last["majorityOpTime"]["t"] != last["opTime"]["t"]:
        raise AutoReconnect("no majority of the members follows the new primary yet")
    election: ObjectId | None = hello.get("electionId")
    _confirmed[client] = election
    return election
