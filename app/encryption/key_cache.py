"""Keys that were unwrapped, kept for a while."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from time import monotonic

from bson import ObjectId

from ..transcript_key import TranscriptKey
from .seal import HEAD_BYTES, SessionCipher, head_of, key_id_of

_MOST_KEYS = 10_000
_MOST_CIPHERS = 10_000
_NONE = (None, 0.0)


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key as it was unwrapped."""

    id: ObjectId
    tenant: str
    key: bytes = field(repr=False)


class KeyCache:
    """The data keys, and the ciphers made of them, that were used last.

    ``seconds`` is how long one is taken for what is stored: then it may have been destroyed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._keys: OrderedDict[ObjectId, tuple[DataKey, float]] = OrderedDict()
        # By the bytes that what they seal begins with, which takes no object to look up.
        self._ciphers: OrderedDict[tuple[bytes, TranscriptKey], tuple[SessionCipher, float]] = (
            OrderedDict()
        )
        self._subjects: OrderedDict[tuple[str, str, str], ObjectId] = OrderedDict()
        # Whoever asked for one before it was destroyed may be told of it only afterwards.
        self._destroyed: OrderedDict[ObjectId, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"KeyCache({len(self._keys)} keys)"

    def key(self, key_id: ObjectId) -> DataKey | None:
        """A data key, unless it is too old."""
        found, until = self._keys.get(key_id, (None, 0.0))
        if found is not None and until <= monotonic():
            self._keys.pop(key_id, None)
            return None
        return found

    def of_subject(self, place: str, tenant: str, subject: str) -> DataKey | None:
        """The data key of a subject, unless it is too old."""
        found = self._subjects.get((place, tenant, subject))
        return None if found is None else self.key(found)

    def put(self, key: DataKey) -> None:
        """Keep a data key, and forget the oldest ones where there are too many."""
        if key.id in self._destroyed:
            return
        self._keys[key.id] = (key, monotonic() + self._seconds)
        self._keys.move_to_end(key.id)
        while len(self._keys) > _MOST_KEYS:
            self._keys.popitem(last=False)

    def put_subject(self, place: str, tenant: str, subject: str, key: DataKey) -> None:
        """Keep the data key of a subject."""
        self.put(key)
        self._subjects[place, tenant, subject] = key.id
        self._subjects.move_to_end((place, tenant, subject))
        while len(self._subjects) > _MOST_KEYS:
            self._subjects.popitem(last=False)

    def cipher(self, key_id: ObjectId, session: TranscriptKey) -> SessionCipher | None:
        """The cipher of a session, unless its data key has to be asked for."""
        found, until = self._ciphers.get((head_of(key_id), session), _NONE)
        if found is not None and until > monotonic():
            return found
        key = self.key(key_id)
        # One of another tenant is for whoever asks to refuse.
        is_its = key is not None and key.tenant == session.tenant
        return self.cipher_with(key, session) if key is not None and is_its else None

    def cipher_by_head(self, sealed: bytes, key: TranscriptKey) -> SessionCipher | None:
        """The cipher for what was sealed in a session, unless its data key has to be asked for.

        Raises:
            DamagedSealError: the seal is cut.
        """
        session = key if not key.subpath else key.session
        found, until = self._ciphers.get((sealed[:HEAD_BYTES], session), _NONE)
        if found is not None and until > monotonic():
            return found
        return self.cipher(key_id_of(sealed, key), session)

    def cipher_with(self, key: DataKey, session: TranscriptKey) -> SessionCipher:
        """The cipher of a session, with a data key at hand."""
        _, until = self._keys.get(key.id, (None, 0.0))
        cipher = SessionCipher(key.id, key.key, session)
        self._ciphers[head_of(key.id), session] = (cipher, until)
        while len(self._ciphers) > _MOST_CIPHERS:
            self._ciphers.popitem(last=False)
        return cipher

    def forget(self, key_id: ObjectId) -> None:
        """Forget a key that was destroyed, and the ciphers made of it, for ever."""
        self._destroyed[key_id] = None
        while len(self._destroyed) > _MOST_KEYS:
            self._destroyed.popitem(last=False)
        self._keys.pop(key_id, None)
        head = head_of(key_id)
        # A copy, for stores in other threads may have it too.
        for name in [name for name in list(self._ciphers) if name[0] == head]:
            self._ciphers.pop(name, None)
