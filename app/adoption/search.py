"""Looking into a database for what another adapter left there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from bson import ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument

from ..database.driver import Collection, Database
from ..errors import AdoptionError
from .sources import MONGODB_PACKAGE, PRESETS, AdoptionSource

_SAMPLE = 20
_OUR_FIELDS = frozenset({"tenant", "seq"})


async def find_source(
    database: Database, source: AdoptionSource | Sequence[AdoptionSource] | None = None
) -> AdoptionSource:
    """The source that a database holds, its collection named and its fields seen in a document.

    Args:
        database: where to look; it is only read.
        source: what to look for, or several of which one must fit; ``None`` is the presets.

    Raises:
        AdoptionError: nothing fits, or more than one thing does. It lists what is there.
    """
    if source is None:
        candidates: Sequence[AdoptionSource] = tuple(PRESETS.values())
    else:
        candidates = (source,) if isinstance(source, AdoptionSource) else source
    samples: dict[str, list[RawBSONDocument]] = {}
    for name in sorted(await database.list_collection_names()):
        if not name.startswith("system."):
            cursor = raw_collection(database, name).find(limit=_SAMPLE)
            samples[name] = cast("list[RawBSONDocument]", await cursor.to_list())
    found = [
        replace(candidate, collection=name)
        for candidate in candidates
        for name, documents in samples.items()
        if candidate.collection in (name, None)
        and any(_fits(document, candidate) for document in documents)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise AdoptionError(
            f"Database {database.name} holds more than one source: "
            f"{'; '.join(str(one) for one in found)}. Say which one to adopt from."
        )
    seen = "; ".join(f"{name} ({_described(found)})" for name, found in samples.items())
    raise AdoptionError(
        f"Database {database.name} holds no documents with the fields of "
        f"{' or of '.join(str(candidate) for candidate in candidates)}. It holds: "
        f"{seen or 'nothing'}. If an adapter wrote one of these, name its collection and fields."
    )


def raw_collection(database: Database, name: str) -> Collection:
    """A collection of the source, read without decoding."""
    # Undecoded, so that one damaged document does not take the rest of its batch with it.
    options: CodecOptions[Any] = CodecOptions(
        document_class=RawBSONDocument,
        tz_aware=True,
        datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    )
    return database.get_collection(name, codec_options=options)


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """The value of a field by its path, ``None`` where there is none."""
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = cast("Mapping[str, Any]", value).get(name)
    return value


def _fits(document: RawBSONDocument, source: AdoptionSource) -> bool:
    try:
        if document.keys() >= _OUR_FIELDS:
            return False
        if any(value_at(document, path) is None for path in source.required):
            return False
        if source.order != "_id":
            return True
        # Another adapter's documents have an _id too, but are not ordered by it.
        other_order = value_at(document, MONGODB_PACKAGE.order)
        return isinstance(document["_id"], ObjectId) and other_order is None
    except Exception:
        # Whatever decoding it raised, the document proves nothing.
        return False


def _described(documents: Sequence[RawBSONDocument]) -> str:
    for document in documents:
        try:
            return ", ".join(document.keys())
        except Exception:
            continue
    return "empty" if not documents else "unreadable"
