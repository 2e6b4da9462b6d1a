"""What a summary says of the contents of its session, and how that is stored: plain, or sealed.

Whatever writes texts, totals or the fold makes their fields here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...models.counting.tally import Tally
from ...models.totals import TEXTS
from ..encryption.seal import SessionCipher
from ..storage.codec import encode_object
from ..storage.seals import sealed_fold, sealed_totals
from ..storage.state import SessionState
from ..storage.values import value_fields


def totals_fields(
    totals: Tally, next_seq: int, known: SessionState | None, cipher: SessionCipher | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields for totals and texts, and the names of those that go; ``known`` is what was."""
    document = totals.document(next_seq)
    texts = totals.texts
    if cipher is not None:
        gone = TEXTS if known is not None and known.has_plain else ()
        return sealed_totals(document, texts, next_seq, cipher), gone
    before: Mapping[str, str | None] = {} if known is None else known.texts
    told = {name: text for name, text in texts.items() if text and text != before.get(name)}
    untold = tuple(name for name, text in texts.items() if not text and before.get(name))
    return {**told, "totals": document}, untold


def fold_fields(
    data: Mapping[str, Any], cipher: SessionCipher | None
) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    """The one field for a fold, and the chunks of one that no summary can hold."""
    value = encode_object(dict(data))
    if cipher is not None:
        value = sealed_fold(value, cipher)
    return value_fields(value, "data", "packed_data"), value.chunks
