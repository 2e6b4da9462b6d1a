"""When a session expires: whole, by inactivity, and at once for every reader."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from beanie.operators import In

from ...models.retention import FOR_EVER, RetentionPolicy
from ...models.views.lenient import Words
from ..database.documents import Documents, Row
from ..database.driver import Client
from ..every import EVERY

CACHE_SECONDS = 5.0
"""How long a store may go on with a policy that was changed meanwhile."""

_MAX_CACHED = 4096

# A session's date is moved on only when less than its period is left, and then this far, so that
# an active session is dated anew at most once per tenth of its period.
_SLACK = 1.1
# An append in the last moment of a session moves its date on by so much; entries that are dated
# behind that outlive it, whoever is killed before they are moved as well.
_BACKSTOP = 2 * _SLACK
# They are moved when that much of it is used up, so a mover has the other half of a period.
_USED = 0.55


@dataclass(frozen=True, slots=True)
class Retention:
    """The policy that holds for a session."""

    keep: timedelta | None
    """How long it is kept after its last append; ``None`` is for ever."""
    is_managed: bool
    """Whether any policy names it, so that remains of expired sessions may be around."""

    def expiry(self, active_at: datetime) -> datetime | None:
        """The date of a session that was last active at ``active_at``."""
        if self.keep is None:
            return None
        try:
            date = active_at + self.keep * _SLACK
        except OverflowError:
            # It was last active when no clock will ever be.
            return FOR_EVER
        # As BSON keeps it, so that it equals itself when it is read back.
        return date.replace(microsecond=date.microsecond // 1000 * 1000)

    def backstop(self, active_at: datetime) -> datetime | None:
        """The date of the entries of a session that was last active at ``active_at``."""
        if self.keep is None:
            return None
        date = active_at + self.keep * _BACKSTOP
        return date.replace(microsecond=date.microsecond // 1000 * 1000)

    def is_short(self, date: datetime | None, wanted: datetime | None) -> bool:
        """Whether entries of ``date`` should be moved on to ``wanted``; ``None`` is for ever."""
        if date is None or wanted is None:
            return date is not None
        return date < wanted - (self.keep or timedelta(0)) * _USED

    def is_long(self, date: datetime | None, wanted: datetime | None) -> bool:
        """Whether entries of ``date`` would stay much longer than ``wanted``."""
        if date is None or wanted is None:
            return wanted is not None
        return date > wanted + (self.keep or timedelta(0)) * (_SLACK - 1)

    def is_due(self, expires_at: datetime | None, now: datetime) -> bool:
        """Whether a session that is active ``now`` needs another date."""
        if self.keep is None or expires_at is None:
            return (self.keep is None) != (expires_at is None)
        return not now + self.keep <= expires_at <= now + self.keep * _SLACK


_UNMANAGED = Retention(None, False)


class RetentionCache:
    """The retentions of the projects that one client wrote to last.

    It knows its client's databases by their names only, for it would else keep the client alive.
    """

    def __init__(self) -> None:
        self.clear()

    async def get(
        self, policies: Documents[RetentionPolicy], tenant: str, project_key: str
    ) -> Retention:
        """The retention of a project's sessions, read at most once per ``CACHE_SECONDS``."""
        key = (policies.collection.database.name, tenant, project_key)
        known = self._known
        found = known.get(key)
        if found is not None and found[0] > monotonic():
            return found[1]
        retention = await read_retention(policies, tenant, project_key)
        # Into what was cleared meanwhile, where it was: it may be older than what was changed.
        known[key] = (monotonic() + CACHE_SECONDS, retention)
        known.move_to_end(key)
        if len(known) > _MAX_CACHED:
            known.popitem(last=False)
        return retention

    def clear(self) -> None:
        """Read policies anew from now on; for who has just changed one."""
        self._known: OrderedDict[tuple[str, str, str], tuple[float, Retention]] = OrderedDict()


_caches: WeakKeyDictionary[Client, RetentionCache] = WeakKeyDictionary()


def retention_cache_of(client: Client) -> RetentionCache:
    """The cache that the stores of a client share."""
    return _caches.setdefault(client, RetentionCache())


class PolicyRow(Row):
    """A policy, as it is stored."""

    tenant: Words = ""
    project_key: Words = ""
    keep_seconds: Any = None
    updated_at: Any = None


async def read_retention(
    policies: Documents[RetentionPolicy], tenant: str, project_key: str
) -> Retention:
    """The retention of a project's sessions, as it is in the database now."""
    every = EVERY.value
    rows = policies.find(
        In("tenant", [tenant, every]), In("project_key", [project_key, every]), rows=PolicyRow
    )
    fitting = {(row.tenant, row.project_key): row.keep_seconds async for row in rows}
    return most_specific(fitting, tenant, project_key)


def kept(seconds: object) -> timedelta | None:
    """The time that a stored policy says; for ever, where what it says is no time."""
    if not isinstance(seconds, (int, float)) or not 0 < seconds < FOR_EVER.timestamp():
        return None
    return timedelta(seconds=seconds)


def most_specific(
    policies: Mapping[tuple[str, str], int | None], tenant: str, project_key: str
) -> Retention:
    """The retention of a project's sessions by policies as stored: seconds by their owners."""
    every = EVERY.value
    for owner in (
        (tenant, project_key),
        (tenant, every),
        (every, project_key),
        (every, every),
    ):
        if owner in policies:
            return Retention(kept(policies[owner]), True)
    return _UNMANAGED
