"""What an erasure has to show for itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from bson import ObjectId

from ..errors import InvalidReceiptError
from ..sdk import SessionKey
from ..text import shown
from ..transcript_key import TranscriptKey

_FORMAT = "beanie-session-store erasure 1"
_COUNTED = ("sessions", "entries", "chunks", "adoption_records")
_KEYS = ("sessions", "held", "forked", "failed")


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What was erased, when, by whom, how many of what, and what prevailed.

    It holds keys and numbers, and of what was said nothing. :meth:`as_json` is what to file.
    """

    tenant: str
    subject: Mapping[str, Any] | None
    """The metadata that was asked for; ``None`` is the whole tenant."""
    began_at: datetime
    ended_at: datetime | None
    """When the last of it was erased; ``None`` if some of it could not be, or only looked at."""
    erasure: str | None = None
    """The number of the erasure; ``None`` of a dry run."""
    until: datetime | None = None
    """When the tombstones go, and the keys may be used again."""
    by: tuple[str, ...] = ()
    """Who erased, as they said."""
    counts: Mapping[str, int] | None = None
    """Documents that there were: ``sessions``, ``entries``, ``chunks`` (pieces of large values),
    ``adoption_records``."""
    sessions: tuple[SessionKey, ...] = ()
    """The sessions that were erased, subagents included."""
    held: tuple[SessionKey, ...] = ()
    """Sessions that stay, for they are held."""
    forked: tuple[SessionKey, ...] = ()
    """Sessions that stay though they were forked from erased ones, and hold copies of them."""
    failed: tuple[SessionKey, ...] = ()
    """Sessions that are not erased, or not whole, for others wrote to them or the server was away;
    the same call goes on with them."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the subject is left: nothing failed, was held or is in a fork."""
        return self.ended_at is not None and not (self.held or self.forked or self.failed)

    def as_json(self) -> dict[str, Any]:
        """The receipt as JSON types, with a digest that tells whether it was changed since."""
        said = self._said()
        return {**said, "sha256": _digest(said)}

    def _said(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "erasure": self.erasure,
            "tenant": self.tenant,
            "subject": None if self.subject is None else dict(self.subject),
            "began_at": self.began_at.isoformat(),
            "ended_at": self.ended_at and self.ended_at.isoformat(),
            "until": self.until and self.until.isoformat(),
            "by": list(self.by),
            "counts": {name: (self.counts or {}).get(name, 0) for name in _COUNTED},
            **{name: [dict(key) for key in getattr(self, name)] for name in _KEYS},
        }

    @classmethod
    def of_json(cls, value: object) -> ErasureReceipt:
        """The receipt that :meth:`as_json` was filed of.

        Raises:
            InvalidReceiptError: it is none, or was changed since.
        """
        if not isinstance(value, Mapping):
            raise InvalidReceiptError(
                f"{shown(value)} is no receipt of an erasure; nothing was looked at. Pass the JSON "
                "object that the erasure gave."
            )
        given = dict(cast("Mapping[str, Any]", value))
        receipt: ErasureReceipt | None
        try:
            receipt = _parsed(given)
        except (KeyError, TypeError, ValueError, AttributeError):
            receipt = None
        if receipt is None or receipt.as_json() != given:
            raise InvalidReceiptError(
                "This is no receipt of an erasure, or not as it was given: its contents and its "
                "sha256 differ; nothing was looked at. Look for the file as it was filed."
            )
        return receipt


def _parsed(given: Mapping[str, Any]) -> ErasureReceipt:
    erasure, subject = given["erasure"], given["subject"]
    if erasure is not None and not ObjectId.is_valid(erasure):
        raise ValueError(erasure)
    keys: dict[str, tuple[SessionKey, ...]] = {}
    for name in _KEYS:
        found = cast("Sequence[SessionKey]", given[name])
        # Whatever it is, it is looked for in the database.
        keys[name] = tuple([key_of(TranscriptKey.parse("default", each)) for each in found])
    until, ended_at = given["until"], given["ended_at"]
    return ErasureReceipt(
        tenant=str(given["tenant"]),
        subject=None if subject is None else dict(subject),
        began_at=datetime.fromisoformat(given["began_at"]),
        ended_at=None if ended_at is None else datetime.fromisoformat(ended_at),
        erasure=erasure,
        until=None if until is None else datetime.fromisoformat(until),
        by=tuple(given["by"]),
        counts={name: int(given["counts"][name]) for name in _COUNTED},
        **keys,
    )


def key_of(key: TranscriptKey) -> SessionKey:
    """The key of a session as the SDK has it."""
    return {"project_key": key.project_key, "session_id": key.session_id}


def _digest(said: Mapping[str, Any]) -> str:
    text = json.dumps(said, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
