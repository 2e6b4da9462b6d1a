"""Calls for one session take turns in their order, whatever becomes of those that wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from beanie_session_store.app.transcript_key import TranscriptKey
from beanie_session_store.app.writing.write_turns import WriteTurns

SESSION = TranscriptKey("tenant", "project", "session")
SUBAGENT = SESSION.with_subpath("subagents/agent-1")
OTHER = TranscriptKey("tenant", "project", "other")


class Calls:
    """Calls that each hold their turn until they are told to end."""

    def __init__(self) -> None:
        self.turns = WriteTurns()
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, name: str, key: TranscriptKey) -> None:
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._call(name, key))
        await asyncio.sleep(0)

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)

    async def _call(self, name: str, key: TranscriptKey) -> None:
        async with self.turns.turn(key):
            self.begun.append(name)
            await self.ends[name].wait()


@pytest.fixture
async def calls() -> AsyncIterator[Calls]:
    calls = Calls()
    yield calls
    for name, task in calls.tasks.items():
        calls.ends[name].set()
        await asyncio.gather(task, return_exceptions=True)
    assert calls.turns._waiting == {}


async def test_calls_for_one_session_come_in_order_and_others_do_not_wait(calls: Calls) -> None:
    await calls.start("first", SESSION)
    await calls.start("second", SUBAGENT)
    await calls.start("third", SESSION)
    await calls.start("other", OTHER)
    assert calls.begun == ["first", "other"]
    await calls.end("first")
    assert calls.begun == ["first", "other", "second"]
    # It comes while somebody waits already, so it comes last.
    await calls.start("fourth", SESSION)
    await calls.end("second")
    await calls.end("third")
    assert calls.begun == ["first", "other", "second", "third", "fourth"]


async def test_who_is_cancelled_while_it_waits_holds_nobody_up(calls: Calls) -> None:
    for name in ("first", "second", "third"):
        await calls.start(name, SESSION)
    calls.tasks["second"].cancel()
    await calls.end("first")
    assert calls.begun == ["first", "third"]
    assert calls.tasks["second"].cancelled()


async def test_who_is_cancelled_as_its_turn_comes_passes_it_on(calls: Calls) -> None:
    for name in ("first", "second", "third"):
        await calls.start(name, SESSION)
    calls.ends["first"].set()
    # The first call ends in this turn of the loop, and the second goes on in the next one.
    await asyncio.sleep(0)
    calls.tasks["second"].cancel()
    await asyncio.gather(calls.tasks["second"], return_exceptions=True)
    await asyncio.sleep(0)
    assert calls.begun == ["first", "third"]


async def test_a_call_that_fails_gives_up_its_turn(calls: Calls) -> None:
    with pytest.raises(ZeroDivisionError):
        async with calls.turns.turn(SESSION):
            raise ZeroDivisionError
    await calls.start("next", SESSION)
    assert calls.begun == ["next"]
