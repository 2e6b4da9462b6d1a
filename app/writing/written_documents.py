"""The documents that an append stores: those of its entries, and the summary of a new session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..storage.bson_elements import bson_document, bson_elements, int64_bytes
from ..storage.codec import EncodedEntry, EncodedValue
from ..storage.connection import Connection
from ..storage.seals import sealed_elements
from ..storage.values import value_fields
from ..transcript_key import TranscriptKey
from .count_marks import mark_elements
from .summary_update import SummaryUpdate

# A BSON element without its value, which is an Int64.
_SEQ_HEAD = b"\x12seq\0"


def summary_document(
    connection: Connection, key: TranscriptKey, update: SummaryUpdate, metadata: EncodedValue | None
) -> dict[str, Any]:
    """The summary of a session that an update creates."""
    update.require_sealed(connection)
    return {
        "_id": update.next.id,
        **key.of_session,
        **update.changes,
        **value_fields(metadata, "metadata", "packed_metadata"),
        "created_at": connection.server.now(),
        **connection.summary_defaults(),
    }


def entry_documents(
    connection: Connection,
    key: TranscriptKey,
    batch: Sequence[EncodedEntry],
    update: SummaryUpdate,
) -> list[bytes]:
    """The entries' documents, put together from what is encoded once for all of them.

    Here alone they are made, and so here alone they are sealed.
    """
    update.require_sealed(connection)
    cipher = None if update.cipher is None else update.cipher.of(key.subpath)
    date = update.next.dated.entry_date
    common: dict[str, Any] = {"created_at": update.changes["active_at"]}
    if date is not None:
        common["expires_at"] = date
    head = bson_elements(key.of_transcript) + _SEQ_HEAD
    tail = bson_elements(common)
    # A team's defaults may differ from entry to entry.
    has_defaults = connection.entry_defaults is not dict
    marks = update.marks
    documents: list[bytes] = []
    own_id = bson_elements({"_id": update.tries[-1]})
    for seq, encoded in enumerate(batch, update.first_seq):
        if has_defaults:
            tail = bson_elements({**common, **connection.entry_defaults()})
        mark = mark_elements(marks[seq]) if seq in marks else b""
        said = encoded.elements if cipher is None else sealed_elements(encoded, cipher, seq)
        parts = (own_id, head, int64_bytes(seq), said, mark, tail)
        documents.append(bson_document(sum(map(len, parts)), *parts))
        own_id = b""
    return documents
