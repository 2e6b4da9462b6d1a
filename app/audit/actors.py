"""Who answers for what a store does."""

from __future__ import annotations

from typing import cast

from ..errors import InvalidActorError
from ..text import shown

_LONGEST_BYTES = 256


def checked_actor(audit: object, actor: object) -> str | None:
    """Who is recorded, or ``None`` where nobody is.

    Raises:
        InvalidActorError: a name is missing, is none, or is given without an audit.
    """
    if not isinstance(audit, bool):
        raise InvalidActorError(f"audit must be True or False, not {shown(audit)}.")
    if not audit:
        if actor is not None:
            raise InvalidActorError(
                "actor says who is recorded, and nothing is recorded without audit=True. Pass "
                "both, or neither."
            )
        return None
    return checked_name_of_actor(actor)


def checked_name_of_actor(actor: object) -> str:
    """A name that can be recorded.

    Raises:
        InvalidActorError: it is none.
    """
    name = str.__str__(actor) if isinstance(actor, str) else ""
    is_text = bool(name.strip()) and "\0" not in name
    if not is_text or len(_encoded(name)) > _LONGEST_BYTES or name != recorded_text(name):
        raise InvalidActorError(
            f"actor must be a text of 1 to {_LONGEST_BYTES} bytes that says who does it, not "
            f"{shown(cast('object', actor))}. Pass actor=user.email, or the name of the service."
        )
    return name


def recorded_text(text: str) -> str:
    """A text as a document can hold it: half an emoji shows as what it is."""
    return _encoded(text).decode()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
