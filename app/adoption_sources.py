"""What other session-store adapters left in MongoDB: where it is, and under which names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

from .errors import AdoptionError
from .shown import shown

# The help of the command line names what is here, and is not to wait for a driver.
if TYPE_CHECKING:
    from bson.raw_bson import RawBSONDocument

    from .driver import Collection, Database

_SAMPLE = 20
_OUR_FIELDS = frozenset({"tenant", "seq"})


@dataclass(frozen=True, slots=True)
class AdoptionSource:
    """Names of the collections and fields of a source; a field may be a path such as ``key.sid``.

    Raises:
        AdoptionError: a field is no usable path.
    """

    name: str
    collection: str | None
    """One document per transcript entry; ``None`` looks for the collection that has the fields."""
    project_key: str = "project_key"
    session_id: str = "session_id"
    subpath: str = "subpath"
    """Absent, null or ``""`` in the main transcript."""
    order: str = "_id"
    """What a transcript is sorted by: an ObjectId or a number."""
    entry: str = "entry"
    """The entry, as a document or as JSON text."""
    mtime: str = "mtime"
    """When the entry was stored, epoch milliseconds or a date; it may be absent."""
    summaries: str | None = None
    """A collection of one document per session, whose mtime is the session's; may be absent."""

    def __post_init__(self) -> None:
        for name in FIELDS:
            path = getattr(self, name)
            if not path or "$" in path or "\0" in path or "" in path.split("."):
                raise AdoptionError(f"{shown(path)} is no path of a field for {name}.")

    @property
    def required(self) -> tuple[str, ...]:
        """The fields without which a document cannot be adopted."""
        return (self.project_key, self.session_id, self.order, self.entry)

    def __str__(self) -> str:
        paths = ", ".join(f"{name}={getattr(self, name)}" for name in FIELDS)
        sidecar = f", session times from {self.summaries}" if self.summaries else ""
        return f"{self.name}: collection {self.collection} ({paths}{sidecar})"


FIELDS = ("project_key", "session_id", "subpath", "order", "entry", "mtime")
"""The attributes of an :class:`AdoptionSource` that are paths of fields."""

MONGODB_PACKAGE = AdoptionSource(
    "mongodb-package",
    "claude_session_entries",
    order="position",
    summaries="claude_session_summaries",
)
PULL_REQUEST_1014 = AdoptionSource("pull-request-1014", None)
PRESETS: Mapping[str, AdoptionSource] = {
    source.name: source for source in (MONGODB_PACKAGE, PULL_REQUEST_1014)
}


def preset(name: str, **changes: str | None) -> AdoptionSource:
    """A preset with other names: ``preset("mongodb-package", entry="payload")``.

    Raises:
        AdoptionError: there is no such preset or field.
    """
    if name not in PRESETS:
        raise AdoptionError(f"There is no source {name!r}; known are {', '.join(PRESETS)}.")
    unknown = changes.keys() - {field.name for field in fields(AdoptionSource)}
    if unknown:
        raise AdoptionError(
            f"A source has no {', '.join(sorted(unknown))}; it has {', '.join(FIELDS)}, "
            "collection and summaries."
        )
    return replace(PRESETS[name], **cast("dict[str, Any]", changes))


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
    from bson.codec_options import CodecOptions, DatetimeConversion
    from bson.raw_bson import RawBSONDocument

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
    from bson import ObjectId

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


__all__ = [
    "FIELDS",
    "MONGODB_PACKAGE",
    "PRESETS",
    "PULL_REQUEST_1014",
    "AdoptionError",
    "AdoptionSource",
    "find_source",
    "preset",
    "raw_collection",
    "value_at",
]
