"""The keys of what was erased, destroyed at last: then no backup holds anything to read either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..encryption.encryption import subject_in
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
        if subject and not await _is_shared(connection, tenant, keyring.subject, value):
            await keyring.destroy(tenant, subject)


async def _is_shared(connection: Connection, tenant: str, field: str, value: str | int) -> bool:
    """Whether a number and its digits are two subjects, who have one key."""
    other: str | int | None = str(value)
    if isinstance(value, str):
        number = int(value) if len(value) < _DIGITS and value.isdecimal() else None
        other = number if str(number) == value else None
    if other is None:
        return False
    others = {"tenant": tenant, f"metadata.{field}": other}
    return await connection.summaries.find_one(others, NOT_DELETED).exists()


_DIGITS = 19
"""Of fewer each number is one that the server has."""
