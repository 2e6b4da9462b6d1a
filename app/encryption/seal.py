"""The seal: bytes that nobody can read, change, or put elsewhere without the key.

Format 1, which never changes: the byte 2, by which packed values are told from sealed ones; the
version of the seal, 1; the id of the data key, 12 bytes; a random nonce, 12 bytes; AES-256-GCM of
the contents with its tag, 16 bytes. What it is bound to is its first two bytes, what it is, whose
it is, and where.
"""

from __future__ import annotations

import hmac
import os
from enum import IntEnum
from functools import cache, cached_property
from struct import Struct
from struct import error as StructError
from typing import Any, Final

from bson import ObjectId

from ...models.packing import SEALED
from ..errors import DamagedSealError
from ..transcript_key import TranscriptKey

_VERSION = b"\x01"
_FORMAT: Final = SEALED + _VERSION
_ID_END = len(_FORMAT) + 12
_NONCE_END = _ID_END + 12
_TAG_BYTES = 16
_SHORTEST = _NONCE_END + _TAG_BYTES

HEAD_BYTES: Final = _ID_END
"""So many bytes at the start of what is sealed tell the version and the key."""

_LENGTH = Struct(">I").pack
_PLACE = Struct(">qII").pack
_PURPOSE = b"beanie-session-store session key 1"


class Sealed(IntEnum):
    """What is sealed, for one must not stand for the other."""

    ENTRY = 1
    FOLD = 2
    STATE = 3
    """Of a summary: its texts, and what is in flight of its totals."""


def head_of(key_id: ObjectId) -> bytes:
    """What all begins with that is sealed with a data key."""
    return _FORMAT + key_id.binary


def key_id_of(sealed: bytes, what: object) -> ObjectId:
    """The data key that bytes are sealed with.

    Raises:
        DamagedSealError: they are cut, or of a version that this release does not know.
    """
    if sealed[:2] != _FORMAT or len(sealed) < _SHORTEST:
        raise DamagedSealError(
            f"Cannot read {what}: its seal is cut, or of a version that this release does not "
            "know; nothing was changed. If a newer release wrote it, install that release; else "
            "restore it from a backup."
        )
    return ObjectId(sealed[len(_FORMAT) : _ID_END])


def require_cipher() -> None:
    """Have what encrypts at hand.

    Raises:
        ImportError: it is not installed.
    """
    _library()


@cache
def _library() -> tuple[Any, tuple[type[Exception], ...]]:
    """What encrypts, and what it raises; only those wait for it who have something encrypted."""
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ModuleNotFoundError as missing:
        raise ImportError(
            f"Encryption needs {missing.name}, which is not installed. Install it with "
            "`pip install 'beanie-session-store[encryption]'`."
        ) from missing
    return AESGCM, (InvalidTag, ValueError, TypeError, ArithmeticError, StructError)


class SessionCipher:
    """Seals and opens what belongs to one session."""

    def __init__(self, key_id: ObjectId, data_key: bytes, session: TranscriptKey) -> None:
        names = session[:3]
        encoded = [each.encode("utf-8", "surrogatepass") for each in names]
        self._owner = b"".join(part for each in encoded for part in (_LENGTH(len(each)), each))
        # HKDF-Expand of RFC 5869: a data key is random as it is, so there is nothing to extract.
        key = hmac.digest(data_key, _PURPOSE + self._owner + b"\x01", "sha256")
        aes_gcm, self._broken = _library()
        self._cipher = aes_gcm(key)
        self._head = head_of(key_id)
        self.session = session
        self.key_id = key_id

    def __repr__(self) -> str:
        return f"SessionCipher({self.key_id})"

    def __reduce__(self) -> str:
        raise TypeError("a cipher holds a key, and is not to be copied or stored")

    @cached_property
    def main(self) -> TranscriptCipher:
        """For the main transcript, and for the summary."""
        return self._of("")

    def of(self, subpath: str) -> TranscriptCipher:
        """For one transcript of the session."""
        return self._of(subpath) if subpath else self.main

    def _of(self, subpath: str) -> TranscriptCipher:
        encoded = subpath.encode("utf-8", "surrogatepass")
        owner = self._owner + _LENGTH(len(encoded)) + encoded
        key = self.session.with_subpath(subpath)
        return TranscriptCipher(self._cipher, self._broken, self._head, owner, key)


class TranscriptCipher:
    """Seals and opens what belongs to one transcript; from :meth:`SessionCipher.of`."""

    __slots__ = ("_broken", "_cipher", "_head", "_owners", "key")

    def __init__(
        self,
        cipher: Any,
        broken: tuple[type[Exception], ...],
        head: bytes,
        owner: bytes,
        key: TranscriptKey,
    ) -> None:
        self._cipher = cipher
        self._broken = broken
        self._head = head
        self._owners = {kind: _FORMAT + bytes((kind,)) + owner for kind in Sealed}
        self.key = key

    def seal(self, kind: Sealed, seq: int, contents: bytes, part: int = 0, parts: int = 1) -> bytes:
        """Seal contents for a position, or that part of so many of what stands there."""
        nonce = os.urandom(12)
        bound = self._owners[kind] + _PLACE(seq, part, parts)
        return self._head + nonce + self._cipher.encrypt(nonce, contents, bound)

    def open(
        self, kind: Sealed, seq: object, sealed: bytes, part: int = 0, parts: int = 1
    ) -> bytes:
        """The contents of what was sealed for that place, with the key that it names.

        Raises:
            DamagedSealError: it was sealed for another place, or was changed since.
        """
        try:
            if not isinstance(seq, int):
                raise TypeError
            bound = self._owners[kind] + _PLACE(seq, part, parts)
            return self._cipher.decrypt(sealed[_ID_END:_NONCE_END], sealed[_NONCE_END:], bound)
        except self._broken:
            if kind is Sealed.ENTRY:
                raise damaged(f"entry {seq} of {self.key}") from None
            advice = "Run session-store verify --repair, which makes it anew from the entries."
            raise damaged(f"the summary of {self.key}", advice) from None


def damaged(
    what: object, advice: str = "Restore it from a backup, or delete the session."
) -> DamagedSealError:
    """The error for what does not open with its own key."""
    return DamagedSealError(
        f"Cannot read {what}: its seal is broken. It was changed past the store, cut, or taken "
        f"from another place or session; nothing was changed. {advice}"
    )
