"""What a team's subclass would have run when a document is made, of which the store makes none.

What is stored of an entry is put together as bytes, and a summary is updated field by field, so
neither Beanie's event hooks nor what pydantic runs for a new object ever see it.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any, cast
from weakref import WeakSet

from beanie import Document
from beanie.odm.actions import EventTypes

logger = logging.getLogger("beanie_session_store.models")

_looked_at: WeakSet[type[Document]] = WeakSet()

_OF_A_DOCUMENT = (
    EventTypes.SAVE,
    EventTypes.REPLACE,
    EventTypes.SAVE_CHANGES,
    EventTypes.UPDATE,
    EventTypes.VALIDATE_ON_SAVE,
)
"""The events that come when a team writes its own fields through a document."""


def warn_of_hooks(model: type[Document]) -> None:
    """Log, once for each class, which of its hooks the store's own writes do not call."""
    if not isinstance(model, type) or model in _looked_at:  # pyright: ignore[reportUnnecessaryIsInstance]
        return
    _looked_at.add(model)
    hooks = [*_event_hooks(model), *_of_pydantic(model)]
    if hooks:
        through_documents = ", ".join(event.value for event in _OF_A_DOCUMENT)
        logger.warning(
            "The store makes no documents of what it writes, so it calls no hook of %s: %s. "
            "Writing your own fields through a document calls the hooks of %s; INSERT and DELETE "
            "never happen. To act on what was appended, give the store on_committed=...; for a "
            "value that each new document gets, declare a field with default or default_factory.",
            model.__name__,
            "; ".join(hooks),
            through_documents,
        )


def _event_hooks(model: type[Document]) -> list[str]:
    """As Beanie finds them."""
    found: list[str] = []
    for name in dir(model):
        hook: Any = None if name.startswith("__") else getattr(model, name, None)
        if inspect.isfunction(hook) and hasattr(hook, "has_action"):
            described = cast("Any", hook)
            events = ", ".join(event.value for event in described.event_types)
            found.append(f"{name} ({described.action_direction.value} {events})")
    return found


def _of_pydantic(model: type[Document]) -> list[str]:
    of_beanie = Document.__pydantic_decorators__.model_validators
    own = [name for name in model.__pydantic_decorators__.model_validators if name not in of_beanie]
    found = [f"{name} (model_validator)" for name in own]
    # pydantic gives a class with private attributes one of its own.
    if model.model_post_init.__name__ != "init_private_attributes":
        found.append("model_post_init")
    return found
