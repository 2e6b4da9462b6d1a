"""What a team keeps on a session of its own."""

from __future__ import annotations

from beanie.operators import Set, Unset

from ..database.attempts import unless_refused
from ..errors import UnknownSessionError
from ..storage.codec import EncodedValue
from ..storage.connection import Connection
from ..storage.criteria import NOT_EXPIRED
from ..storage.values import value_fields
from ..transcript_key import TranscriptKey

_FIELDS = ("metadata", "packed_metadata")


async def set_metadata(
    connection: Connection, key: TranscriptKey, metadata: EncodedValue | None
) -> None:
    """Put metadata on a session in place of what it has; ``None`` takes that away.

    Raises:
        UnknownSessionError: there is no such session, or it has expired.
    """
    values = value_fields(metadata, *_FIELDS)
    gone = {name: "" for name in _FIELDS if name not in values}
    summary = connection.summaries.find_one(key.of_session, NOT_EXPIRED)
    changed = await unless_refused(lambda: summary.update(Set(values), Unset(gone)))
    if not changed.matched_count:
        raise UnknownSessionError(
            f"There is no {key}; nothing was changed. Check tenant, project key and session id."
        )
