"""How a store encrypts: with whose keys, one for whom, and whether it takes what is plain."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ..database.driver import AnyDatabase, Database, as_pymongo, with_store_rules
from ..errors import InvalidMetadataError
from ..text import shown
from .compression import require_compression
from .key_cache import KeyCache
from .key_service import KeyService
from .keyring import Keyring
from .seal import require_cipher

_MAX_SUBJECT_BYTES = 1024


class Encryption:
    """Encrypts what is said in sessions before it leaves the process.

    ``BeanieSessionStore(..., encryption=Encryption(LocalKeys(path), subject="user_id"))``. Entries,
    titles, prompts, tags, branches and directories are encrypted; keys, order, uuids, dates,
    numbers, names of models and tools, and metadata stay as they are. Make one for an application
    and give it to all of its stores: it keeps the keys that were unwrapped.

    Args:
        keys: who wraps the keys: :class:`LocalKeys`, or a :class:`KeyService` of your own.
        subject: the field of metadata that tells of whom a session is. Each of its values has a
            key of its own in a tenant, which can be destroyed for itself; sessions without one
            share the tenant's key. ``None`` gives all of a tenant one key.
        required: refuse to read, and to go on with, what is stored plain.
        database: where the wrapped keys are, in the collection ``claude_encryption_keys``, of this
            or of another cluster; ``None`` for the database of each store.
        cache: how long an unwrapped key is kept in memory, from 0 to 1 day. So long reads and
            appends go on without the key service, and so long a process may still read with a key
            that another one has destroyed.

    Raises:
        ImportError: the extra ``encryption`` is not installed.
        TypeError: ``keys`` is no key service, or another argument is of a wrong type.
        ValueError: ``subject`` is no plain name of a field, or ``cache`` is out of range.
    """

    def __init__(
        self,
        keys: KeyService,
        *,
        subject: str | None = None,
        required: bool = False,
        database: AnyDatabase | None = None,
        cache: timedelta = timedelta(minutes=5),
    ) -> None:
        # Now, and not at the first entry that is large enough to be compressed.
        require_cipher()
        require_compression()
        if not isinstance(keys, KeyService) or isinstance(keys, type):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"keys must be a key service with wrap() and unwrap(), such as LocalKeys(path), "
                f"not {shown(type(keys))}."
            )
        if type(required) is not bool:
            raise TypeError(f"required must be True or False, not {shown(required)}.")
        _check_subject_field(subject)
        if not isinstance(cache, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"cache must be a timedelta, not {shown(cache)}.")
        if not timedelta() <= cache <= timedelta(days=1):
            raise ValueError(f"cache must be from 0 to 1 day, not {cache}.")
        if database is not None and not hasattr(database, "client"):
            raise TypeError(f"database must be a database of the driver, not {shown(database)}.")
        self.subject = subject
        """The field of metadata that tells of whom a session is."""
        self.required = required
        """Whether what is plain is refused."""
        self._keys = keys
        self._database = database
        self._cache = KeyCache(cache.total_seconds())

    def __repr__(self) -> str:
        return f"Encryption({self._keys!r}, subject={self.subject!r}, required={self.required})"

    def keyring(self, database: Database) -> Keyring:
        """The keys for what is in a database."""
        place = database if self._database is None else as_pymongo(self._database)
        return Keyring(
            self._keys, with_store_rules(place), self._cache, self.required, self.subject
        )

    def subject_of(self, metadata: Mapping[str, Any] | None) -> str:
        """Of whom a session with such metadata is; ``""`` where that is not told.

        Raises:
            InvalidMetadataError: what tells it is neither a text nor an integer.
        """
        return subject_in(metadata, self.subject)


def checked_encryption(encryption: object, metadata: Mapping[str, Any] | None) -> None:
    """Refuse what is no encryption, rather than store something plain, or has no key for a subject.

    Raises:
        TypeError: it is none.
        InvalidMetadataError: what tells the subject in metadata is neither a text nor an integer.
    """
    if encryption is not None and not isinstance(encryption, Encryption):
        raise TypeError(
            f"encryption must be an Encryption(...) or None, not {shown(type(encryption))}; "
            "nothing was stored."
        )
    if encryption is not None:
        encryption.subject_of(metadata)


def subject_in(metadata: Mapping[str, Any] | None, field: str | None) -> str:
    """As :meth:`Encryption.subject_of`, by the field that tells it."""
    value = None if field is None or metadata is None else metadata.get(field)
    return "" if value is None else checked_subject(value, f"metadata[{field!r}]")


def checked_subject(value: object, what: str = "subject") -> str:
    """Of whom something is, as a text.

    Raises:
        InvalidMetadataError: it is neither a text nor an integer.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InvalidMetadataError(
            f"{what} tells with whose key a session is encrypted, so it must be a text or an "
            f"integer, not {type(value).__name__}; nothing was stored."
        )
    text = str.__str__(value) if isinstance(value, str) else str(int(value))
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = _MAX_SUBJECT_BYTES + 1
    if size > _MAX_SUBJECT_BYTES or "\0" in text:
        raise InvalidMetadataError(
            f"{what} tells with whose key a session is encrypted, so it must be well-formed text "
            f"of at most {_MAX_SUBJECT_BYTES} bytes without NUL; nothing was stored."
        )
    return text


def _check_subject_field(subject: object) -> None:
    if subject is None:
        return
    if not isinstance(subject, str):
        raise TypeError(f"subject must be the name of a field of metadata, not {shown(subject)}.")
    if not subject or subject[0] == "$" or "." in subject or "\0" in subject:
        raise ValueError(
            f"subject must be the plain name of a field of metadata, without a dot or a leading "
            f"$, not {shown(subject)}."
        )
