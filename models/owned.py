"""What of a stored document is the store's, so that no habit of Beanie's writes over it.

A document in memory is as old as when it was read, and ``save`` writes all of it: an old
``next_seq`` would stop every later append. So the store's own fields are read-only here, what
writes a whole document writes the team's fields alone, and what makes or removes documents names
the store's method that does it for the whole session.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from beanie import Document, WriteRules
from beanie.odm.actions import EventTypes, wrap_with_actions
from beanie.odm.queries.find import FindMany, FindOne
from beanie.odm.queries.update import UpdateMany, UpdateOne
from beanie.odm.utils.dump import get_dict
from beanie.odm.utils.self_validation import validate_self_before
from beanie.odm.utils.state import save_state_after

from ..app.errors import StoreOwnedError
from .hooks import warn_of_hooks

_BEANIES = frozenset({"id", "revision_id"})

_is_refreshed: ContextVar[bool] = ContextVar("is_refreshed", default=False)
"""Whether Beanie is putting into a document what it has just read of it."""


class _OwnedUpdate:
    """Beanie's update, of the team's fields alone, and of what may have any."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        owner: Any = self
        if owner.document_model._changeable:
            owner.find_query = {"$and": [owner.find_query, owner.document_model._changeable]}

    @property
    def update_query(self) -> Any:
        owner: Any = self
        query = cast("Any", super().update_query)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        _require_of_team(owner.document_model, query)
        return query


class _UpdateMany(_OwnedUpdate, UpdateMany):
    pass


class _UpdateOne(_OwnedUpdate, UpdateOne):
    pass


class _OwnedFind:
    """Beanie's query, which finds and updates, but neither makes nor removes."""

    document_model: Any

    def delete(self, *_: Any, **__: Any) -> NoReturn:
        _refuse(self.document_model, "deleted")

    delete_one = delete_many = delete

    def upsert(self, *_: Any, **__: Any) -> NoReturn:
        _refuse(self.document_model, "made")

    def replace_one(self, *_: Any, **__: Any) -> NoReturn:
        _refuse(self.document_model, "replaced")


class _FindMany(_OwnedFind, FindMany[Any]):
    UpdateQueryType = _UpdateMany


class _FindOne(_OwnedFind, FindOne[Any]):
    UpdateQueryType = _UpdateOne


class StoreOwned:
    """For the store's Document classes, before ``Document`` among their bases."""

    _find_many_query_class: ClassVar[type] = _FindMany
    _find_one_query_class: ClassVar[type] = _FindOne
    _team_fields: ClassVar[frozenset[str]]
    """The fields of the class that are a team's; so are those that a subclass adds."""
    _changeable: ClassVar[Mapping[str, Any]] = {}
    """A query for those documents of the collection that a team may change."""
    _way: ClassVar[str]
    """What makes, changes and removes such documents, in words."""

    # To type checkers they are Beanie's own.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            if name in owned_fields(type(self)) and not _is_refreshed.get():
                _refuse(type(self), f"changed: {name} is the store's own")
            super().__setattr__(name, value)

        @validate_self_before
        @wrap_with_actions(EventTypes.SAVE)
        @save_state_after
        async def save(
            self, session: Any = None, link_rule: WriteRules = WriteRules.DO_NOTHING, **_: Any
        ) -> Any:
            """Write the team's fields: metadata, and what a subclass adds. Nothing else is touched.

            Raises:
                StoreOwnedError: there is no such document any more; only the store makes one.
            """
            await _write(self, session, None, link_rule)
            return self

        @validate_self_before
        @wrap_with_actions(EventTypes.REPLACE)
        @save_state_after
        async def replace(
            self,
            ignore_revision: bool = False,
            session: Any = None,
            bulk_writer: Any = None,
            link_rule: WriteRules = WriteRules.DO_NOTHING,
            **_: Any,
        ) -> Any:
            """As :meth:`save`."""
            await _write(self, session, bulk_writer, link_rule)
            return self

        async def validate_self(self, *args: Any, **kwargs: Any) -> None:
            """As Beanie's."""
            with _refreshed():
                await super().validate_self(*args, **kwargs)  # type: ignore[misc]

        @classmethod
        async def custom_init(cls) -> None:
            """Called by ``init_beanie``: says what of the class the store will not call."""
            warn_of_hooks(cls)

        async def update(self, *args: Any, **kwargs: Any) -> Any:
            """As Beanie's, of the team's fields alone.

            Raises:
                StoreOwnedError: there is no such document any more.
            """
            try:
                with _refreshed():
                    return await super().update(*args, **kwargs)
            except AttributeError:
                # What Beanie makes of a document that is gone.
                model: Any = type(self)
                if await model.find_one({"_id": self.id, **model._changeable}) is not None:
                    raise
            _refuse(model, "changed, for it is gone")

        async def sync(self, *args: Any, **kwargs: Any) -> None:
            """As Beanie's."""
            with _refreshed():
                await super().sync(*args, **kwargs)

        async def insert(self, *_: Any, **__: Any) -> Any:
            """Refuses: only the store makes such documents."""
            _refuse(type(self), "made")

        create = insert

        async def delete(self, *_: Any, **__: Any) -> Any:
            """Refuses: only the store removes such documents, with all that belongs to them."""
            _refuse(type(self), "deleted")

        @classmethod
        async def insert_one(cls, *_: Any, **__: Any) -> Any:
            """Refuses: only the store makes such documents."""
            _refuse(cls, "made")

        @classmethod
        async def insert_many(cls, *_: Any, **__: Any) -> Any:
            """Refuses: only the store makes such documents."""
            _refuse(cls, "made")

        @classmethod
        async def replace_many(cls, *_: Any, **__: Any) -> Any:
            """Refuses: a document may be older than what is stored."""
            _refuse(cls, "replaced")

        @classmethod
        def delete_all(cls, *_: Any, **__: Any) -> Any:
            """Refuses: only the store removes such documents, with all that belongs to them."""
            _refuse(cls, "deleted")


async def _write(document: Any, session: Any, bulk_writer: Any, link_rule: WriteRules) -> None:
    model = cast("Any", type(document))
    if link_rule is WriteRules.WRITE:
        links: dict[str, Any] = model.get_link_fields() or {}
        for field in links.values():
            linked: object = getattr(document, field.field_name)
            for each in cast("list[object]", linked) if isinstance(linked, list) else [linked]:
                if isinstance(each, Document):
                    await each.save(session=session, link_rule=link_rule)
    names = {field.alias or name: name for name, field in model.model_fields.items()}
    teams = names.keys() - {
        key for key, name in names.items() if name in owned_fields(model) | _BEANIES
    }
    stored = cast("dict[str, Any]", get_dict(document, to_db=True))
    values = {key: value for key, value in stored.items() if key in teams}
    gone: dict[str, str] = {}
    if "metadata" in values:
        is_packed = document.packed_metadata is not None
        if values["metadata"] is None:
            del values["metadata"]
            if not is_packed:
                gone["metadata"] = ""
        elif is_packed:
            raise StoreOwnedError(
                "The metadata is stored packed, for BSON cannot hold it, and nothing was "
                "changed. Call store.set_metadata()."
            )
    if model.get_settings().keep_nulls is False:
        gone |= {key: "" for key, value in values.items() if value is None}
        values = {key: value for key, value in values.items() if value is not None}
    update = {name: part for name, part in (("$set", values), ("$unset", gone)) if part}
    if document.id is None:
        _refuse(model, "made")
    if not update:
        return
    found = model.find_one({"_id": document.id}, session=session)
    result = await found.update(update, bulk_writer=bulk_writer)
    # What goes in bulk is written later.
    if bulk_writer is None and result.matched_count != 1:
        _refuse(model, "made")


def owned_fields(model: type) -> frozenset[str]:
    """The fields of a Document class that only the store writes."""
    base: Any = next(each for each in model.__mro__ if "_team_fields" in each.__dict__)
    return frozenset(base.model_fields) - base._team_fields - _BEANIES


@contextmanager
def _refreshed() -> Generator[None]:
    token = _is_refreshed.set(True)
    try:
        yield
    finally:
        _is_refreshed.reset(token)


def _require_of_team(model: type, query: object) -> None:
    if not isinstance(query, Mapping):
        _refuse(model, "changed by a pipeline, which does not tell what it changes")
    owned = owned_fields(model) | {"_id"}
    for operator, change in cast("Mapping[str, Any]", query).items():
        for path, value in change.items():
            roots = {str(path).split(".")[0]}
            if operator == "$rename":
                roots.add(str(value).split(".")[0])
            for name in sorted(roots & owned):
                _refuse(model, f"changed: {name} is the store's own")


def _refuse(model: Any, what: str) -> NoReturn:
    raise StoreOwnedError(
        f"A {model.__name__} cannot be {what}, and nothing was written. {model._way}"
    )
