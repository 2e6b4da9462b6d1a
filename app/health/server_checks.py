"""Examining the servers: release, members, clock, transactions, disk."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bson.objectid import ObjectId
from pymongo import ReadPreference
from pymongo.errors import PyMongoError

from ..database.attempts import Attempts
from ..database.driver import PACKAGES, ClientSession, Record
from ..database.failures import hosts_of
from ..database.reads import retried
from ..database.server import server_of
from ..database.transactions import snapshot, transact
from ..errors import SessionStoreError
from .findings import Finding
from .members import Members, advice_on, joined_advice, look_around, problems
from .target import Target

_OLDEST = (5, 0)
_SKEW_SECONDS = 5.0
_FULL = 0.95


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server says of itself, primary or not."""

    hello: Record
    release: str
    milliseconds: float
    """How long an answer took."""
    skew_seconds: float
    """How far its clock is before ours."""


def client() -> Finding:
    """The versions at this end."""
    packages = ("beanie-session-store", "claude-agent-sdk", *PACKAGES)
    found = [f"Python {platform.python_version()}", *map(_release_of, packages)]
    return Finding("client", "good", ", ".join(found))


async def greeting(target: Target) -> Greeting:
    """Ask any server what it is.

    Raises:
        PyMongoError: none answers, or it does not let us in.
    """
    admin = target.client.admin.with_options(codec_options=target.database.codec_options)
    build = await admin.command("buildInfo", read_preference=ReadPreference.NEAREST)
    # The second one: the first has opened a connection, too.
    began, clock = time.monotonic(), time.time()
    hello = await admin.command("hello", read_preference=ReadPreference.NEAREST)
    took = time.monotonic() - began
    skew = hello["localTime"].timestamp() - (clock + took / 2)
    return Greeting(hello, str(build["version"]), took * 1000, skew)


def unreachable(target: Target, error: SessionStoreError) -> Finding:
    """That no server answers, and why each does not."""
    reasons = problems(target.client)
    if not reasons:
        found, _, _ = str(error).partition("; nothing was changed")
        return Finding("server", "bad", found, advice_on(found))
    found = "; ".join(map(str, reasons))
    return Finding("server", "bad", f"no usable server answers ({found})", joined_advice(reasons))


def server(target: Target, met: Greeting) -> Finding:
    """The release of the server."""
    found = f"MongoDB {met.release} at {hosts_of(target.client)} answers in "
    found += f"{met.milliseconds:.1f} ms"
    release = tuple(int(part) for part in met.release.split(".")[:2] if part.isdigit())
    if release < _OLDEST:
        return Finding(
            "server", "bad", found, "The store needs MongoDB 5.0 or later: upgrade the server."
        )
    return Finding("server", "good", found)


async def topology(target: Target, met: Greeting) -> Finding:
    """Whether a member can be lost without losing writes."""
    hello = met.hello
    if hello.get("msg") == "isdbgrid":
        return Finding("topology", "good", "a sharded cluster")
    if "setName" not in hello:
        return Finding(
            "topology",
            "warning",
            "a standalone server, which has no transactions and no change streams",
            "Make it a replica set, of one member if need be: start mongod with --replSet rs0 and "
            "call rs.initiate() once.",
        )
    found = _of_set(await look_around(target.client, hello))
    if found.verdict == "good" and await _forgets_its_journal(target):
        return Finding(
            "topology",
            "warning",
            f"{found.found}, which acknowledges before a write is in the journal: it is lost if "
            "power fails everywhere",
            "Set writeConcernMajorityJournalDefault to true (rs.conf(), rs.reconfig()).",
        )
    return found


async def _forgets_its_journal(target: Target) -> bool:
    try:
        answer = await target.client.admin.command("replSetGetConfig")
    except PyMongoError:
        # Nearly nobody may ask, and by default it does not.
        return False
    return not answer["config"].get("writeConcernMajorityJournalDefault", True)


def _of_set(members: Members) -> Finding:
    found = str(members)
    if members.primary is None:
        return Finding(
            "topology",
            "bad",
            f"{found}; none of them is primary, so nothing can be written",
            "Bring back as many members as make a majority, or see rs.status() for why none is "
            "elected.",
        )
    if members.is_direct:
        return Finding(
            "topology",
            "warning",
            f"{found}, of which one is used directly: when another is elected, writes fail",
            f"Put replicaSet={members.name} into the connection string instead of "
            "directConnection=true.",
        )
    if members.away:
        away = "; ".join(map(str, members.away))
        advice = joined_advice(members.away)
        return Finding("topology", "warning", f"{found}; not reached from here: {away}", advice)
    if len(members.with_data) == 1:
        return Finding(
            "topology",
            "warning",
            f"{found}; there is no copy of its data, and nobody to take over from it",
            "Add two members before sessions matter.",
        )
    if not members.survives_a_loss:
        return Finding(
            "topology",
            "warning",
            f"{found}; with one of those with data away, no majority can have a write",
            "Add a member with data" + (", or make the arbiter one." if members.arbiters else "."),
        )
    return Finding("topology", "good", found)


def clock(met: Greeting) -> Finding:
    """Whether the clocks of this machine and of the server agree."""
    skew = abs(met.skew_seconds)
    # Half of the round trip is where in it the server looked at its clock.
    if skew <= _SKEW_SECONDS + met.milliseconds / 2000:
        return Finding(
            "clock", "good", f"within {max(skew * 1000, 1):.0f} ms of the server's clock"
        )
    side = "behind" if met.skew_seconds > 0 else "ahead of"
    return Finding(
        "clock",
        "warning",
        f"the clock of this machine is {skew:.0f} s {side} the server's",
        "Let both follow NTP. Order and expiry go by the server's clock and stay right; the days "
        "of usage go by the clocks of the agents' machines.",
    )


async def transactions(target: Target) -> Finding:
    """A transaction and a snapshot read, tried out; they read nothing and write nothing."""
    server = await server_of(target.client)
    if not server.has_transactions:
        return Finding(
            "transactions",
            "warning",
            "none: an append that is cut off by a crash may be stored in part",
            'Make the server a replica set (see "topology").',
        )

    async def read(session: ClientSession | None) -> None:
        await target.documents.entries.find_one({"_id": ObjectId()}, session=session).exists()

    async def read_snapshot() -> None:
        async with snapshot(target.client, server) as session:
            await read(session)

    began = time.monotonic()
    await transact(target.client, server, read, Attempts())
    await retried(target.client, read_snapshot)
    took = (time.monotonic() - began) * 1000
    return Finding("transactions", "good", f"a transaction and a snapshot read took {took:.1f} ms")


async def disk(target: Target) -> Finding:
    """How much is stored, and how much room there is."""
    return room(await target.database.command("dbStats"))


def room(stats: Record) -> Finding:
    """What ``dbStats`` says of the room on the server's disk."""
    size = _bytes(stats["storageSize"] + stats["indexSize"])
    total: Any = stats.get("fsTotalSize")
    if not total:
        return Finding("disk", "good", f"{size} used by this database")
    free = total - stats["fsUsedSize"]
    found = f"{size} used by this database, {_bytes(free)} of {_bytes(total)} free"
    if stats["fsUsedSize"] > _FULL * total:
        return Finding(
            "disk",
            "warning",
            found,
            "Make room, or let sessions expire (session-store retention set): MongoDB ends when "
            "its disk is full.",
        )
    return Finding("disk", "good", found)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _release_of(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} of no known version"
