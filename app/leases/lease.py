"""What a lease is, and what it may be asked for with."""

from __future__ import annotations

import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import cast

from ..errors import InvalidLeaseError
from ..text import shown

MAX_OWNER_BYTES = 256
SHORTEST = timedelta(seconds=2)
LONGEST = timedelta(hours=1)

OnLost = Callable[[], Awaitable[object] | object]
"""Is called, and awaited if it returns something to await, when a lease is lost."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds a session."""

    owner: str
    """In the holder's own words."""
    since: datetime
    """When it was taken, UTC, by the server's clock."""
    until: datetime
    """When it ends unless it is renewed, UTC, by the server's clock."""

    @classmethod
    def of(cls, stored: object) -> Lease | None:
        """The lease that a summary has; ``None`` where it has none, or something else."""
        if not isinstance(stored, Mapping):
            return None
        fields = cast("Mapping[str, object]", stored)
        owner, since, until = (fields.get(name) for name in ("owner", "since", "until"))
        if not isinstance(until, datetime):
            return None
        return cls(
            owner if isinstance(owner, str) else "",
            _utc(since if isinstance(since, datetime) else until),
            _utc(until),
        )


@dataclass(frozen=True, slots=True)
class WantedLease:
    """A lease as it is asked for.

    Raises:
        InvalidLeaseError: it cannot be had.
    """

    owner: str
    ttl: timedelta
    wait: timedelta | None
    on_lost: OnLost | None

    def __post_init__(self) -> None:
        _check_owner(self.owner)
        if not isinstance(self.ttl, timedelta) or not SHORTEST <= self.ttl <= LONGEST:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _invalid(
                f"ttl must be a timedelta from 2 s to 1 h, not {shown(self.ttl)}",
                "Take the longest that others may wait for where this process dies: the lease is "
                "renewed as long as it lives.",
            )
        if self.wait is not None and (
            not isinstance(self.wait, timedelta) or self.wait < timedelta(0)  # pyright: ignore[reportUnnecessaryIsInstance]
        ):
            raise _invalid(
                f"wait must be a timedelta from 0 on, or None, not {shown(self.wait)}",
                "Leave it out to be refused at once where the session is busy.",
            )
        if self.on_lost is not None and not callable(self.on_lost):
            raise _invalid(
                f"on_lost must be a function without arguments, not {shown(self.on_lost)}",
                "Pass what interrupts the agent.",
            )


def _utc(moment: datetime) -> datetime:
    # A team's client may read dates without a time zone.
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment


def checked_lease(lease: object) -> Lease | None:
    """A lease that is meant, if any.

    Raises:
        InvalidLeaseError: it is none.
    """
    if lease is not None and not isinstance(lease, Lease):
        raise InvalidLeaseError(
            f"lease must be a Lease, as lease_of() gives it, or None, not {shown(lease)}; nothing "
            "was changed."
        )
    return lease


def _check_owner(owner: object) -> None:
    if not isinstance(owner, str) or not owner:
        raise _invalid(
            f"owner must be a text that is not empty, not {shown(owner)}",
            "Pass what tells people who holds the session, such as the name of the host.",
        )
    # Half an emoji is of a category of its own, "Cs".
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in owner[:1024]):
        raise _invalid(
            f"owner has control characters, or is no Unicode text: {shown(owner)}",
            "Pass plain text.",
        )
    if len(owner) > MAX_OWNER_BYTES or len(owner.encode()) > MAX_OWNER_BYTES:
        raise _invalid(f"owner is longer than {MAX_OWNER_BYTES} bytes", "Pass a shorter one.")


def _invalid(what: str, advice: str) -> InvalidLeaseError:
    return InvalidLeaseError(f"{what}; no lease was taken. {advice}")
