"""The data keys of one database: found or made, unwrapped, wrapped anew, destroyed."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timezone
from time import monotonic
from typing import Any

from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from ...models.encryption_key import SUBJECT_INDEX, EncryptionKey
from ..database.attempts import unless_refused
from ..database.driver import Collection, Database
from ..database.reads import retried
from ..errors import (
    EncryptionError,
    KeyDestroyedError,
    PlainContentsError,
    WrongKeyError,
)
from ..transcript_key import TranscriptKey
from .key_cache import DataKey, KeyCache
from .key_service import KeyService, WrappedKey
from .seal import SessionCipher, damaged, key_id_of

_DATA_KEY_BYTES = 32
_ASKED_KEYS = 100
# How long a key is taken for one that is in use where many sessions begin with it.
_CHECKED_SECONDS = 1.0
_MOST_CHECKED = 10_000
# A service far away is asked for several at once, but not for hundreds.
_UNWRAPPED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Rotation:
    """How far the data keys of a database are wrapped by the current wrapping key."""

    current: str
    """The name of that wrapping key."""
    keys: int
    """Data keys that are in use."""
    rewrapped: int
    """Those that were wrapped anew."""

    def __str__(self) -> str:
        return f"{self.rewrapped} of {self.keys} keys wrapped anew, by {self.current}"


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """What there is of keys in a database."""

    keys: int
    """Data keys that are in use."""
    destroyed: int
    by_wrapping_key: dict[str, int]
    """How many are wrapped by which wrapping key."""


class Keyring:
    """Unwraps what a database has of keys, and makes the cipher of each session from them."""

    def __init__(
        self,
        keys: KeyService,
        database: Database,
        cache: KeyCache,
        required: bool,
        subject: str | None,
    ) -> None:
        self.required = required
        """Whether what is plain is refused."""
        self.subject = subject
        """The field of metadata that tells of whom a session is."""
        self._service = keys
        self._collection: Collection = database[EncryptionKey.Settings.name]
        self._cache = cache
        self._has_index = False
        self._checked: dict[ObjectId, float] = {}

    def __repr__(self) -> str:
        return f"Keyring({self._collection.full_name})"

    def taking_plain(self) -> Keyring:
        """The same keys, that refuse nothing plain."""
        other = copy(self)
        other.required = False
        return other

    def take_plain(self, what: object) -> None:
        """Let something pass that is stored plain.

        Raises:
            PlainContentsError: only what is sealed is taken.
        """
        if self.required:
            raise PlainContentsError(
                f"{what} is stored plain, and only what is encrypted is taken here "
                "(required=True): nobody encrypted it yet, or somebody put it there past the "
                "store; nothing was changed. If it is yours, run session-store keys seal; else "
                "delete it."
            )

    def known_cipher(self, key: TranscriptKey, sealed: bytes) -> SessionCipher | None:
        """The cipher for what was sealed in a session, if its data key is at hand.

        Raises:
            DamagedSealError: the seal is cut.
        """
        return self._cache.cipher_by_head(sealed, key)

    async def cipher_for(self, key: TranscriptKey, sealed: bytes) -> SessionCipher:
        """The cipher for what was sealed in a session.

        Raises:
            WrongKeyError, KeyDestroyedError, DamagedSealError, KeyServiceError: there is none.
        """
        return await self.cipher_with(key.session, key_id_of(sealed, key))

    async def cipher_with(self, session: TranscriptKey, key_id: ObjectId) -> SessionCipher:
        """The cipher of a session, with a data key that is there.

        Raises:
            WrongKeyError, KeyDestroyedError, DamagedSealError, KeyServiceError: there is none.
        """
        known = self._cache.cipher(key_id, session)
        if known is not None:
            return known
        found = (await self.fetch([key_id]))[key_id]
        if isinstance(found, EncryptionError):
            raise type(found)(f"Cannot read {session}. {found}")
        if found.tenant != session.tenant:
            raise damaged(session)
        return self._cache.cipher_with(found, session)

    async def cipher_of_subject(self, session: TranscriptKey, subject: str) -> SessionCipher:
        """The cipher of a new session, with the data key of its subject, made if there is none.

        Raises:
            WrongKeyError, KeyServiceError: it cannot be unwrapped, or made.
        """
        place = self._collection.full_name
        known = self._cache.of_subject(place, session.tenant, subject)
        # What begins with a key that was destroyed could never be read.
        if known is not None and not await self._is_in_use(known.id):
            self._cache.forget(known.id)
            known = None
        if known is None:
            known = await self._key_of(session.tenant, subject)
            self._cache.put_subject(place, session.tenant, subject, known)
        return self._cache.cipher_with(known, session)

    async def fetch(self, key_ids: Iterable[ObjectId]) -> dict[ObjectId, DataKey | EncryptionError]:
        """Data keys by their ids, or why there is none; those that are found are kept."""
        wanted = list(dict.fromkeys(key_ids))
        found: dict[ObjectId, DataKey | EncryptionError] = {}
        rows: dict[ObjectId, dict[str, Any]] = {}
        unknown: list[ObjectId] = []
        for each in wanted:
            known = self._cache.key(each)
            if known is None:
                unknown.append(each)
            else:
                found[each] = known
        client = self._collection.database.client
        for at in range(0, len(unknown), _ASKED_KEYS):
            query = {"_id": {"$in": unknown[at : at + _ASKED_KEYS]}}
            for row in await retried(client, lambda query=query: _all(self._collection, query)):
                rows[row["_id"]] = row
        free = asyncio.Semaphore(_UNWRAPPED_AT_ONCE)

        async def one(key_id: ObjectId) -> None:
            async with free:
                try:
                    found[key_id] = await self._unwrapped(key_id, rows.get(key_id))
                except EncryptionError as error:
                    found[key_id] = error

        await asyncio.gather(*map(one, unknown))
        return found

    async def destroy(self, tenant: str, subject: str) -> bool:
        """Destroy the key of a subject, and return whether it had one.

        Nothing that was encrypted with it can be read any more, here or in a backup that does not
        hold the key. Processes that have it in memory forget it when their ``cache`` ends.
        """
        owner = {"tenant": tenant, "subject": subject}
        key_id = await self.key_id_of_subject(tenant, subject)
        if key_id is None:
            return False
        gone = {"subject": "", "wrapped": "", "wrapped_by": "", "wrapped_at": ""}
        change = {"$set": {"destroyed_at": _now()}, "$unset": gone}
        this = {"_id": key_id, **owner}
        await unless_refused(lambda: self._collection.update_one(this, change))
        self._cache.forget(key_id)
        return True

    async def key_id_of_subject(self, tenant: str, subject: str) -> ObjectId | None:
        """The key that a subject has, if it has one."""
        owner = {"tenant": tenant, "subject": subject}
        client = self._collection.database.client
        row = await retried(client, lambda: self._collection.find_one(owner, {"_id": 1}))
        return None if row is None else row["_id"]

    async def destroy_all(self, tenant: str) -> int:
        """Destroy the keys of all subjects of a tenant, and return how many there were."""
        count = 0
        while True:
            owned = {"tenant": tenant, "subject": {"$exists": True}}
            row = await self._collection.find_one(owned, {"subject": 1})
            if row is None:
                return count
            count += await self.destroy(tenant, row["subject"])

    async def _is_in_use(self, key_id: ObjectId) -> bool:
        checked = self._checked
        if checked.get(key_id, 0.0) > monotonic():
            return True
        owned = {"_id": key_id, "wrapped": {"$exists": True}}
        client = self._collection.database.client
        row = await retried(client, lambda: self._collection.find_one(owned, {"_id": 1}))
        if row is None:
            return False
        if len(checked) > _MOST_CHECKED:
            checked.clear()
        checked[key_id] = monotonic() + _CHECKED_SECONDS
        return True

    async def rotate(self, on_progress: Callable[[Rotation], None] | None = None) -> Rotation:
        """Wrap all data keys anew that the current wrapping key has not wrapped.

        It can be cut off at any time and run again, beside stores that read and write.

        Raises:
            WrongKeyError: one cannot be unwrapped; those before it are wrapped anew.
            KeyServiceError: the key service cannot be reached.
        """
        probe = await self._service.wrap(secrets.token_bytes(_DATA_KEY_BYTES), {"purpose": "probe"})
        current = probe.wrapped_by
        rewrapped = seen = 0
        last: dict[str, Any] = {}
        client = self._collection.database.client
        while True:
            query = {"wrapped": {"$exists": True}, **last}
            page = await retried(
                client, lambda query=query: _all(self._collection, query, limit=_ASKED_KEYS)
            )
            for row in page:
                seen += 1
                if row.get("wrapped_by") != current:
                    rewrapped += await self._rewrap(row)
            if on_progress is not None and page:
                on_progress(Rotation(current, seen, rewrapped))
            if len(page) < _ASKED_KEYS:
                return Rotation(current, seen, rewrapped)
            last = {"_id": {"$gt": page[-1]["_id"]}}

    async def status(self) -> KeyStatus:
        """What there is of keys."""
        client = self._collection.database.client

        async def attempt() -> KeyStatus:
            names: Counter[str] = Counter()
            async for row in self._collection.find(
                {"wrapped": {"$exists": True}}, {"wrapped_by": 1}
            ):
                names[str(row.get("wrapped_by"))] += 1
            destroyed = await self._collection.count_documents({"wrapped": {"$exists": False}})
            return KeyStatus(sum(names.values()), destroyed, dict(names))

        return await retried(client, attempt)

    async def _rewrap(self, row: dict[str, Any]) -> bool:
        key = await self._unwrapped(row["_id"], row)
        wrapped = await self._service.wrap(key.key, _context(row))
        values = {
            "wrapped": wrapped.data,
            "wrapped_by": wrapped.wrapped_by,
            "wrapped_at": _now(),
        }
        # Another one that rotates may have been there, or somebody who destroyed it.
        unchanged = {"_id": row["_id"], "wrapped": row["wrapped"]}
        done = await unless_refused(
            lambda: self._collection.update_one(unchanged, {"$set": values})
        )
        return bool(done.modified_count)

    async def _key_of(self, tenant: str, subject: str) -> DataKey:
        owner = {"tenant": tenant, "subject": subject}
        client = self._collection.database.client
        while True:
            row = await retried(client, lambda: self._collection.find_one(owner))
            if row is not None:
                key = await self._unwrapped(row["_id"], row)
                self._cache.put(key)
                return key
            await self._require_index()
            made: dict[str, Any] = {"_id": ObjectId(), **owner}
            data_key = secrets.token_bytes(_DATA_KEY_BYTES)
            wrapped = await self._service.wrap(data_key, _context(made))
            now = _now()
            made |= {
                "wrapped": wrapped.data,
                "wrapped_by": wrapped.wrapped_by,
                "created_at": now,
                "wrapped_at": now,
            }
            try:
                await unless_refused(lambda made=made: self._collection.insert_one(made))
            except DuplicateKeyError:
                # Another process was first, or it was this one, which was not answered.
                continue
            return DataKey(made["_id"], tenant, data_key)

    async def _require_index(self) -> None:
        # Two writers would else make two keys, of which one is not found when it is destroyed.
        if not self._has_index:
            await self._collection.create_indexes([SUBJECT_INDEX])
            self._has_index = True

    async def _unwrapped(self, key_id: ObjectId, row: dict[str, Any] | None) -> DataKey:
        if row is None:
            raise WrongKeyError(
                f"Its key {key_id} is not in {self._collection.full_name}: the keys are in another "
                "database, or were lost; nothing was changed. Give Encryption the database= that "
                "has them, or restore the collection from a backup."
            )
        if row.get("destroyed_at") is not None:
            raise KeyDestroyedError(
                f"Its key {key_id} was destroyed on {row['destroyed_at']:%Y-%m-%d}, so nobody can "
                "read it any more; nothing was changed. Delete the session."
            )
        tenant, data, name = row.get("tenant"), row.get("wrapped"), row.get("wrapped_by")
        if not (isinstance(tenant, str) and isinstance(data, bytes) and isinstance(name, str)):
            raise _unusable(key_id, self._collection.full_name)
        key = await self._service.unwrap(WrappedKey(name, data), _context(row))
        if not isinstance(key, bytes) or len(key) != _DATA_KEY_BYTES:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _unusable(key_id, self._collection.full_name)
        found = DataKey(key_id, tenant, key)
        self._cache.put(found)
        return found


async def _all(
    collection: Collection, query: dict[str, Any], limit: int = 0
) -> list[dict[str, Any]]:
    return await collection.find(query, sort=[("_id", 1)], limit=limit).to_list(None)


def _context(row: dict[str, Any]) -> dict[str, str]:
    # No subject: some services write contexts into logs.
    return {
        "purpose": "beanie-session-store",
        "tenant": str(row.get("tenant")),
        "key": str(row["_id"]),
    }


def _unusable(key_id: ObjectId, place: str) -> WrongKeyError:
    return WrongKeyError(
        f"Its key {key_id} in {place} is none that the store wrote; nothing was changed. Restore "
        "the collection from a backup."
    )


def _now() -> datetime:
    return datetime.now(timezone.utc)
