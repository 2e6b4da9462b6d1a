"""Fields of documents as type checkers see them: a value on a document, a path on its class.

On a Document class Beanie gives each field's name the path that queries are made of, which no plain
annotation says: to a checker ``SessionSummary.expires_at > now`` would compare a date that may be
``None``. At run time ``Mapped[X]`` is ``X``, and :func:`mapped` is Pydantic's ``Field``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Generic, TypeVar, overload

    from beanie.odm.enums import SortDirection
    from beanie.odm.fields import ExpressionField
    from pydantic import BaseModel

    T = TypeVar("T")
    M = TypeVar("M", bound=BaseModel)
    Query = Mapping[str, Any]

    class FieldPath(ExpressionField, Generic[T]):
        """The path of a field in documents: to compare, to sort by, to change."""

        __hash__ = ExpressionField.__hash__

        # A comparison is a condition of a query, no bool as that of texts.
        def __eq__(self, other: object) -> Query: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        def __ne__(self, other: object) -> Query: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        def __gt__(self, other: T) -> Query: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        def __ge__(self, other: T) -> Query: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        def __lt__(self, other: T) -> Query: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        def __le__(self, other: T) -> Query: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        def __pos__(self) -> tuple[str, SortDirection]: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        def __neg__(self) -> tuple[str, SortDirection]: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        def __getattr__(self, name: str) -> FieldPath[Any]: ...
        def __getitem__(self, name: str) -> FieldPath[Any]: ...

    class Mapped(Generic[T]):
        """The type of a field: on a document its value, on the class its path in queries.

        The path of a model, or of a list of models, has the paths of that model's fields.
        """

        @overload
        def __get__(self: Mapped[M], instance: None, owner: type) -> type[M]: ...
        @overload
        def __get__(self: Mapped[list[M]], instance: None, owner: type) -> type[M]: ...
        @overload
        def __get__(self, instance: None, owner: type) -> FieldPath[T]: ...
        @overload
        def __get__(self, instance: object, owner: type) -> T: ...
        def __get__(self, instance: object, owner: type) -> object: ...
        def __set__(self, instance: object, value: T) -> None: ...

    def mapped(
        default: object = None,
        *,
        default_factory: Callable[[], object] | None = None,
        description: str | None = None,
    ) -> Any:
        """Pydantic's ``Field`` for what is ``Mapped``; the default is of the type of its values."""

else:

    class Mapped:
        """The type of a field, which is all that Pydantic and Beanie see of it."""

        def __class_getitem__(cls, value: Any) -> Any:
            return value

    mapped = Field
