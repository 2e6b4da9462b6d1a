"""Beanie's own queries, where a store is bound and by its rules.

``SessionSummary.find`` goes to the one collection that ``init_beanie`` gave to the class, by the
client's own options. ``documents.summaries.find`` is the same query, an object of a subclass of
Beanie's, on the collection of one store: in whatever database, with its codec and concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NoReturn, TypeVar, cast, overload

from beanie import Document
from beanie.odm.queries.delete import DeleteMany, DeleteOne
from beanie.odm.queries.find import FindMany, FindOne
from beanie.odm.queries.update import UpdateMany, UpdateOne
from beanie.odm.settings.document import DocumentSettings
from bson import Regex
from pydantic import BaseModel, ConfigDict
from pymongo.results import DeleteResult, UpdateResult
from typing_extensions import Self

from .driver import ClientSession, Collection, Record, with_confirmed_reads

Criteria = Mapping[str, Any]
"""A condition: one of Beanie's operators, a comparison of a field of a class, or a plain dict."""

Order = Sequence[tuple[str, Any]]

D = TypeVar("D", bound=Document)
R = TypeVar("R", bound=BaseModel)
T = TypeVar("T", bound=BaseModel)

# Nothing of a document class but its collection is asked for: no cache, no encoders, no links.
_SETTINGS = DocumentSettings()


class Row(BaseModel):
    """Some fields of a document: as ``rows=`` of a query they are all that is read of it.

    A stored value may be anybody's. So a field either takes whatever is there (``Any``), or has a
    type that reads what does not fit as a default (:mod:`...models.views.lenient`).
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    Settings: ClassVar[type[Any]]

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if "Settings" not in vars(cls):
            fields = {field.alias or name: 1 for name, field in cls.model_fields.items()}
            # MongoDB adds it unasked, and then has to look at documents beside an index.
            projection = {"_id": 0, **fields}
            # Where Beanie looks for it.
            cls.Settings = type("Settings", (), {"projection": projection})

    def as_read(self, *names: str) -> dict[str, Any]:
        """A criterion for documents that still have these fields as they were read."""
        fields = type(self).model_fields
        return {fields[name].alias or name: exactly(getattr(self, name)) for name in names}


# What looks like an operator, or is a pattern, would else be one.
_QUERIES: tuple[type[Any], ...] = (Mapping, Regex)


def exactly(value: object) -> object:
    """A criterion for a field that has this value, whatever it is."""
    return {"$eq": value} if isinstance(value, _QUERIES) else value


class _Whole(BaseModel):
    """Stands for all fields, also those that are not in the class."""

    model_config = ConfigDict(extra="allow")


def joined(criteria: Iterable[Criteria]) -> Record:
    """All criteria in one filter and in their order, so that it begins with the shard key.

    Beanie would nest them in an ``$and``, and copy every value through its encoder; here values
    are what BSON takes as it is.
    """
    query: Record = {}
    clashing: list[Record] = []
    for part in criteria:
        if query.keys().isdisjoint(part):
            query.update(part)
        else:
            clashing.append(dict(part))
    if clashing:
        query["$and"] = [*query.get("$and", ()), *clashing]
    return query


class _WholeUpdate:
    """What an update changes, from all of its operators."""

    update_expressions: list[Any]

    @property
    def update_query(self) -> Record:
        update: Record = {}
        for expression in cast("list[Mapping[str, Any]]", self.update_expressions):
            if not update.keys().isdisjoint(expression):
                # Beanie lets the second one replace the first.
                raise ValueError(f"an operator comes twice in one update: {', '.join(expression)}")
            # Not every server takes an operator that changes nothing.
            update.update({name: change for name, change in expression.items() if change})
        return update


class ChangeOne(_WholeUpdate, UpdateOne):
    """Beanie's update of one document."""

    def __await__(self) -> Generator[Any, None, UpdateResult]:
        return cast("Generator[Any, None, UpdateResult]", super().__await__())


class ChangeMany(_WholeUpdate, UpdateMany):
    """Beanie's update of all that is found."""

    def __await__(self) -> Generator[Any, None, UpdateResult]:
        return cast("Generator[Any, None, UpdateResult]", super().__await__())


class RemoveOne(DeleteOne):
    """Beanie's delete of one document."""

    def __await__(self) -> Generator[Any, None, DeleteResult]:
        return cast("Generator[Any, None, DeleteResult]", super().__await__())


class RemoveMany(DeleteMany):
    """Beanie's delete of all that is found."""

    def __await__(self) -> Generator[Any, None, DeleteResult]:
        return cast("Generator[Any, None, DeleteResult]", super().__await__())


class One(FindOne[T]):
    """Beanie's query for one document: to await, ``update`` or ``delete``."""

    UpdateQueryType = ChangeOne
    DeleteQueryType = RemoveOne

    def __init__(self, documents: Documents[Any], read: Callable[[Record], T]) -> None:
        super().__init__(cast("Any", documents))
        self._collection = documents.collection
        self._read = read

    def get_filter_query(self) -> Record:
        """All criteria, as :func:`joined` has them."""
        return joined(self.find_expressions)

    def __await__(self) -> Generator[Any, None, T | None]:
        found = cast("Any", (yield from self._find_one().__await__()))
        return None if found is None else self._read(found)

    async def exists(self, session: ClientSession | None = None) -> bool:
        """Whether there is one, by a ``find`` that stops at the first: Beanie 1 would count all."""
        session = session or self.session
        found = await self._collection.find_one(
            self.get_filter_query(), {"_id": 1}, session=session, **self.pymongo_kwargs
        )
        return found is not None

    def update(
        self, *args: Mapping[str, Any], session: ClientSession | None = None, **options: Any
    ) -> ChangeOne:
        """Change it; with ``upsert=True`` the server makes it in the same step if there is none.

        Raises:
            ValueError: when awaited, an operator comes twice.
        """
        # Beanie passes on no options of the query.
        options = {**self.pymongo_kwargs, **options}
        return cast("ChangeOne", super().update(*args, session=session, **options))

    def upsert(self, *_: Any, **__: Any) -> NoReturn:
        """Refuses: Beanie's is an update and then an insert, between which others come."""
        _refuse_upsert()

    def delete(self, session: ClientSession | None = None, **options: Any) -> RemoveOne:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Remove it."""
        options = {**self.pymongo_kwargs, **options}
        # Nor does it pass on the session of the query to a delete.
        removal = cast("RemoveOne", super().delete(session=session, **options))
        return removal.set_session(self.session)


class Many(FindMany[T]):
    """Beanie's query for documents: ``to_list``, ``async for``, ``aggregate``, ``update``..."""

    UpdateQueryType = ChangeMany
    DeleteQueryType = RemoveMany

    def __init__(self, documents: Documents[Any], read: Callable[[Record], T]) -> None:
        super().__init__(cast("Any", documents))
        self._read = read

    def get_filter_query(self) -> Record:
        """All criteria, as :func:`joined` has them."""
        return joined(self.find_expressions)

    def get_projection_model(self) -> Any:
        """None, so that Beanie leaves what is found as it is, to be read here."""
        return None

    async def to_list(self, length: int | None = None) -> list[T]:
        """All of them, or the first ``length``."""
        read = self._read
        found = cast("list[Any]", await super().to_list(length))
        return [read(each) for each in found]

    async def __anext__(self) -> T:
        return self._read(cast("Any", await super().__anext__()))

    def build_aggregation_pipeline(self, *extra_stages: Record) -> list[Record]:
        """The filter in one stage; Beanie takes an ``$and`` apart, and the shard key from it."""
        self._require_all("aggregate")
        query = self.get_filter_query()
        return [*([{"$match": query}] if query else ()), *extra_stages]

    def update(
        self, *args: Mapping[str, Any], session: ClientSession | None = None, **options: Any
    ) -> ChangeMany:
        """Change all of them.

        Raises:
            ValueError: the query has a sort, skip or limit; when awaited, an operator comes twice.
        """
        self._require_all("update")
        options = {**self.pymongo_kwargs, **options}
        return cast("ChangeMany", super().update(*args, session=session, **options))

    def upsert(self, *_: Any, **__: Any) -> NoReturn:
        """Refuses: Beanie's is an update and then an insert, between which others come."""
        _refuse_upsert()

    def delete(self, session: ClientSession | None = None, **options: Any) -> RemoveMany:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Remove all of them.

        Raises:
            ValueError: the query has a sort, skip or limit.
        """
        self._require_all("delete")
        options = {**self.pymongo_kwargs, **options}
        removal = cast("RemoveMany", super().delete(session=session, **options))
        return removal.set_session(self.session)

    def _require_all(self, verb: str) -> None:
        # Beanie, and MongoDB, would go over all that the filter finds.
        if self.limit_number or self.skip_number or self.sort_expressions:
            raise ValueError(f"cannot {verb} a part of what is found: drop sort, skip and limit")


def _refuse_upsert() -> NoReturn:
    raise NotImplementedError("use update(..., upsert=True), which is one step")


class Documents(Generic[D]):
    """The documents of one class in one collection, to be queried as Beanie queries its classes."""

    __slots__ = ("_read", "collection", "model")

    def __init__(
        self, model: type[D], collection: Collection, read: Callable[[Record], D] | None = None
    ) -> None:
        """``read`` makes a document of what is stored, where the class itself is too strict."""
        self.model = model
        self.collection = collection
        self._read = read or model.model_validate

    @overload
    def find(
        self,
        *criteria: Criteria,
        rows: type[R],
        sort: Order | None = None,
        limit: int | None = None,
        session: ClientSession | None = None,
        **options: Any,
    ) -> Many[R]: ...

    @overload
    def find(
        self,
        *criteria: Criteria,
        rows: None = None,
        sort: Order | None = None,
        limit: int | None = None,
        session: ClientSession | None = None,
        **options: Any,
    ) -> Many[D]: ...

    def find(
        self,
        *criteria: Criteria,
        rows: type[Any] | None = None,
        sort: Order | None = None,
        limit: int | None = None,
        session: ClientSession | None = None,
        **options: Any,
    ) -> Many[Any]:
        """The documents that meet all criteria.

        Args:
            criteria: conditions, that for the shard key first.
            rows: which of their fields are read; without it, whole documents, which Beanie makes
                only of a class that has a collection in this process, whichever one.
            sort: fields with 1 or -1, or ``{"$meta": ...}``.
            limit: how many at most.
            session: a client session, such as that of a transaction or a snapshot.
            options: further ones of the driver: ``hint``, ``max_time_ms``, ``comment``...
        """
        query: Many[Any] = Many(self, self._reader(rows))
        query.find_many(
            *criteria,
            projection_model=rows or _Whole,
            sort=cast("Any", sort),
            limit=limit,
            session=session,
            **options,
        )
        return query

    @overload
    def find_one(
        self,
        *criteria: Criteria,
        rows: type[R],
        session: ClientSession | None = None,
        **options: Any,
    ) -> One[R]: ...

    @overload
    def find_one(
        self,
        *criteria: Criteria,
        rows: None = None,
        session: ClientSession | None = None,
        **options: Any,
    ) -> One[D]: ...

    def find_one(
        self,
        *criteria: Criteria,
        rows: type[Any] | None = None,
        session: ClientSession | None = None,
        **options: Any,
    ) -> One[Any]:
        """One document that meets all criteria, or ``None``; arguments are those of :meth:`find`.

        ``sort`` says which one; it is the driver's here, so pass a list.
        """
        query: One[Any] = One(self, self._reader(rows))
        query.find_one(*criteria, projection_model=rows or _Whole, session=session, **options)
        return query

    @property
    def name(self) -> str:
        """The name of the collection."""
        return self.collection.name

    def on(self, collection: Collection) -> Self:
        """The same documents, read by other rules."""
        return type(self)(self.model, collection, self._read)

    @property
    def confirmed(self) -> Self:
        """The same documents, without what an election can still take back."""
        return self.on(with_confirmed_reads(self.collection))

    def _reader(self, rows: type[Any] | None) -> Callable[[Record], Any]:
        return self._read if rows is None else rows.model_validate

    # What Beanie's queries ask a Document class for, whichever driver they are for.

    def get_pymongo_collection(self) -> Collection:
        """The store's collection, in place of that of ``init_beanie``."""
        return self.collection

    get_motor_collection = get_pymongo_collection

    def get_settings(self) -> DocumentSettings:
        """Beanie's defaults."""
        return _SETTINGS

    def get_bson_encoders(self) -> dict[Any, Any]:
        """None."""
        return {}

    def get_link_fields(self) -> None:
        """None."""
        return None
