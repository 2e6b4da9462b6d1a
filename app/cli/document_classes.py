"""Document classes of a team's own, named on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InvalidModelError
from .python_objects import object_named

if TYPE_CHECKING:
    from ..storage.connection import StoreModels


@dataclass(frozen=True, slots=True)
class DocumentClasses:
    """The names of the classes for entries and summaries, as ``module:Class``; ``None`` is ours."""

    entries: str | None
    summaries: str | None

    def load(self) -> StoreModels:
        """Import the classes.

        Raises:
            InvalidModelError: there is no such class, or it cannot hold what the store writes.
        """
        from ...models import SessionSummary, TranscriptEntry
        from ..storage.connection import StoreModels

        return StoreModels(
            _imported(self.entries, TranscriptEntry), _imported(self.summaries, SessionSummary)
        )


def _imported(name: str | None, default: type) -> type:
    if name is None:
        return default
    try:
        return object_named(name)
    # It is code of others.
    except Exception as error:
        raise InvalidModelError(
            f"There is no Document class {name!r} to import ({type(error).__name__}: {error}). "
            "Name it module:Class, such as acme.models:AcmeEntry, and run the command where Python "
            "finds the module."
        ) from None
