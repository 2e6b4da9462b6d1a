"""What is said in sessions is in no document, and all of the store works on it all the same."""

from __future__ import annotations

import logging
import random
import traceback
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import bson
import pytest
from claude_agent_sdk import fork_session_via_store, rename_session_via_store
from support.entries import KEY, SUBAGENT, assert_summary_is_the_fold, message, turn

from beanie_session_store import (
    EVERY,
    BeanieSessionStore,
    CorruptEntryError,
    DamagedSealError,
    EncryptionError,
    InvalidMetadataError,
    KeyDestroyedError,
    NewSession,
    NoKeysError,
    PlainContentsError,
    SealedQueryError,
    SessionErasedError,
    SessionSummary,
    WrongKeyError,
    diagnose,
    export_transcripts,
    import_transcripts,
    seal_sessions,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.encryption import keyring as keyring_module
from beanie_session_store.app.reading.glimpses import SessionReader
from beanie_session_store.app.transcripts.outline_fields import OUTLINE_FIELDS, outline_fields
from beanie_session_store.encryption import Encryption, LocalKeys

CANARY = "canary"
NewStore = Callable[..., BeanieSessionStore]


def canaries() -> list[dict[str, Any]]:
    """A session with the canary wherever an entry can say something."""
    place = {"cwd": f"/home/{CANARY}", "gitBranch": f"{CANARY}-branch"}
    call = {"type": "tool_use", "id": f"call-{CANARY}", "name": "Read", "input": {CANARY: CANARY}}
    said = {"role": "assistant", "model": "claude-x", "id": f"id-{CANARY}", "content": [call]}
    usage = {"input_tokens": 3, "output_tokens": 5}
    result = {"type": "tool_result", "tool_use_id": f"call-{CANARY}", "is_error": True}
    return [
        {"type": "summary", "summary": f"sum {CANARY}", "leafUuid": f"leaf-{CANARY}"},
        message(f"prompt {CANARY}", **place),
        {**message(), "type": "assistant", "message": {**said, "usage": usage}, **place},
        message(**{"message": {"role": "user", "content": [result]}, "toolUseResult": CANARY}),
        {"type": "custom-title", "customTitle": f"title {CANARY}", "sessionId": "session"},
        {"type": "ai-title", "aiTitle": f"ai {CANARY}", "sessionId": "session"},
        {"type": "tag", "tag": f"tag {CANARY}", "sessionId": "session"},
        {"type": "last-prompt", "lastPrompt": f"last {CANARY}", "sessionId": "session"},
        {"type": "file-history-snapshot", "snapshot": {f"/{CANARY}.txt": {"$ref": CANARY}}},
        {"type": f"type-{CANARY}", f"field {CANARY}": 2**70, "\0": CANARY},
    ]


async def stored_bytes(database: Database) -> bytes:
    """All documents of a database, as BSON."""
    found = b""
    for name in sorted(await database.list_collection_names()):
        async for document in database[name].find():
            found += bson.encode(document)
    return found


async def test_nothing_that_is_said_is_in_a_document(
    sealing: BeanieSessionStore, database: Database
) -> None:
    entries = canaries()
    await sealing.append(KEY, entries)
    await sealing.append(SUBAGENT, canaries())
    await sealing.append(KEY, [message(f"more {CANARY}")])
    found = await stored_bytes(database)
    assert len(found) > 4000
    assert CANARY.encode() not in found
    assert (await sealing.load(KEY) or [])[:-1] == entries


async def test_a_new_session_in_bulk_and_large_values_are_sealed_too(
    sealing: BeanieSessionStore, database: Database, smaller_limits: int
) -> None:
    whole = NewSession("project", "bulk", None, {"": canaries(), "subagents/agent-a1": canaries()})
    assert await sealing.insert_sessions([whole]) == [20]
    # Incompressible, so that it takes chunks.
    noise = CANARY + random.Random(5).randbytes(48_000_000 // smaller_limits).hex()
    await sealing.append(KEY, [message(CANARY, noise=noise, deep=2**70)])
    found = await stored_bytes(database)
    assert CANARY.encode() not in found
    assert await database["claude_transcript_chunks"].count_documents({}) > 1
    bulk = {"project_key": "project", "session_id": "bulk"}
    assert await sealing.load(bulk) == whole.transcripts[""]
    assert ((await sealing.load(KEY)) or [])[0]["noise"] == noise


async def test_all_that_is_read_is_what_was_said(
    sealing: BeanieSessionStore, new_store: NewStore, store: BeanieSessionStore
) -> None:
    plain = BeanieSessionStore(tenant="plain", metadata={"user_id": "u1"})
    for each in (plain, sealing):
        for number in range(3):
            await each.append(KEY, turn(number))
        await each.append(SUBAGENT, turn(9))
    entries = canaries()
    for each in (plain, sealing):
        await each.append(KEY, entries)
    other = new_store(required=True)
    assert (await other.load(KEY) or [])[-len(entries) :] == entries
    assert len(await _streamed(other, with_subagents=True)) == 34
    async with aclosing(other.watch(KEY)) as watched:
        assert await anext(watched) == (await other.load(KEY) or [])[0]
    await assert_summary_is_the_fold(other)
    sealed, told = await other.summary(KEY), await plain.summary(KEY)
    assert sealed is not None
    assert told is not None
    for name in ("title", "first_prompt", "branch", "cwd", "tag"):
        assert getattr(sealed, name) == getattr(told, name) is not None
    assert sealed.totals == told.totals
    (listed,) = (await other.sessions()).sessions
    assert listed.title == told.title
    (named,) = [each async for each in other.all_sessions()]
    assert named.title == told.title
    assert named.metadata == {"user_id": "u1"}
    assert [each.group for each in await other.usage()] == [{"model": "claude-x"}]
    transcript = await other.transcript(KEY)
    assert transcript is not None
    assert [call.name for call in transcript.tool_calls] == ["Read"]
    assert (await other.verify(KEY)).is_sound
    assert (await other.sessions(figures_only=True)).sessions[0].title is None
    assert await other.session_named("sess") == named


async def test_what_comes_again_is_recognised(
    sealing: BeanieSessionStore, new_store: NewStore
) -> None:
    batch = turn(1)
    await sealing.append(KEY, batch)
    await new_store().append(KEY, batch)
    assert await sealing.load(KEY) == batch


async def test_forks_and_titles_of_the_sdk(
    sealing: BeanieSessionStore, new_store: NewStore, database: Database
) -> None:
    first = "00000000-0000-4000-8000-000000000001"
    key = {"project_key": "-tmp", "session_id": first}
    lines = [message(f"{CANARY} {number}", sessionId=first) for number in range(3)]
    await sealing.append(key, lines)
    await rename_session_via_store(sealing, first, f"name {CANARY}", directory="/tmp")
    forked = await fork_session_via_store(sealing, first, directory="/tmp")
    fork = {"project_key": "-tmp", "session_id": forked.session_id}
    assert CANARY in str(await new_store(required=True).load(fork))
    summary = await new_store(required=True).summary(key)
    assert summary is not None
    assert summary.title == f"name {CANARY}"
    assert CANARY.encode() not in await stored_bytes(database)


async def test_exports_and_imports(
    sealing: BeanieSessionStore, new_store: NewStore, database: Database, tmp_path: Path
) -> None:
    entries = canaries()
    await sealing.append(KEY, entries)
    await export_transcripts(sealing, tmp_path / "out")
    report = await import_transcripts(new_store(tenant="other", required=True), tmp_path / "out")
    assert report.entries == len(entries)
    assert await new_store(tenant="other").load(KEY) == entries
    assert CANARY.encode() not in await stored_bytes(database)


async def test_repair_seals_what_it_makes_anew(
    sealing: BeanieSessionStore, new_store: NewStore, database: Database
) -> None:
    await sealing.append(KEY, canaries())
    summaries = database["claude_transcript_summaries"]
    key_id = (await _summary(database))["sealed"][:14]
    await summaries.delete_many({})
    await new_store(metadata=None).repair(KEY)
    assert (await new_store(required=True).verify(KEY)).is_sound
    assert (await _summary(database))["sealed"][:14] == key_id
    assert CANARY.encode() not in await stored_bytes(database)


async def test_a_deleted_subagent_leaves_a_sealed_summary(
    sealing: BeanieSessionStore, new_store: NewStore, database: Database
) -> None:
    await sealing.append(KEY, canaries())
    await sealing.append(SUBAGENT, canaries())
    await new_store().delete(SUBAGENT)
    assert (await new_store(required=True).verify(KEY)).is_sound
    assert CANARY.encode() not in await stored_bytes(database)


async def test_windows_outlines_and_words_of_pages(
    sealing: BeanieSessionStore, new_store: NewStore
) -> None:
    entries = [*canaries(), message("long " * 40_000)]
    plain = BeanieSessionStore(tenant="plain")
    for each in (plain, sealing):
        await each.append(KEY, entries)
    reader, other = new_store(required=True).reader(KEY), plain.reader(KEY)
    window, told = await reader.window(1, 50), await other.window(1, 50)
    assert [each.entry for each in window[:-1]] == [each.entry for each in told[:-1]]
    cut = window[-1]
    assert not cut.is_whole
    assert cut.entry["message"]["content"] == ("long " * 40_000)[:4000]
    assert [each.entry for each in await reader.since(2, 3)] == entries[2:5]
    found = [each async for each in reader.stored(lambda data: b"title" in data)]
    assert [each.entry for each in found] == entries

    async def rows(reader: SessionReader) -> list[dict[str, Any]]:
        fields = OUTLINE_FIELDS
        return [each async for each in reader.rows(fields, of_entry=outline_fields)]

    for row, plainly in zip(await rows(reader), await rows(other), strict=True):
        # What is packed the server cannot look into in either.
        assert row == plainly or "type" not in plainly
    shapes: list[dict[str, Any]] = [*entries, {}, {"message": []}]
    odd: list[Any] = [
        None,
        {},
        5,
        "text",
        [1, {"type": 2}, [{}]],
        [{"text": 1}, "x", {"text": "t"}],
    ]
    shapes += [{"type": "user", "message": {"content": value}} for value in odd]
    key = {**KEY, "session_id": "shapes"}
    await plain.append(key, shapes)
    for row, entry in zip(await rows(plain.reader(key)), shapes, strict=True):
        place = {"seq": row["seq"], "subpath": ""}
        assert "type" not in row or row == {**outline_fields(entry), **place}


async def test_each_subject_of_each_tenant_has_a_key(
    sealing: BeanieSessionStore, new_store: NewStore, database: Database
) -> None:
    stores = [
        sealing,
        new_store(metadata={"user_id": "u2"}),
        new_store(metadata={"user_id": 3}),
        new_store(metadata=None),
        new_store(tenant="other"),
    ]
    for number, store in enumerate(stores):
        await store.append({**KEY, "session_id": f"s{number}"}, [message()])
        await store.append({**KEY, "session_id": f"again{number}"}, [message()])
    owners = [
        (key["tenant"], key["subject"]) async for key in database["claude_encryption_keys"].find()
    ]
    assert sorted(owners) == [
        ("default", ""),
        ("default", "3"),
        ("default", "u1"),
        ("default", "u2"),
        ("other", "u1"),
    ]


@pytest.mark.parametrize("value", [True, 1.5, ["u1"], {"a": 1}, "\ud83d", "x\0", "x" * 2000])
def test_what_cannot_tell_a_subject_is_refused(encryption: Encryption, value: Any) -> None:
    with pytest.raises(InvalidMetadataError, match="nothing was stored"):
        BeanieSessionStore(metadata={"user_id": value}, encryption=encryption)


def test_what_is_no_encryption_is_refused() -> None:
    for wrong in ("keys", True, object()):
        with pytest.raises(TypeError, match="nothing was stored"):
            BeanieSessionStore(encryption=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "asked",
    [
        {"title": "x"},
        {"tag": "x"},
        {"branch": "x"},
        {"criteria": {"title": "x"}},
        {"criteria": {"$or": [{"cwd": "x"}]}},
        {"criteria": {"$expr": {"$eq": ["$first_prompt", "x"]}}},
        {"criteria": {"data.first_prompt": "x"}},
    ],
)
async def test_no_question_about_what_is_sealed_is_answered(
    sealing: BeanieSessionStore, asked: dict[str, Any]
) -> None:
    criteria = [asked["criteria"]] if "criteria" in asked else []
    named = {name: value for name, value in asked.items() if name != "criteria"}
    with pytest.raises(SealedQueryError, match="encrypts that"):
        await sealing.sessions(*criteria, **named)
    with pytest.raises(SealedQueryError):
        await sealing.delete_sessions(*criteria, **named)


async def test_search_and_groups_of_texts_are_refused(sealing: BeanieSessionStore) -> None:
    with pytest.raises(SealedQueryError, match="Cannot search"):
        await sealing.search("x")
    for by in ("branch", "tag"):
        with pytest.raises(SealedQueryError):
            await sealing.usage(by=by)
    await sealing.append(KEY, turn(1))
    assert (await sealing.sessions(metadata={"user_id": "u1"})).sessions
    assert (await sealing.sessions(SessionSummary.totals.turns > 0)).sessions


async def _streamed(store: BeanieSessionStore, **options: Any) -> list[dict[str, Any]]:
    async with aclosing(store.stream(KEY, **options)) as stream:
        return [entry async for entry in stream]


# Documents that are not what was stored.

MINE = {"tenant": "default", "session_id": "session"}


async def _summary(database: Database) -> dict[str, Any]:
    found = await database["claude_transcript_summaries"].find_one({"session_id": "session"})
    assert found is not None
    return found


async def _swap_entries(database: Database) -> None:
    entries = database["claude_transcript_entries"]
    one, two = await entries.find(MINE, sort=[("seq", 1)]).to_list(2)
    await entries.update_one({"_id": one["_id"]}, {"$set": {"packed": two["packed"]}})
    await entries.update_one({"_id": two["_id"]}, {"$set": {"packed": one["packed"]}})


async def _cut_entry(database: Database) -> None:
    entries = database["claude_transcript_entries"]
    one = await entries.find_one(MINE)
    assert one is not None
    await entries.update_one({"_id": one["_id"]}, {"$set": {"packed": one["packed"][:-1]}})


async def _cut_to_nothing(database: Database) -> None:
    entries = database["claude_transcript_entries"]
    await entries.update_one(MINE, {"$set": {"packed": b"\x02"}})


async def _replay_entry(database: Database) -> None:
    """One that was said comes once more, behind the last."""
    entries = database["claude_transcript_entries"]
    one = await entries.find_one(MINE, {"_id": 0, "uuid": 0, "counted": 0})
    assert one is not None
    await entries.insert_one({**one, "seq": 100})


async def _of_another_tenant(database: Database) -> None:
    entries = database["claude_transcript_entries"]
    other = await entries.find_one({"tenant": "other"})
    assert other is not None
    await entries.update_one(MINE, {"$set": {"packed": other["packed"]}})


async def _of_another_session(database: Database) -> None:
    entries = database["claude_transcript_entries"]
    other = await entries.find_one({"tenant": "default", "session_id": "second"})
    assert other is not None
    this = {"tenant": "default", "session_id": "session", "seq": other["seq"]}
    await entries.update_one(this, {"$set": {"packed": other["packed"]}})


async def _of_another_transcript(database: Database) -> None:
    entries = database["claude_transcript_entries"]
    this = {"tenant": "default", "session_id": "session", "subpath": ""}
    await entries.update_one(this, {"$set": {"subpath": "subagents/agent-x", "seq": 1}})
    await entries.update_many({**this, "subpath": "subagents/agent-x"}, {"$set": {"subpath": ""}})
    other = await entries.find_one({**this, "seq": 2})
    assert other is not None
    flipped = bytes((other["packed"][-1] ^ 1,))
    packed = other["packed"][:-1] + flipped
    await entries.update_one({"_id": other["_id"]}, {"$set": {"packed": packed}})


HOSTILE = [
    _swap_entries,
    _cut_entry,
    _cut_to_nothing,
    _replay_entry,
    _of_another_tenant,
    _of_another_session,
    _of_another_transcript,
]


@pytest.mark.parametrize("change", HOSTILE)
async def test_a_document_of_another_place_is_refused(
    sealing: BeanieSessionStore, new_store: NewStore, database: Database, change: Any
) -> None:
    await sealing.append(KEY, [message(CANARY), message(CANARY)])
    await sealing.append({**KEY, "session_id": "second"}, [message(CANARY)])
    await new_store(tenant="other").append(KEY, [message(CANARY)])
    await change(database)
    before = await stored_bytes(database)
    store = new_store()
    with pytest.raises(DamagedSealError) as caught:
        await store.load(KEY)
    assert isinstance(caught.value, CorruptEntryError)
    with pytest.raises(DamagedSealError):
        await _streamed(store)
    with pytest.raises(DamagedSealError):
        await store.verify(KEY)
    assert await stored_bytes(database) == before
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("field", "how"),
    [
        *(("sealed", how) for how in ("cut", "old", "second", "plain")),
        # An older fold of the session itself opens; verify() tells it.
        *(("packed_data", how) for how in ("cut", "second", "plain")),
    ],
)
async def test_a_summary_of_another_moment_or_session_is_refused(
    sealing: BeanieSessionStore, new_store: NewStore, database: Database, field: str, how: str
) -> None:
    await sealing.append(KEY, turn(1))
    old = await _summary(database)
    await sealing.append(KEY, turn(2))
    await sealing.append({**KEY, "session_id": "second"}, turn(1))
    summaries = database["claude_transcript_summaries"]
    now = await _summary(database)
    second = await summaries.find_one({"session_id": "second"})
    assert second is not None
    change: dict[str, Any] = {"$set": {field: now[field][:-1]}}
    if how == "old":
        change = {"$set": {field: old[field]}}
    elif how == "second":
        change = {"$set": {field: second[field]}}
    elif how == "plain":
        plain = {"sealed": {"title": "x"}, "packed_data": {"data": {"first_prompt": "x"}}}
        change = {"$set": plain[field], "$unset": {field: ""}}
    await summaries.update_one({"session_id": "session"}, change)
    before = await stored_bytes(database)
    store = new_store(required=True)
    expected = PlainContentsError if how == "plain" else DamagedSealError
    with pytest.raises(expected):
        await store.append(KEY, turn(3))
    with pytest.raises(expected):
        await store.verify(KEY)
    if field == "packed_data":
        with pytest.raises(expected):
            await store.list_session_summaries("project")
    assert await stored_bytes(database) == before
    # Whoever asks for it has it made anew from the entries, each of which is proved.
    assert not (await store.repair(KEY)).is_sound
    assert (await new_store(required=True).verify(KEY)).is_sound
    await store.append(KEY, turn(3))


async def test_an_older_fold_of_the_session_is_told_by_verify(
    sealing: BeanieSessionStore, new_store: NewStore, database: Database
) -> None:
    await sealing.append(KEY, turn(1))
    old = await _summary(database)
    await sealing.append(KEY, turn(2))
    change = {"$set": {"packed_data": old["packed_data"]}}
    await database["claude_transcript_summaries"].update_one({}, change)
    found = await new_store().verify(KEY)
    assert [each.field for each in found.differences] == ["data"]


@pytest.mark.parametrize("packed", [False, True])
async def test_what_was_made_plain_is_refused_where_a_seal_is_demanded(
    sealing: BeanieSessionStore, new_store: NewStore, database: Database, packed: bool
) -> None:
    await sealing.append(KEY, [message("one"), message("two")])
    plain = BeanieSessionStore(tenant="plain")
    await plain.append(KEY, [{"\0": 2**70} if packed else message("injected")])
    entries = database["claude_transcript_entries"]
    injected = await entries.find_one({"tenant": "plain"}, {"_id": 0, "entry": 1, "packed": 1})
    assert injected is not None
    gone = {"$unset": {"packed": ""}} if not packed else {}
    await entries.update_one({"tenant": "default"}, {"$set": injected, **gone})
    before = await stored_bytes(database)
    store = new_store(required=True)
    with pytest.raises(PlainContentsError, match="nothing was changed"):
        await store.load(KEY)
    with pytest.raises(PlainContentsError):
        await store.transcript(KEY)
    with pytest.raises(PlainContentsError):
        await _streamed(store)
    (first, second) = await store.reader(KEY).window(1, 10)
    assert first.entry == {}
    assert first.problem is not None
    assert second.entry["message"]["content"] == "two"
    assert await stored_bytes(database) == before
    assert len(await new_store().load(KEY) or []) == 2


async def test_with_a_wrong_key_nothing_is_read_deleted_or_overwritten(
    sealing: BeanieSessionStore, database: Database, tmp_path: Path
) -> None:
    await sealing.append(KEY, canaries())
    before = await stored_bytes(database)
    wrong = Encryption(LocalKeys.generate(tmp_path / "wrong"), subject="user_id")
    store = BeanieSessionStore(metadata={"user_id": "u1"}, encryption=wrong)
    calls: list[Callable[[], Any]] = [
        lambda: store.load(KEY),
        lambda: store.append(KEY, turn(1)),
        lambda: store.append({**KEY, "session_id": "new"}, turn(1)),
        lambda: store.verify(KEY),
        lambda: store.repair(KEY),
        lambda: store.transcript(KEY),
        lambda: store.list_session_summaries("project"),
        lambda: store.sessions(),
        lambda: store.seal(KEY),
        lambda: store.rotate_keys(),
    ]
    for call in calls:
        with pytest.raises(WrongKeyError) as caught:
            await call()
        assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert await stored_bytes(database) == before
    assert len(await sealing.load(KEY) or []) == len(canaries())


async def test_keys_that_are_elsewhere_are_missed_by_name(
    sealing: BeanieSessionStore, new_store: NewStore, database: Database, keys: LocalKeys
) -> None:
    await sealing.append(KEY, turn(1))
    elsewhere = Encryption(keys, database=database.client[f"{database.name}_keys"])
    with pytest.raises(WrongKeyError, match="in another database"):
        await BeanieSessionStore(encryption=elsewhere).load(KEY)


async def test_keys_may_be_in_another_database(
    new_store: NewStore, database: Database, keys: LocalKeys
) -> None:
    place = database.client[f"{database.name}_keys"]
    try:
        store = new_store(encryption=Encryption(keys, subject="user_id", database=place))
        await store.append(KEY, turn(1))
        assert await place["claude_encryption_keys"].count_documents({}) == 1
        assert "claude_encryption_keys" not in await database.list_collection_names()
        again = new_store(encryption=Encryption(keys, subject="user_id", database=place))
        assert len(await again.load(KEY) or []) == 6
    finally:
        await database.client.drop_database(place.name)


async def test_a_destroyed_key_makes_its_subject_unreadable_and_nobody_else(
    sealing: BeanieSessionStore, new_store: NewStore, database: Database
) -> None:
    other = new_store(metadata={"user_id": "u2"})
    await sealing.append(KEY, canaries())
    second = {**KEY, "session_id": "second"}
    await other.append(second, turn(1))
    assert await other.destroy_key("u1")
    assert not await other.destroy_key("u1")
    gone = {"destroyed_at": {"$ne": None}}
    keys = [key async for key in database["claude_encryption_keys"].find(gone)]
    assert [sorted(key) for key in keys] == [["_id", "created_at", "destroyed_at", "tenant"]]
    before = await stored_bytes(database)
    store = new_store()
    with pytest.raises(KeyDestroyedError, match="nobody can read it any more"):
        await store.load(KEY)
    with pytest.raises(KeyDestroyedError):
        await store.append(KEY, turn(2))
    assert sorted(each["session_id"] for each in await store.list_sessions("project")) == [
        "second",
        "session",
    ]
    (listed,) = await store.list_session_summaries("project")
    assert listed["session_id"] == "second"
    titles = {each.session_id: each.first_prompt for each in (await store.sessions()).sessions}
    assert titles == {"session": None, "second": "prompt 1"}
    assert await stored_bytes(database) == before
    # Who comes back gets a new key.
    await store.delete(KEY)
    await store.append(KEY, turn(3))
    assert len(await new_store().load(KEY) or []) == 6


async def test_who_begins_anew_does_not_begin_with_a_destroyed_key(
    sealing: BeanieSessionStore, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring_module, "_CHECKED_SECONDS", 0.0)
    await sealing.append(KEY, turn(1))
    assert await new_store().destroy_key("u1")
    second = {**KEY, "session_id": "second"}
    # This one has the old key in memory.
    await sealing.append(second, turn(2))
    assert len(await new_store().load(second) or []) == 6


async def test_an_erasure_destroys_the_key_at_last(
    sealing: BeanieSessionStore, new_store: NewStore, database: Database
) -> None:
    await sealing.append(KEY, canaries())
    others = {**KEY, "session_id": "others"}
    await new_store(metadata={"user_id": "u2"}).append(others, turn(1))
    held = {**KEY, "session_id": "held"}
    await sealing.append(held, turn(1))
    await sealing.hold(held)
    keys = database["claude_encryption_keys"]
    await sealing.erase(metadata={"user_id": "u1"})
    # What is held must stay readable.
    assert await keys.count_documents({"destroyed_at": {"$exists": True}}) == 0
    assert len(await new_store().load(held) or []) == 6
    await sealing.release(held)
    assert len((await sealing.erase(metadata={"user_id": "u1"}, dry_run=True)).sessions) == 1
    assert await keys.count_documents({"destroyed_at": {"$exists": True}}) == 0
    receipt = await sealing.erase(metadata={"user_id": "u1"})
    assert (await sealing.verify_erasure(receipt)).holds
    assert await keys.distinct("subject") == ["u2"]
    assert len(await new_store().load(others) or []) == 6
    with pytest.raises(SessionErasedError):
        await sealing.append(KEY, turn(1))
    await sealing.erase(EVERY)
    assert await keys.distinct("subject") == []


async def test_a_store_without_keys_says_so_and_changes_nothing(
    sealing: BeanieSessionStore, store: BeanieSessionStore, database: Database
) -> None:
    await sealing.append(KEY, canaries())
    await sealing.append(SUBAGENT, canaries())
    await sealing.append({**SUBAGENT, "session_id": "only"}, [{"type": "mode"}])
    before = await stored_bytes(database)
    only = {**KEY, "session_id": "only"}
    calls: list[Callable[[], Any]] = [
        lambda: store.load(KEY),
        lambda: store.append(KEY, turn(1)),
        lambda: store.append(only, turn(1)),
        lambda: store.verify(KEY),
        lambda: store.transcript(KEY),
        lambda: store.list_session_summaries("project"),
        lambda: store.destroy_key("u1"),
        lambda: store.seal(KEY),
    ]
    for call in calls:
        with pytest.raises(NoKeysError, match="no keys"):
            await call()
    assert await stored_bytes(database) == before
    assert (await store.sessions()).sessions[0].title is None
    assert [each.title async for each in store.all_sessions()] == [None, None]


# While a team turns it on.


async def test_what_is_plain_is_read_and_gone_on_with_sealed(
    store: BeanieSessionStore, new_store: NewStore, database: Database
) -> None:
    before = [message("old"), *turn(1)]
    await store.append(KEY, before)
    sealing = new_store()
    entries = canaries()
    await sealing.append(SUBAGENT, entries)
    await sealing.append(KEY, entries)
    assert await new_store().load(KEY) == [*before, *entries]
    assert (await new_store().verify(KEY)).is_sound
    assert CANARY.encode() not in await stored_bytes(database)
    summary = await _summary(database)
    assert not {"data", "title", "first_prompt", "branch", "cwd", "tag"} & summary.keys()
    with pytest.raises(PlainContentsError):
        await new_store(required=True).load(KEY)


async def test_what_is_plain_is_no_session_where_a_seal_is_demanded(
    store: BeanieSessionStore, new_store: NewStore, database: Database
) -> None:
    await store.append(KEY, turn(1))
    before = await stored_bytes(database)
    with pytest.raises(PlainContentsError):
        await new_store(required=True).append(KEY, turn(2))
    with pytest.raises(PlainContentsError):
        await new_store(required=True).list_session_summaries("project")
    assert await stored_bytes(database) == before


async def test_sealing_what_is_plain(
    store: BeanieSessionStore, new_store: NewStore, database: Database, smaller_limits: int
) -> None:
    entries = canaries()
    noise = random.Random(5).randbytes(48_000_000 // smaller_limits).hex()
    large = message(CANARY, noise=noise, deep=2**70)
    mine = BeanieSessionStore(metadata={"user_id": "u9"})
    await mine.append(KEY, entries)
    await mine.append(KEY, [large])
    await mine.append(SUBAGENT, canaries())
    await mine.append({**SUBAGENT, "session_id": "only"}, canaries())
    report = await seal_sessions(new_store())
    assert (report.sessions, report.entries, report.failed) == (2, 31, 0)
    assert CANARY.encode() not in await stored_bytes(database)
    again = await seal_sessions(new_store())
    assert (again.sessions, again.entries, again.failed) == (2, 0, 0)
    strict = new_store(required=True)
    assert await strict.load(KEY) == [*entries, large]
    assert (await strict.verify(KEY)).is_sound
    assert (await strict.verify({**KEY, "session_id": "only"})).is_sound
    await strict.append(KEY, turn(1))
    subjects = [key["subject"] async for key in database["claude_encryption_keys"].find()]
    assert subjects == ["u9"]


async def test_rotation_wraps_all_keys_anew(
    sealing: BeanieSessionStore, new_store: NewStore, keys: LocalKeys, database: Database
) -> None:
    for number in range(5):
        store = new_store(metadata={"user_id": f"u{number}"})
        await store.append({**KEY, "session_id": f"s{number}"}, turn(number))
    keys.add()
    seen: list[int] = []
    found = await sealing.rotate_keys(on_progress=lambda each: seen.append(each.rewrapped))
    assert (found.keys, found.rewrapped) == (5, 5)
    assert seen == [5]
    status = await sealing.key_status()
    assert status.by_wrapping_key == {found.current: 5}
    assert (await sealing.rotate_keys()).rewrapped == 0
    assert len(await new_store().load({**KEY, "session_id": "s3"}) or []) == 6


async def test_doctor_tells_what_is_plain_beside_what_is_encrypted(
    store: BeanieSessionStore, new_store: NewStore, database: Database
) -> None:
    async def said() -> tuple[str, str]:
        finding = (await diagnose(database)).of("encryption")
        assert finding is not None
        return finding.verdict, finding.found

    await store.append(KEY, turn(1))
    assert await said() == ("good", "nothing is encrypted")
    await new_store().append({**KEY, "session_id": "second"}, turn(1))
    assert await said() == ("warning", "1 of the last 2 sessions plain beside encrypted ones")
    await seal_sessions(new_store())
    verdict, found = await said()
    assert verdict == "good"
    assert "in this database" in found


async def test_nothing_that_was_said_or_a_key_is_logged(
    sealing: BeanieSessionStore,
    new_store: NewStore,
    database: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="beanie_session_store")
    await sealing.append(KEY, canaries())
    await _swap_entries(database)
    with pytest.raises(EncryptionError):
        await new_store().load(KEY)
    summaries = database["claude_transcript_summaries"]
    await summaries.update_one({}, {"$set": {"sealed": b"\x02\x01" + bytes(80)}})
    with pytest.raises(EncryptionError):
        await new_store().append(KEY, turn(1))
    assert CANARY not in caplog.text
