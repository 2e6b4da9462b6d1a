"""The base of the typed views of transcript entries."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic import model_serializer as serializer
from pydantic.alias_generators import to_camel
from typing_extensions import Self

from .lenient import Maybe, Part, Text, When

P = TypeVar("P", bound=Part)


class EntryView(BaseModel):
    """A transcript entry to read: attributes for what is known, ``raw`` for all of it.

    Reading never fails: a field that is missing, or of another type than expected, has its
    default, and :attr:`odd_fields` names those of the second sort. A view is frozen, equals
    another view of an equal entry, and ``model_dump()`` gives the entry as it was written.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", defer_build=True, alias_generator=to_camel
    )

    _parts: ClassVar[tuple[str, ...]] = ()
    """Parts that are large, and read when they are first asked for."""

    type: Any = None
    uuid: Maybe[Text] = None
    timestamp: When = None
    session_id: Maybe[Text] = None

    @cached_property
    def raw(self) -> dict[str, Any]:
        """The entry as the agent wrote it. It is not copied: do not change it."""
        return {}

    @property
    def odd_fields(self) -> tuple[str, ...]:
        """The fields, as the agent spells them, that hold something else than expected."""
        fields = [(f.alias or n, n, f.default) for n, f in type(self).model_fields.items()]
        parts = [(name, name, None) for name in self._parts]
        return tuple(
            spelling
            for spelling, name, default in (*fields, *parts)
            if self.raw.get(spelling) is not None
            and getattr(self, name) == default != self.raw[spelling]
        )

    def _part(self, name: str, shape: type[P]) -> P | None:
        written = self.raw.get(name)
        try:
            return shape.model_validate(written) if isinstance(written, dict) else None
        except ValidationError:
            return None

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.uuid)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_raw(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        view = handler(value)
        if view is not value:
            # Where cached_property looks first; a private attribute takes ten times as long.
            object.__setattr__(view, "raw", value)
        return view

    @serializer(mode="plain")
    def _as_written(self) -> dict[str, Any]:
        return self.raw


class UnknownEntry(EntryView):
    """An entry of a kind that is not known here; ``raw`` has what it says."""

    parent_uuid: Maybe[Text] = None

    @property
    def reason(self) -> str:
        """Why it has no view of its own."""
        kind = self.raw.get("type")
        if isinstance(kind, str):
            return f"this release knows no entries of type {kind!r}"
        return f"its type is {kind!r:.60}, not a text"
