"""Entries one at a time: resumable, steady over failures, in constant memory."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
from support.entries import KEY, SUBAGENT, message, turn
from support.server import failing

from beanie_session_store import (
    BeanieSessionStore,
    InvalidKeyError,
    SessionChangedError,
    StreamedEntry,
)
from beanie_session_store.app.database.driver import Database


async def test_stream_equals_load(store: BeanieSessionStore) -> None:
    for number in range(50):
        await store.append(KEY, turn(number))
        await store.append(SUBAGENT, turn(number))
    for key in (KEY, SUBAGENT):
        assert [entry async for entry in store.stream(key)] == await store.load(key)


async def test_stream_of_an_unknown_session_is_empty(store: BeanieSessionStore) -> None:
    assert [entry async for entry in store.stream(KEY)] == []


async def test_reader_goes_on_behind_the_entry_it_saw_last(store: BeanieSessionStore) -> None:
    await store.append(KEY, turn(1))
    await store.append(SUBAGENT, turn(2))
    await store.append(KEY, turn(3))
    seen: list[StreamedEntry] = []
    while True:
        after = seen[-1].seq if seen else None
        part = [entry async for entry in store.stream(KEY, after=after)][:5]
        if not part:
            break
        seen += part
    assert seen == await store.load(KEY)
    assert [entry.seq for entry in seen] == [*range(1, 7), *range(13, 19)]


@pytest.mark.parametrize("after", ["1", 1.5, True, {"$gt": 0}])
async def test_a_position_that_is_none_is_refused(store: BeanieSessionStore, after: object) -> None:
    with pytest.raises(InvalidKeyError, match="after must be"):
        store.stream(KEY, after=after)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param({"closeConnection": True}, id="connection-lost"),
        pytest.param({"errorCode": 43}, id="cursor-lost"),
        pytest.param({"errorCode": 239}, id="snapshot-too-old"),
        pytest.param({"errorCode": 246}, id="snapshot-unavailable"),
    ],
)
@pytest.mark.parametrize("read", ["stream", "load"])
async def test_a_lost_cursor_is_not_noticed(
    store: BeanieSessionStore, database: Database, failure: dict, read: str
) -> None:
    batch = [message(str(number)) for number in range(450)]
    await store.append(KEY, batch)
    async with failing(database, "getMore", **failure):
        if read == "load":
            assert await store.load(KEY) == batch
        else:
            assert [entry async for entry in store.stream(KEY)] == batch


async def test_entries_appended_meanwhile_come_whole_or_not(
    store: BeanieSessionStore, database: Database
) -> None:
    batch = [message(str(number)) for number in range(300)]
    await store.append(KEY, batch)
    seen = []
    async for entry in store.stream(KEY):
        seen.append(entry)
        if len(seen) == 50:
            await BeanieSessionStore().append(KEY, batch[:1] + turn(1))
    assert len(seen) in (300, 306)
    assert seen[:300] == batch


async def test_stream_of_a_session_deleted_meanwhile_says_so(
    store: BeanieSessionStore, database: Database
) -> None:
    """A cursor lost after the delete must not end as if the transcript ended there."""
    batch = [message(str(number)) for number in range(450)]
    await store.append(KEY, batch)
    stream = store.stream(KEY)
    seen = [await anext(stream) for _ in range(50)]
    await store.delete(KEY)
    await store.append(KEY, turn(1))
    async with failing(database, "getMore", errorCode=43):
        with pytest.raises(SessionChangedError, match="deleted"):
            seen.extend([entry async for entry in stream])
    assert seen == batch[:50]


async def test_stream_holds_one_batch_of_the_cursor_at_most(store: BeanieSessionStore) -> None:
    block = "x" * 1_000_000
    for number in range(45):
        await store.append(KEY, [message(f"{number}{block}") for _ in range(3)])
    count = 0
    tracemalloc.start()
    try:
        async for entry in store.stream(KEY):
            count += len(entry["message"]["content"]) > 1_000_000
            await asyncio.sleep(0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 135
    # One batch of a cursor is 16 MB at most; it, its decoded form and those of the one before
    # are there at once. All entries together are 135 MB.
    assert peak < 100_000_000


async def test_a_transcript_of_several_answers_comes_whole_and_in_order(
    store: BeanieSessionStore, database: Database
) -> None:
    # One answer of the server holds 16 MiB.
    written = [message(f"{number} " + "x" * 1_000_000) for number in range(45)]
    for start in range(0, len(written), 9):
        await store.append(KEY, written[start : start + 9])
    await store.append({**KEY, "session_id": "session-behind"}, [message("another")])
    left_open = await cursors(database)
    assert await store.load(KEY) == written
    assert await cursors(database) <= left_open


async def cursors(database: Database) -> int:
    status = await database.command("serverStatus")
    return status["metrics"]["cursor"]["open"]["total"]


async def test_a_delete_between_two_answers_does_not_cut_a_transcript_short(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [message(f"{number} " + "x" * 1_000_000) for number in range(20)]
    await store.append(KEY, written)
    database_class = type(database)
    command = database_class.command
    asked: list[Any] = []

    async def delete_meanwhile(self: Any, sent: Any, *arguments: Any, **options: Any) -> Any:
        answer = await command(self, sent, *arguments, **options)
        if isinstance(sent, dict) and sent.get("find") == "claude_transcript_entries":
            asked.append(sent)
            if len(asked) == 1:
                await BeanieSessionStore().delete(KEY)
        return answer

    monkeypatch.setattr(database_class, "command", delete_meanwhile)
    assert await store.load(KEY) == written
    # Two answers, of which the first says where the second one begins.
    assert len(asked) == 2
    monkeypatch.undo()
    assert await store.load(KEY) is None
