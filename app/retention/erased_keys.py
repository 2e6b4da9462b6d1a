"""The keys of what was erased, destroyed at last: then no backup holds anything to read either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..encryption.encryption import subject_in
from ..every import EVERY
from ..storage.connection import Connection


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
        subject = subject_in(metadata, keyring.subject)
        if subject:
            await keyring.destroy(tenant, subject)
