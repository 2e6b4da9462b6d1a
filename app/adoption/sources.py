"""What other session-store adapters left in MongoDB, and under which names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from ..errors import AdoptionError
from ..text import shown


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
