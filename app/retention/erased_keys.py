"""The keys of what was erased, destroyed at last: then no backup holds anything to read either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson import Binary, ObjectId

from ..encryption.encryption import subject_in
from ..encryption.seal import head_of
from ..every import EVERY
from ..storage.connection import Connection
from ..storage.criteria import NOT_DELETED


async def destroy_keys(
    connection: Connection, tenant: str, whole: object, metadata: Mapping[str, Any] | None
) -> None:
    """Destroy the keys of what was erased, where nothing of it is left or held."""
    keyring = connection.keyring
    if keyring is None:
        return
    if whole is EVERY:
        await keyring.destroy_all(tenant)
    # Of a subject's sessions some others may be left where more than the subject was named.
    elif metadata and keyring.subject is not None and [*metadata] == [keyring.subject]:
        value: object = metadata[keyring.subject]
        # Of any other type none has a key.
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            return
        subject = subject_in(metadata, keyring.subject)
        key_id = await keyring.key_id_of_subject(tenant, subject) if subject else None
        if key_id is not None and not await _seals_others(connection, tenant, key_id):
            await keyring.destroy(tenant, subject)


async def _seals_others(connection: Connection, tenant: str, key_id: ObjectId) -> bool:
    """Whether a session is sealed with a key still: one that was given to somebody else, say."""
    head = head_of(key_id)
    # MongoDB compares binary values by their lengths first, so no range says how one begins.
    begins = {
        "$bitsAllSet": Binary(head),
        "$bitsAllClear": Binary(bytes(byte ^ 0xFF for byte in head)),
    }
    sealed = {"tenant": tenant, "sealed": begins}
    return await connection.summaries.find_one(sealed, NOT_DELETED).exists()
