"""Breaking and watching a real server on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pymongo import monitoring

from beanie_session_store.app.database.driver import Client, Database, close_client, open_client

from .watchdog import WATCHDOG_SECONDS

_KILLED = "killed"


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Client]:
    """A client of the driver that the installed Beanie runs on, closed at exit."""
    client = open_client(url, **options)
    try:
        yield client
    finally:
        await close_client(client)


class Commands(monitoring.CommandListener):
    """Records every command that a client sends, but for those about the connection itself."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.sent.append((event.command_name, dict(event.command)))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.sent]


@asynccontextmanager
async def failing(
    database: Database, command: str, mode: Mapping[str, int] | None = None, **data: Any
) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Make the server fail a command, once unless ``mode`` says otherwise.

    Inside there is a function to wait until it has begun to fail so many commands.
    """
    admin = database.client.admin
    before = await admin.command(
        {
            "configureFailPoint": "failCommand",
            "mode": mode or {"times": 1},
            "data": {"failCommands": [command], **data},
        }
    )

    async def met(times: int) -> None:
        await admin.command(
            {
                "waitForFailPoint": "failCommand",
                "timesEntered": before["count"] + times,
                "maxTimeMS": WATCHDOG_SECONDS * 1000,
            }
        )

    try:
        yield met
    finally:
        await admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@asynccontextmanager
async def without_expiry(database: Database) -> AsyncIterator[None]:
    """Hold up the TTL monitor of the whole server, as a busy one does."""
    admin = database.client.admin
    await admin.command("setParameter", 1, ttlMonitorEnabled=False)
    try:
        yield
    finally:
        await admin.command("setParameter", 1, ttlMonitorEnabled=True)


@asynccontextmanager
async def profiled(database: Database, found: list[dict[str, Any]]) -> AsyncIterator[None]:
    """Collect what the server's profiler says of the operations inside."""
    await database.command("profile", 2)
    try:
        yield
    finally:
        await database.command("profile", 0)
        operations = database["system.profile"].find({"ns": {"$not": {"$regex": "system"}}})
        found.extend(await operations.to_list())


def of_one_to_kill(url: str) -> str:
    """The connection string for a process that is going to be killed."""
    return f"{url}{'&' if '?' in url else '/?'}appName={_KILLED}"


async def forget_killed(url: str) -> None:
    """End what killed processes left open, which the server does by itself only after a minute."""
    connections: list[dict[str, Any]] = [
        {"$currentOp": {"idleConnections": True, "idleSessions": False}},
        {"$match": {"appName": _KILLED}},
    ]
    async with connected(url) as client:
        while True:
            listed = await client.admin.command("aggregate", 1, pipeline=connections, cursor={})
            if not listed["cursor"]["firstBatch"]:
                break
            # What they sent last may still be on its way into a transaction.
            await asyncio.sleep(0.05)
        await client.admin.command("killAllSessions", [])
