"""Pages that are not shown, and why."""

from __future__ import annotations

from http import HTTPStatus


class Refused(Exception):
    """A page that is not shown, and what is said instead."""

    def __init__(self, status: int, heading: str, words: str, *, again: int | None = None) -> None:
        super().__init__(heading)
        self.status = status
        self.heading = heading
        self.words = words
        self.again = again
        """After how many seconds the page tries again by itself."""


def no_such_session() -> Refused:
    """The same for a session of another tenant, an expired one and none at all."""
    return Refused(
        HTTPStatus.NOT_FOUND,
        "There is no such session",
        "None of yours has this address. It may have been deleted or have expired, or the address "
        "may be incomplete.",
    )


def figures_only(actor: str | None) -> Refused:
    """For who may see figures, but not what was said."""
    who = "You" if actor is None else f"You are signed in as {actor}, who"
    return Refused(
        HTTPStatus.FORBIDDEN,
        "You may not read sessions here",
        f"{who} may see figures but not what was said.",
    )
