"""The whole protocol against a model that is a dict of lists, over random sequences of calls."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from itertools import count
from typing import Any, ClassVar, TypeVar

import hypothesis.strategies as st
import pytest
from claude_agent_sdk import fold_session_summary
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from beanie_session_store import BeanieSessionStore

PROJECT = "project"
T = TypeVar("T")
Entry = dict[str, Any]
Transcript = tuple[str, str]

SESSIONS = st.sampled_from(["s1", "s2"])
# Mostly one transcript, so that what is done to it meets what was done before.
TRANSCRIPTS = st.sampled_from([("s1", ""), ("s1", ""), ("s1", "subagents/agent-a1"), ("s2", "")])
# Half of real traffic has no uuid, and of that most repeats itself.
KINDS = st.lists(st.sampled_from(["message", "odd", "title", "tag", "mode", "mode"]), max_size=5)
ODD = {"\0": ["\ud83d", 2**70], "$ref": "x", "$id": 1}
_numbers = count()


def new_entry(kind: str) -> Entry:
    number = next(_numbers)
    if kind == "mode":
        return {"type": "mode", "mode": "plan"}
    if kind == "title":
        return {"type": "custom-title", "customTitle": f"title {number}"}
    if kind == "tag":
        return {"type": "tag", "tag": f"tag {number}" if number % 3 else ""}
    entry = {
        "type": "user",
        "uuid": f"uuid-{number}",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "message": {"role": "user", "content": f"text {number}"},
    }
    return entry | (ODD if kind == "odd" else {})


def new_batch(kinds: list[str]) -> list[Entry]:
    """A batch with at least one uuid, by which it is known when it comes again."""
    return [*map(new_entry, kinds), new_entry("message")]


class StoreModel(RuleBasedStateMachine):
    """Two stores of one tenant, as on two hosts, and one of another tenant."""

    loop: ClassVar[asyncio.AbstractEventLoop]

    def __init__(self) -> None:
        super().__init__()
        tenant = f"tenant-{next(_numbers)}"
        self.stores = [BeanieSessionStore(tenant=tenant) for _ in range(2)]
        self.stranger = BeanieSessionStore(tenant=f"{tenant}-stranger")
        self.entries: dict[Transcript, list[Entry]] = defaultdict(list)
        self.batches: dict[Transcript, list[list[Entry]]] = defaultdict(list)
        self.mtimes: dict[str, int] = {}

    def run(self, call: Awaitable[T]) -> T:
        return self.loop.run_until_complete(call)

    def append(
        self, host: int, transcript: Transcript, batch: list[Entry], new: Sequence[Entry] = ()
    ) -> None:
        """Append a batch of which ``new`` is not stored yet."""
        self.run(self.stores[host].append(key(transcript), batch))
        self.entries[transcript] += new
        self.check(transcript)

    def check(self, transcript: Transcript) -> None:
        for store in self.stores:
            assert self.run(store.load(key(transcript))) == (self.entries[transcript] or None)

    @rule(host=st.integers(0, 1), transcript=TRANSCRIPTS, kinds=KINDS)
    def append_new(self, host: int, transcript: Transcript, kinds: list[str]) -> None:
        batch = new_batch(kinds)
        self.append(host, transcript, batch, batch)
        self.batches[transcript].append(batch)

    @rule(host=st.integers(0, 1), transcript=TRANSCRIPTS)
    def append_without_uuid(self, host: int, transcript: Transcript) -> None:
        batch = [new_entry("title")]
        self.append(host, transcript, batch, batch)

    @rule(host=st.integers(0, 1), transcript=TRANSCRIPTS)
    def append_nothing(self, host: int, transcript: Transcript) -> None:
        self.append(host, transcript, [])

    @rule(host=st.integers(0, 1), transcript=TRANSCRIPTS, which=st.integers(0))
    def replay(self, host: int, transcript: Transcript, which: int) -> None:
        if batches := self.batches[transcript]:
            self.append(host, transcript, batches[which % len(batches)])

    @rule(host=st.integers(0, 1), transcript=TRANSCRIPTS, size=st.integers(1, 9))
    def import_again(self, host: int, transcript: Transcript, size: int) -> None:
        entries = list(self.entries[transcript])
        if entries and "uuid" in entries[0]:
            for start in range(0, len(entries), size):
                self.append(host, transcript, entries[start : start + size])

    @rule(host=st.integers(0, 1), transcript=TRANSCRIPTS)
    def replay_with_more(self, host: int, transcript: Transcript) -> None:
        if batches := self.batches[transcript]:
            more = [new_entry("title"), new_entry("message")]
            self.append(host, transcript, [*batches[-1], *more], more)
            batches.append(more)

    @rule(host=st.integers(0, 1), session=SESSIONS)
    def delete_session(self, host: int, session: str) -> None:
        self.run(self.stores[host].delete(key((session, ""))))
        for transcript in list(self.entries):
            if transcript[0] == session:
                del self.entries[transcript]
                self.batches.pop(transcript, None)
        self.mtimes.pop(session, None)

    @rule(host=st.integers(0, 1), session=SESSIONS)
    def delete_subagent(self, host: int, session: str) -> None:
        transcript = (session, "subagents/agent-a1")
        self.run(self.stores[host].delete(key(transcript)))
        self.entries.pop(transcript, None)
        self.batches.pop(transcript, None)

    @rule(host=st.integers(0, 1), transcript=TRANSCRIPTS, after=st.integers(0, 20))
    def stream(self, host: int, transcript: Transcript, after: int) -> None:
        async def streamed(after: int | None) -> list[Any]:
            return [entry async for entry in self.stores[host].stream(key(transcript), after)]

        everything = self.run(streamed(None))
        assert everything == self.entries[transcript]
        seqs = [entry.seq for entry in everything]
        assert seqs == sorted(set(seqs))
        assert self.run(streamed(after)) == [entry for entry in everything if entry.seq > after]

    @rule(host=st.integers(0, 1), session=SESSIONS)
    def list_subkeys(self, host: int, session: str) -> None:
        listed = self.run(self.stores[host].list_subkeys(key((session, ""))))
        written = [t for t, entries in self.entries.items() if entries]
        assert sorted(listed) == sorted(path for s, path in written if s == session and path)

    @rule(host=st.integers(0, 1))
    def list_sessions(self, host: int) -> None:
        listed = self.run(self.stores[host].list_sessions(PROJECT))
        mtimes = {row["session_id"]: row["mtime"] for row in listed}
        assert mtimes.keys() == {
            s for (s, path), entries in self.entries.items() if entries and not path
        }
        for session, mtime in self.mtimes.items():
            assert mtimes[session] >= mtime
        self.mtimes = mtimes

    @rule(host=st.integers(0, 1))
    def list_session_summaries(self, host: int) -> None:
        listed = self.run(self.stores[host].list_session_summaries(PROJECT))
        assert {row["session_id"]: row["data"] for row in listed} == {
            session: fold_session_summary(None, key((session, "")), entries)["data"]
            for (session, path), entries in self.entries.items()
            if entries and not path
        }

    def teardown(self) -> None:
        for transcript in list(self.entries):
            self.check(transcript)
        for session in {session for (session, _), entries in self.entries.items() if entries}:
            found = self.run(self.stores[0].verify(key((session, ""))))
            assert found.is_sound, found
        assert self.run(self.stranger.list_sessions(PROJECT)) == []
        assert self.run(self.stranger.load(key(("s1", "")))) is None


def key(transcript: Transcript) -> Any:
    session, subpath = transcript
    named = {"project_key": PROJECT, "session_id": session}
    return {**named, "subpath": subpath} if subpath else named


@pytest.mark.parametrize("tries", [15, pytest.param(75, marks=pytest.mark.soak)])
def test_the_store_does_what_a_dict_of_lists_does(
    mongo_url: str, database_name: str, tries: int
) -> None:
    loop = StoreModel.loop = asyncio.new_event_loop()
    connected = BeanieSessionStore.connect(mongo_url, database=database_name)
    loop.run_until_complete(connected.__aenter__())
    try:
        bounded = settings(
            max_examples=tries,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            print_blob=False,
        )
        run_state_machine_as_test(StoreModel, settings=bounded)
    finally:
        loop.run_until_complete(connected.__aexit__(None, None, None))
        loop.close()
