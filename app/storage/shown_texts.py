"""The texts of sealed summaries, as far as they can be shown in a list."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from bson import ObjectId

from ...models import SessionSummary
from ..encryption.seal import key_id_of
from ..errors import DamagedSealError, KeyDestroyedError
from ..transcript_key import TranscriptKey
from .connection import Connection
from .seals import is_sealed, opened_state

logger = logging.getLogger("beanie_session_store.storage")

S = TypeVar("S", bound=SessionSummary)


async def shown_texts(
    connection: Connection, key: TranscriptKey, row: Mapping[str, Any]
) -> dict[str, str | None]:
    """The texts of a summary whose texts are sealed; none where nobody can read them.

    A store without keys lists sessions without their texts, and one that is damaged, or whose key
    was destroyed, must not cost the others.

    Raises:
        WrongKeyError, KeyServiceError: the keys at hand are not its own, or cannot be asked for.
    """
    if connection.keyring is None or not is_sealed(row.get("sealed")):
        return {}
    try:
        texts, _ = await opened_state(connection, key, row)
    except KeyDestroyedError:
        return {}
    except (DamagedSealError, ValueError) as error:
        logger.warning("%s", error)
        return {}
    return texts


async def show_texts(connection: Connection, summaries: Sequence[S]) -> None:
    """Put into summaries, as they were read, the texts that are sealed in them.

    Raises:
        WrongKeyError, KeyServiceError: as :func:`shown_texts`.
    """
    keyring = connection.keyring
    if keyring is None:
        return
    sealed = [each for each in summaries if is_sealed(each.sealed)]
    key_ids: list[ObjectId] = []
    for each in sealed:
        # One that is cut is told of below.
        with suppress(DamagedSealError):
            key_ids.append(key_id_of(each.sealed or b"", "a summary"))
    await keyring.fetch(key_ids)
    for each in sealed:
        key = TranscriptKey(each.tenant, each.project_key, each.session_id)
        row = {"sealed": each.sealed, "totals": {"next_seq": each.totals.next_seq}}
        # Past what keeps a caller from writing to fields that are the store's.
        vars(each).update(await shown_texts(connection, key, row))
