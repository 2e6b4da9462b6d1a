"""What is left where sealing was cut off, a key is gone, or a value is of the largest."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from bson import Binary
from counting.test_fork_costs import SOURCE, account, forked, said
from support.entries import KEY, message, turn

from beanie_session_store import (
    BeanieSessionStore,
    DamagedSealError,
    KeyDestroyedError,
    KeyServiceError,
    PlainContentsError,
    seal_sessions,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.encryption import seal
from beanie_session_store.app.encryption.key_service import WrappedKey
from beanie_session_store.app.storage import codec
from beanie_session_store.encryption import Encryption, LocalKeys
from beanie_session_store.models.packing import SEALED, pack

NewStore = Callable[..., BeanieSessionStore]
NOISY = 2**70
"""Has an entry packed."""


async def test_a_fork_goes_on_whose_source_nobody_can_read(
    sealing: BeanieSessionStore, new_store: NewStore
) -> None:
    source, fork = {**KEY, "session_id": "source"}, {**KEY, "session_id": "fork"}
    await sealing.append(source, [*SOURCE, account(opus=1.5)])
    mine = new_store(metadata={"user_id": "u2"})
    await mine.append(fork, [*forked(SOURCE, "fork"), said("fork", 5)])
    assert await mine.destroy_key("u1")
    with pytest.raises(KeyDestroyedError):
        await mine.load(source)
    await mine.append(fork, [account(opus=2.5)])
    summary = await mine.summary(fork)
    assert summary is not None
    assert summary.totals is not None
    # As of one whose source is gone.
    assert summary.totals.has_source_cost
    assert (await mine.verify(fork)).is_sound


@pytest.mark.parametrize("value", [1.5, True])
async def test_an_erasure_ends_of_who_can_have_no_key(
    store: BeanieSessionStore, new_store: NewStore, value: object
) -> None:
    await BeanieSessionStore(metadata={"user_id": value}).append(KEY, turn(1))
    receipt = await new_store().erase(metadata={"user_id": value})
    assert len(receipt.sessions) == 1
    assert receipt.ended_at is not None


@pytest.mark.parametrize(("one", "other"), [(7, "7"), ("7", 7)], ids=["number", "digits"])
async def test_a_number_and_its_digits_are_erased_apart(
    new_store: NewStore, one: object, other: object, database: Database
) -> None:
    theirs = {**KEY, "session_id": "other"}
    await new_store(metadata={"user_id": one}).append(KEY, turn(1))
    await new_store(metadata={"user_id": other}).append(theirs, turn(2))
    await new_store().erase(metadata={"user_id": one})
    assert len(await new_store().load(theirs) or []) == 6
    await new_store().erase(metadata={"user_id": other})
    assert await database["claude_encryption_keys"].distinct("subject") == []


async def test_a_packed_entry_of_the_largest_is_sealed(
    store: BeanieSessionStore, new_store: NewStore, database: Database
) -> None:
    """Its command has room for it once, and not for what it was besides."""
    entry = message(os.urandom(10_000_000).hex(), deep=NOISY)
    await store.append(KEY, [entry, message("small", deep=NOISY)])
    (row, _) = await database["claude_transcript_entries"].find(sort=[("seq", 1)]).to_list(None)
    assert len(row["packed"]) > 8_388_608
    report = await seal_sessions(new_store())
    assert (report.entries, report.problems) == (2, [])
    assert (await new_store(required=True).load(KEY) or [])[0] == entry
    assert (await seal_sessions(new_store())).entries == 0


async def test_chunks_of_which_some_are_sealed_are_read_and_sealed_to_the_end(
    standalone_database: Database, keys: LocalKeys, smaller_limits: int
) -> None:
    """Without transactions sealing may be cut off among them."""
    entry = message(os.urandom(48_000_000 // smaller_limits).hex(), deep=NOISY)
    await BeanieSessionStore().append(KEY, [entry])
    chunks = standalone_database["claude_transcript_chunks"]
    before = [row async for row in chunks.find(sort=[("part", 1)])]
    assert len(before) > 2
    store = BeanieSessionStore(encryption=Encryption(keys))
    assert await store.seal(KEY) == 1
    cut = before[1]
    await chunks.update_one({"_id": cut["_id"]}, {"$set": {"data": cut["data"]}})
    assert await store.load(KEY) == [entry]
    strict = BeanieSessionStore(encryption=Encryption(keys, required=True))
    with pytest.raises(PlainContentsError):
        await strict.load(KEY)
    assert await store.seal(KEY) == 1
    assert await strict.load(KEY) == [entry]


async def test_a_chunk_may_begin_as_what_is_sealed_does(
    store: BeanieSessionStore,
    new_store: NewStore,
    monkeypatch: pytest.MonkeyPatch,
    smaller_limits: int,
) -> None:
    """A part of what is compressed begins with any byte."""
    entry = message(os.urandom(48_000_000 // smaller_limits).hex(), deep=NOISY)
    size = codec.MAX_VALUE_BYTES
    at = pack(entry).index(SEALED, size // 2)
    monkeypatch.setattr(codec, "CHUNK_BYTES", at)
    await store.append(KEY, [entry])
    assert await store.load(KEY) == [entry]
    assert await new_store().load(KEY) == [entry]
    assert await new_store().seal(KEY) == 1
    assert await new_store(required=True).load(KEY) == [entry]


async def test_with_transactions_a_plain_chunk_among_sealed_ones_is_refused(
    sealing: BeanieSessionStore, database: Database, smaller_limits: int
) -> None:
    entry = message(os.urandom(48_000_000 // smaller_limits).hex(), deep=NOISY)
    await sealing.append(KEY, [entry])
    chunks = database["claude_transcript_chunks"]
    await chunks.update_one({"part": 1}, {"$set": {"data": Binary(b"\x01plain")}})
    with pytest.raises(DamagedSealError):
        await sealing.load(KEY)


@pytest.mark.parametrize(
    "cut", [b"\x02", b"\x02\x01short", b"\x02\x09" + bytes(60)], ids=["one", "cut", "newer"]
)
async def test_a_cut_seal_costs_no_other_session_its_place_in_a_list(
    sealing: BeanieSessionStore, database: Database, cut: bytes
) -> None:
    await sealing.append(KEY, turn(1))
    await sealing.append({**KEY, "session_id": "second"}, turn(2))
    change = {"$set": {"sealed": Binary(cut)}}
    await database["claude_transcript_summaries"].update_one({"session_id": "session"}, change)
    titles = {each.session_id: each.first_prompt for each in (await sealing.sessions()).sessions}
    assert titles == {"session": None, "second": "prompt 2"}
    listed = [each.title async for each in sealing.all_sessions()]
    assert listed == ["prompt 2", None]


class _Slow:
    """A key service that answers when it is told to."""

    def __init__(self, keys: LocalKeys) -> None:
        self.asked, self.answers = asyncio.Event(), asyncio.Event()
        self._keys = keys

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> WrappedKey:
        return await self._keys.wrap(key, context)

    async def unwrap(self, wrapped: WrappedKey, context: Mapping[str, str]) -> bytes:
        self.asked.set()
        await asyncio.wait_for(self.answers.wait(), 30)
        return await self._keys.unwrap(wrapped, context)


async def test_a_key_that_was_on_its_way_is_not_kept_when_it_is_destroyed(
    sealing: BeanieSessionStore, new_store: NewStore, keys: LocalKeys
) -> None:
    await sealing.append(KEY, turn(1))
    slow = _Slow(keys)
    store = new_store(encryption=Encryption(slow, subject="user_id"))
    reading = asyncio.ensure_future(store.load(KEY))
    await asyncio.wait_for(slow.asked.wait(), 30)
    assert await store.destroy_key("u1")
    slow.answers.set()
    await asyncio.wait_for(reading, 30)
    with pytest.raises(KeyDestroyedError):
        await store.load(KEY)


async def test_a_file_of_keys_that_went_away_is_an_error_of_the_store(
    new_store: NewStore, keys: LocalKeys, tmp_path: Path
) -> None:
    store = new_store()
    (tmp_path / "keys").unlink()
    with pytest.raises(KeyServiceError, match="Put it back"):
        await store.append(KEY, turn(1))
    assert await store.load(KEY) is None


async def test_a_fold_in_chunks_is_sealed_once(
    store: BeanieSessionStore, new_store: NewStore, database: Database, smaller_limits: int
) -> None:
    noise = os.urandom(24_000_000 // smaller_limits).hex()
    title = {"type": "custom-title", "customTitle": noise, "sessionId": "session"}
    await store.append(KEY, [message(), title])
    chunks = database["claude_transcript_chunks"]
    assert await chunks.count_documents({"collection": "claude_transcript_summaries"}) > 1
    await new_store().seal(KEY)
    strict = new_store(required=True)
    assert (await strict.verify(KEY)).is_sound
    before = [row async for row in chunks.find(sort=[("_id", 1)])]
    assert await new_store().seal(KEY) == 0
    assert [row async for row in chunks.find(sort=[("_id", 1)])] == before


async def test_an_erasure_leaves_the_key_of_what_was_given_to_somebody_else(
    new_store: NewStore, database: Database
) -> None:
    given = {**KEY, "session_id": "given"}
    store = new_store(metadata={"user_id": "u1"})
    await store.append(KEY, turn(1))
    await store.append(given, turn(2))
    await store.set_metadata(given, {"user_id": "u2"})
    await store.erase(metadata={"user_id": "u1"})
    assert await new_store().load(KEY) is None
    assert len(await new_store().load(given) or []) == 6
    assert await database["claude_encryption_keys"].distinct("subject") == ["u1"]
    await store.erase(metadata={"user_id": "u2"})
    await store.erase(metadata={"user_id": "u1"})
    assert await database["claude_encryption_keys"].distinct("subject") == []


@pytest.mark.parametrize("name", ["zstandard", "cryptography.exceptions"])
def test_what_is_not_installed_is_told_before_anything_is_stored(
    keys: LocalKeys, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    seal._library.cache_clear()
    with pytest.raises(ImportError, match=r"beanie-session-store\[encryption\]"):
        Encryption(keys)
