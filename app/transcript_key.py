"""Which transcript is meant: checked names instead of loose strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from .errors import InvalidKeyError
from .every import EVERY
from .sdk import SessionKey, SessionListSubkeysKey
from .text import shown

MAX_NAME_BYTES = 1024
"""Longest tenant, project key, session id or subpath, in UTF-8 bytes."""

# What stored policies say, so that nobody can be called so.
_EVERY = EVERY.value

_REQUIRED_FIELDS = frozenset({"project_key", "session_id"})
_KEY_FIELDS = _REQUIRED_FIELDS | {"subpath"}

AnyKey: TypeAlias = SessionKey | SessionListSubkeysKey | Mapping[str, str]
"""What names a session, or with ``subpath`` one of its transcripts: the SDK's, or any mapping."""


def session_key(project_key: str, session_id: str, *, subpath: str | None = None) -> SessionKey:
    """The key of a session's main transcript, or of a subagent's.

    Every method of a store takes it, and those of the SDK that ask for a ``SessionKey``; a plain
    dict of texts does for ours.

    Args:
        project_key: the SDK's, see its ``project_key_for_directory``.
        session_id: the session.
        subpath: such as ``subagents/agent-a1``; ``None`` for the main transcript.

    Raises:
        InvalidKeyError: one of them cannot be such a name.
    """
    key: SessionKey = {
        "project_key": checked_name("project_key", project_key),
        "session_id": checked_name("session_id", session_id),
    }
    if subpath is not None:
        key["subpath"] = checked_name("subpath", subpath)
    return key


def checked_name(field: str, value: object) -> str:
    """Return ``value`` as a plain string that is safe in a query and in an index.

    Raises:
        InvalidKeyError: it is not a string (a dict such as ``{"$ne": None}`` would be a query
            operator), or is empty, too long, or holds NUL or a lone surrogate, or is ``"*"``,
            which people take for every one.
    """
    if not isinstance(value, str):
        raise InvalidKeyError(
            f"{field} must be a string, not {type(value).__name__}; nothing was read or written. "
            "Pass the plain string that names it."
        )
    # Of a subclass (an enum, say) only the characters count.
    name = str.__str__(value)
    if not name:
        hint = "Pass the string that names it."
        if field == "subpath":
            hint = "Leave it out for the main transcript."
        raise InvalidKeyError(f"{field} is empty; nothing was read or written. {hint}")
    if name == _EVERY and field != "subpath":
        raise InvalidKeyError(
            f'{field} is "*", which names nobody and does not stand for every one; nothing was '
            "read or written. Pass the name that is meant."
        )
    if "\0" in name:
        raise InvalidKeyError(
            f"{field} holds a NUL character; nothing was read or written. Remove it."
        )
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidKeyError(
            f"{field} holds a lone surrogate, which no database can match; "
            "nothing was read or written. Pass well-formed Unicode text."
        ) from None
    if size > MAX_NAME_BYTES:
        raise InvalidKeyError(
            f"{field} is {size} bytes long, more than {MAX_NAME_BYTES}; nothing was read or "
            "written. Use a shorter name, or a digest of the long one."
        )
    return name


class TranscriptKey(NamedTuple):
    """One transcript of one tenant; ``subpath`` is ``""`` for the main transcript."""

    tenant: str
    project_key: str
    session_id: str
    subpath: str = ""

    @classmethod
    def parse(cls, tenant: str, key: object) -> TranscriptKey:
        """Check the SDK's ``SessionKey`` and bind it to ``tenant``, which is checked already.

        Raises:
            InvalidKeyError: the key is not a mapping, lacks a field, has one that is unknown
                (it might name another transcript), or has one that is no usable name.
        """
        if not isinstance(key, Mapping):
            raise InvalidKeyError(
                f"the key must be a SessionKey dict, not {type(key).__name__}; nothing was read or "
                'written. Pass {"project_key": ..., "session_id": ...}.'
            )
        fields: dict[Any, Any] = {**key}
        if not _REQUIRED_FIELDS <= fields.keys() <= _KEY_FIELDS:
            raise _misfit(fields)
        subpath = fields.get("subpath")
        return cls(
            tenant,
            checked_name("project_key", fields["project_key"]),
            checked_name("session_id", fields["session_id"]),
            "" if subpath is None else checked_name("subpath", subpath),
        )

    @property
    def is_main(self) -> bool:
        """Whether this is the session's main transcript."""
        return not self.subpath

    @property
    def session(self) -> TranscriptKey:
        """The main transcript of the same session."""
        if not self.subpath:
            return self
        return TranscriptKey(self.tenant, self.project_key, self.session_id)

    def with_subpath(self, subpath: str) -> TranscriptKey:
        """Another transcript of the same session."""
        return TranscriptKey(self.tenant, self.project_key, self.session_id, subpath)

    @property
    def of_session(self) -> dict[str, Any]:
        """A criterion for everything of the session; begins with the shard key."""
        return {
            "tenant": self.tenant,
            "project_key": self.project_key,
            "session_id": self.session_id,
        }

    @property
    def of_transcript(self) -> dict[str, Any]:
        """A criterion for this transcript alone; begins with the shard key."""
        return {**self.of_session, "subpath": self.subpath}

    def __str__(self) -> str:
        where = f" {self.subpath}" if self.subpath else ""
        return f"session {self.session_id}{where} of tenant {self.tenant}"


def _misfit(fields: dict[Any, Any]) -> InvalidKeyError:
    unknown = fields.keys() - _KEY_FIELDS
    if unknown:
        return InvalidKeyError(
            f"the key has fields this release does not know ({_listed(unknown)}); they might "
            "name another transcript, so nothing was read or written. "
            f"Known are {_listed(_KEY_FIELDS)}."
        )
    missing = _REQUIRED_FIELDS - fields.keys()
    return InvalidKeyError(
        f"the key lacks {_listed(missing)}; nothing was read or written. Pass "
        '{"project_key": ..., "session_id": ...}, and "subpath" for a subagent.'
    )


def _listed(names: object) -> str:
    return ", ".join(sorted(map(shown, names)))  # pyright: ignore[reportArgumentType]
