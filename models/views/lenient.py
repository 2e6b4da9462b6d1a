"""Field types that never refuse: what does not fit reads as a default.

The format belongs to the agent and changes weekly. A view must open what next week's agent
writes, so a field that is missing or of another type than expected is no error.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, PlainValidator, Strict
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from .moments import moment

T = TypeVar("T")


class Otherwise:
    """Marks a type whose validation gives a default instead of an error."""

    def __init__(self, default: Any) -> None:
        self._default = default

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        # Handled in pydantic's core: as fast as a plain field.
        return core_schema.with_default_schema(
            handler(source), default=self._default, on_error="default"
        )


Maybe = Annotated[T | None, Otherwise(None)]
"""A value, or ``None`` where it is missing or does not fit."""

Many = Annotated[list[T], Otherwise([])]
"""A list, empty where it is missing or does not fit."""

Json = Annotated[dict[str, Any], Otherwise({})]
"""A JSON object of no fixed shape, empty where it is missing or does not fit."""

Text = Annotated[str, Strict()]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Words = Annotated[Text, Otherwise("")]
"""A text, empty where it is missing or does not fit."""
Flag = Annotated[bool, Strict(), Otherwise(False)]
Count = Annotated[int, Strict(), Otherwise(0)]
Position = Annotated[int, Otherwise(1)]
"""A position as anybody's tool may write it back, as a float too; else the first one."""
When = Annotated[datetime | None, PlainValidator(moment)]
"""A moment in UTC, by the rule of :mod:`.moments`, or ``None``."""


class Part(BaseModel):
    """A part of an entry. Fields unknown to it are kept as attributes and in ``model_extra``."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)


class CamelPart(Part):
    """A part whose fields are written in camelCase: the agent's own, not the API's."""

    model_config = ConfigDict(alias_generator=to_camel)
