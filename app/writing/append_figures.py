"""What appends come to, for those who look at the store from outside."""

from __future__ import annotations

from collections.abc import Sequence

from ..instruments.operations import current_operation
from ..storage.codec import EncodedEntry


def count_stored(batch: Sequence[EncodedEntry]) -> None:
    """Count the entries that were stored by one append."""
    operation = current_operation()
    # Their sizes are not to be added up for nobody.
    if not operation.is_on:
        return
    size = sum(entry.size for entry in batch)
    operation.count("append.entries", len(batch))
    operation.count("append.bytes", size)
    operation.count("append.packed_entries", sum(entry.is_packed for entry in batch))
    operation.note(stored_entries=len(batch), bytes=size)
