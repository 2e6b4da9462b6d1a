"""What a change stream tells of sessions, and the tokens that name a place in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bson import Timestamp

from ..database.driver import Record
from ..errors import InvalidQueryError
from ..sdk import SessionKey
from ..storage.criteria import DELETED
from ..text import shown
from ..transcript_key import TranscriptKey, session_key

Kind = Literal["created", "changed", "deleted"]

# A token is a key of the server's log, the time first, so that tokens sort as what they name. One
# of a time alone is before all that happened then.
_TOKEN = re.compile(r"82(?!0{8})[0-9A-F]{16,4000}")
_TIME_DIGITS = 18


@dataclass(frozen=True, slots=True)
class SessionChange:
    """That something of a session changed: once for each append, and for all else but dates."""

    kind: Kind
    """``created`` with its first entry, ``changed``, or ``deleted``: by somebody, or as it
    expired."""
    project_key: str
    session_id: str
    next_seq: int | None
    """The position that the session's next entry gets, where entries came."""
    token: str
    """Pass it as ``after`` to go on behind this change."""

    def key(self) -> SessionKey:
        """The key of the session, for the methods of the store and of the SDK."""
        return session_key(self.project_key, self.session_id)


@dataclass(frozen=True, slots=True)
class OwnedChange:
    """A change, and whose session it is."""

    session: TranscriptKey
    change: SessionChange

    @classmethod
    def of(cls, session: TranscriptKey, document: Record) -> OwnedChange:
        """What a document of the stream tells of a session."""
        found = document.get("next_seq")
        change = SessionChange(
            kind_of(document),
            session.project_key,
            session.session_id,
            int(found) if isinstance(found, (int, float)) else None,
            token_of(document),
        )
        return cls(session, change)


# How an entry's and a summary's dates are moved on concerns no reader.
_DATES = {"backstop", "expires_at", "moved_through", "remains"}

PIPELINE: list[Record] = [
    {"$match": {"operationType": {"$in": ["insert", "update", "replace", "delete"]}}},
    {
        "$project": {
            "operationType": 1,
            "clusterTime": 1,
            "documentKey._id": 1,
            "tenant": "$fullDocument.tenant",
            "project_key": "$fullDocument.project_key",
            "session_id": "$fullDocument.session_id",
            "next_seq": {
                "$ifNull": ["$fullDocument.next_seq", "$updateDescription.updatedFields.next_seq"]
            },
            "expires_at": {
                "$ifNull": [
                    "$fullDocument.expires_at",
                    "$updateDescription.updatedFields.expires_at",
                ]
            },
            "updated": {
                "$map": {
                    "input": {"$objectToArray": "$updateDescription.updatedFields"},
                    "in": "$$this.k",
                }
            },
            "removed": "$updateDescription.removedFields",
        }
    },
]
"""What is asked of the server: of each change a few hundred bytes, whatever the summary holds."""


def kind_of(document: Record) -> Kind:
    """What became of the session."""
    operation = document["operationType"]
    # The summary of a large session stays until its entries are swept.
    if operation == "delete" or is_marked_deleted(document):
        return "deleted"
    return "created" if operation == "insert" else "changed"


def is_marked_deleted(document: Record) -> bool:
    """Whether the session was deleted, and its summary stays for a while."""
    return document.get("expires_at") == DELETED


def is_of_dates(document: Record) -> bool:
    """Whether nothing changed but until when something is kept."""
    if document["operationType"] != "update" or is_marked_deleted(document):
        return False
    names = [*(document.get("updated") or ()), *(document.get("removed") or ())]
    return bool(names) and {name.partition(".")[0] for name in names} <= _DATES


def session_in(document: Mapping[str, Any]) -> TranscriptKey | None:
    """Whose session a summary is of; ``None`` for what was written by something else."""
    names = [document.get(name) for name in ("tenant", "project_key", "session_id")]
    found = [name for name in names if isinstance(name, str)]
    return TranscriptKey(*found) if len(found) == len(names) else None


def token_of(document: Record) -> str:
    """The place of a change."""
    return document["_id"]["_data"]


def token_at(time: Timestamp) -> str:
    """The place behind all that had happened at a time of the server."""
    return f"82{time.time:08X}{time.inc + 1:08X}"


def place_of(token: str) -> Record:
    """How a change stream is told where to begin."""
    if len(token) == _TIME_DIGITS:
        return {"start_at_operation_time": Timestamp(int(token[2:10], 16), int(token[10:], 16))}
    return {"resume_after": {"_data": token}}


def checked_token(token: object) -> str | None:
    """Where to go on.

    Raises:
        InvalidQueryError: it is no token.
    """
    if token is None:
        return None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise InvalidQueryError(
            f"after must be the token of a change, or of a feed, or None, not {shown(token)}."
        )
    return str.__str__(token)
