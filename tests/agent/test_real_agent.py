"""The promises of the store, kept to the real agent: it writes, resumes, forks and imports.

The agent talks to a scripted model over loopback. Every run is a host of its own: a process with
a clean environment and an empty home.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import (
    delete_session_via_store,
    fork_session_via_store,
    get_session_info,
    get_session_info_from_store,
    get_session_messages,
    get_session_messages_from_store,
    get_subagent_messages,
    get_subagent_messages_from_store,
    import_session_to_store,
    list_sessions_from_store,
    list_subagents,
    list_subagents_from_store,
    rename_session_via_store,
    tag_session_via_store,
)
from pymongo import MongoClient
from support.agent import (
    AGAIN,
    AGAIN_OUTPUT,
    COMMAND_OUTPUT,
    FIRST_PROMPT,
    SECOND_PROMPT,
    Turn,
    Workplace,
    exactly,
    texts,
    workplace,
)

from beanie_session_store import BeanieSessionStore
from beanie_session_store.demo.agent import NOT_MIRRORED, Entry, mirrored
from beanie_session_store.demo.script import HALF_AN_EMOJI
from beanie_session_store.demo.stored import Transcripts, load_all

pytestmark = pytest.mark.agent


@dataclass(frozen=True)
class Story:
    """A session that was begun on one host and taken up again on another."""

    place: Workplace
    first: Turn = field(repr=False)
    second: Turn = field(repr=False)

    @property
    def session_id(self) -> str:
        return self.first.run.session_id

    @property
    def key(self) -> Any:
        return self.place.key(self.session_id)

    @property
    def subagent(self) -> str:
        (subpath,) = self.first.stored.keys() - {""}
        return subpath


@pytest.fixture(scope="module")
def batched(mongo_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    yield from _told("batched", mongo_url, tmp_path_factory)


@pytest.fixture(scope="module")
def eager(mongo_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    yield from _told("eager", mongo_url, tmp_path_factory)


def _told(mode: str, mongo_url: str, factory: pytest.TempPathFactory) -> Iterator[Story]:
    async def tell(place: Workplace) -> Story:
        first = await place.turn(FIRST_PROMPT, session_store_flush=mode)
        resume = first.run.session_id
        second = await place.turn(SECOND_PROMPT, session_store_flush=mode, resume=resume)
        return Story(place, first, second)

    with workplace(factory.mktemp(mode), mongo_url) as place:
        yield asyncio.run(tell(place))


@pytest.fixture(params=["batched", "eager"])
def story(request: pytest.FixtureRequest) -> Story:
    """The session, written in either flush mode."""
    return request.getfixturevalue(request.param)


@pytest.fixture
async def copied(batched: Story, store: BeanieSessionStore) -> Story:
    """The session, given to ``store`` once more, as the SDK gave it: a test may change it."""
    await replay(store, batched.first, batched.second)
    return batched


async def replay(store: BeanieSessionStore, *turns: Turn) -> None:
    """Append what the SDK gave to the store in some turns, batch by batch."""
    for turn in turns:
        for batch in turn.batches:
            await store.append(batch.key, batch.entries)


@pytest.fixture
def first_host(batched: Story, monkeypatch: pytest.MonkeyPatch) -> Story:
    """The SDK's functions for local sessions see the disk of the session's first host."""
    monkeypatch.setenv("HOME", str(batched.first.run.home))
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    return batched


@pytest.fixture
def place(tmp_path: Path, mongo_url: str) -> Iterator[Workplace]:
    """A workplace for a test's own runs of the agent."""
    with workplace(tmp_path, mongo_url) as place:
        yield place


# What is loaded is what the agent wrote


def test_load_returns_every_entry_the_sdk_handed_over_in_order(story: Story) -> None:
    handed_over: dict[str, list[Entry]] = {}
    for batch in [*story.first.batches, *story.second.batches]:
        handed_over.setdefault(batch.key.get("subpath", ""), []).extend(batch.entries)
    assert handed_over.keys() == story.second.stored.keys()
    for subpath, entries in handed_over.items():
        assert exactly(story.second.stored[subpath]) == exactly(entries)


def test_load_equals_the_transcripts_on_the_agents_disk(story: Story) -> None:
    on_disk = story.first.run.transcripts()
    assert on_disk.keys() == story.first.stored.keys()
    for subpath, entries in on_disk.items():
        assert mirrored(entries)
        assert exactly(mirrored(story.first.stored[subpath])) == exactly(mirrored(entries))


def test_only_request_records_stay_on_disk_and_only_agent_metadata_in_the_store(
    story: Story,
) -> None:
    for turn in (story.first, story.second):
        for subpath, entries in turn.run.transcripts().items():
            stored = turn.stored[subpath]
            assert not {entry["type"] for entry in stored} & NOT_MIRRORED
            metadata = [entry for entry in stored if entry["type"] == "agent_metadata"]
            assert bool(metadata) == bool(subpath)
            assert len(mirrored(entries)) == len(stored) - len(metadata)


def test_a_subagents_last_metadata_is_what_its_sidecar_says(story: Story) -> None:
    metadata = [e for e in story.first.stored[story.subagent] if e["type"] == "agent_metadata"]
    assert exactly(metadata[-1:]) == exactly([_metadata_on_disk(story)])


def test_entries_without_uuid_and_half_an_emoji_are_part_of_it(story: Story) -> None:
    entries = story.first.stored[""]
    assert sum("uuid" not in entry for entry in entries) >= 5
    assert any(_ends_in_half_an_emoji(entry) for entry in entries)


def _ends_in_half_an_emoji(entry: Entry) -> bool:
    content = entry.get("message", {}).get("content")
    return isinstance(content, list) and content[-1].get("text", "").endswith(HALF_AN_EMOJI)


# A session goes on from another host


def test_second_hosts_first_request_holds_the_first_hosts_conversation(story: Story) -> None:
    assert story.second.run.session_id == story.session_id
    asked = texts(story.second.requests[0])
    assert FIRST_PROMPT in asked
    assert COMMAND_OUTPUT in asked
    assert asked.index(FIRST_PROMPT) < asked.index(COMMAND_OUTPUT) < asked.index(SECOND_PROMPT)


def test_second_host_answers_from_what_the_first_one_did(story: Story) -> None:
    assert COMMAND_OUTPUT in (story.second.run.result or "")


def test_resuming_adds_to_what_was_stored_and_changes_none_of_it(story: Story) -> None:
    before, after = story.first.stored, story.second.stored
    assert exactly(after[""][: len(before[""])]) == exactly(before[""])
    added = after[""][len(before[""]) :]
    assert [_prompt(e) for e in added if _prompt(e)] == [SECOND_PROMPT]
    assert exactly(after[story.subagent]) == exactly(before[story.subagent])


def _prompt(entry: Entry) -> str | None:
    """What a person typed, if the entry is that."""
    content = entry.get("message", {}).get("content")
    typed = entry["type"] == "user" and isinstance(content, str) and not entry.get("isMeta")
    return content if typed and not content.startswith("<") else None


def test_after_both_turns_load_equals_the_second_hosts_disk(story: Story) -> None:
    on_disk = story.second.run.transcripts()
    assert on_disk.keys() == story.second.stored.keys()
    for subpath, entries in on_disk.items():
        assert exactly(mirrored(story.second.stored[subpath])) == exactly(mirrored(entries))


def test_no_uuid_is_stored_twice(story: Story) -> None:
    for entries in story.second.stored.values():
        assert _repeated_uuids(entries) == []


def _repeated_uuids(entries: list[Entry]) -> list[str]:
    counts = Counter(entry["uuid"] for entry in entries if "uuid" in entry)
    return [uuid for uuid, count in counts.items() if count > 1]


async def test_continue_conversation_takes_up_the_session_that_was_written_last(
    batched: Story, place: Workplace
) -> None:
    place = replace(place, directory=batched.place.directory)
    async with place.store() as store:
        await replay(store, batched.first, batched.second)
        fork = await fork_session_via_store(store, batched.session_id, place.project)
    newest = await place.turn(AGAIN, continue_conversation=True)
    assert newest.run.session_id == fork.session_id
    assert SECOND_PROMPT in texts(newest.requests[0])
    assert AGAIN_OUTPUT in (newest.run.result or "")

    async with place.store() as store:
        await tag_session_via_store(store, batched.session_id, "touched", place.project)
    touched = await place.turn(f"{AGAIN}. Then DELEGATE.", continue_conversation=True)
    assert touched.run.session_id == batched.session_id
    assert SECOND_PROMPT in texts(touched.requests[0])
    assert AGAIN_OUTPUT in texts(touched.requests[-1])
    on_disk = touched.run.transcripts()
    assert on_disk.keys() == touched.stored.keys() > batched.second.stored.keys()
    for subpath, entries in on_disk.items():
        # On resuming, the agent repeats the tag, which has no uuid, in its own file alone.
        assert exactly(_with_uuid(touched.stored[subpath])) == exactly(_with_uuid(entries))


async def test_fork_session_makes_a_new_session_and_leaves_the_old_one_alone(
    batched: Story, place: Workplace
) -> None:
    place = replace(place, directory=batched.place.directory)
    async with place.store() as store:
        await replay(store, batched.first, batched.second)
    forked = await place.turn(AGAIN, resume=batched.session_id, fork_session=True)
    assert forked.run.session_id != batched.session_id
    assert FIRST_PROMPT in texts(forked.requests[0])
    assert exactly(mirrored(forked.stored[""])) == exactly(mirrored(forked.run.transcripts()[""]))
    assert [_prompt(e) for e in forked.stored[""] if _prompt(e)][-1] == AGAIN
    assert AGAIN_OUTPUT in (forked.run.result or "")
    async with place.store() as store:
        old = await load_all(store, batched.key)
    assert _exactly(old) == _exactly(batched.second.stored)


# The SDK's functions find in the store what they find on the agent's disk


async def test_messages_from_the_store_are_those_on_disk(
    first_host: Story, store: BeanieSessionStore
) -> None:
    session_id, project = first_host.session_id, first_host.place.project
    await replay(store, first_host.first)
    messages = await get_session_messages_from_store(store, session_id, project)
    assert COMMAND_OUTPUT in json.dumps([message.message for message in messages])
    assert messages == get_session_messages(session_id, project)

    (agent_id,) = await list_subagents_from_store(store, session_id, project)
    assert [agent_id] == list_subagents(session_id, project)
    messages = await get_subagent_messages_from_store(store, session_id, agent_id, project)
    assert "deep 42" in json.dumps([message.message for message in messages])
    assert messages == get_subagent_messages(session_id, agent_id, project)


async def test_session_info_from_the_store_is_that_on_disk(
    first_host: Story, store: BeanieSessionStore
) -> None:
    session_id, project = first_host.session_id, first_host.place.project
    await replay(store, first_host.first)
    on_disk = get_session_info(session_id, project)
    assert on_disk is not None
    info = await get_session_info_from_store(store, session_id, project)
    (listed,) = await list_sessions_from_store(store, project)
    for found in (info, listed):
        assert found is not None
        assert found.first_prompt
        assert replace(found, last_modified=0, file_size=None) == replace(
            on_disk, last_modified=0, file_size=None
        )


async def test_a_renamed_session_shows_its_title(copied: Story, store: BeanieSessionStore) -> None:
    session_id, project = copied.session_id, copied.place.project
    await rename_session_via_store(store, session_id, "The answer", project)
    info = await get_session_info_from_store(store, session_id, project)
    assert info is not None
    assert info.custom_title == "The answer"
    (listed,) = await list_sessions_from_store(store, project)
    assert listed.summary == "The answer"
    await _assert_only_added(copied, store, "custom-title")


async def test_a_tag_is_set_and_cleared(copied: Story, store: BeanieSessionStore) -> None:
    session_id, project = copied.session_id, copied.place.project
    for tag in ("important", None):
        await tag_session_via_store(store, session_id, tag, project)
        info = await get_session_info_from_store(store, session_id, project)
        assert info is not None
        assert info.tag == tag
        (listed,) = await list_sessions_from_store(store, project)
        assert listed.tag == tag
    await _assert_only_added(copied, store, "tag", "tag")


async def _assert_only_added(story: Story, store: BeanieSessionStore, *kinds: str) -> None:
    entries = await store.load(story.key) or []
    before = story.second.stored[""]
    assert exactly(entries[: len(before)]) == exactly(before)
    assert [entry["type"] for entry in entries[len(before) :]] == list(kinds)


async def test_a_fork_in_the_store_tells_the_same_conversation_anew(
    copied: Story, store: BeanieSessionStore
) -> None:
    session_id, project = copied.session_id, copied.place.project
    fork = await fork_session_via_store(store, session_id, project, title="Another way")
    old = await get_session_messages_from_store(store, session_id, project)
    new = await get_session_messages_from_store(store, fork.session_id, project)
    assert [message.message for message in new] == [message.message for message in old]
    assert not {message.uuid for message in new} & {message.uuid for message in old}
    listed = {info.session_id: info for info in await list_sessions_from_store(store, project)}
    assert listed.keys() == {session_id, fork.session_id}
    assert listed[fork.session_id].summary == "Another way"
    await _assert_only_added(copied, store)


async def test_a_deleted_session_is_gone_with_its_subagents_and_leaves_others_alone(
    copied: Story, store: BeanieSessionStore
) -> None:
    session_id, project = copied.session_id, copied.place.project
    fork = await fork_session_via_store(store, session_id, project)
    await delete_session_via_store(store, session_id, project)
    assert await store.load(copied.key) is None
    assert await store.load({**copied.key, "subpath": copied.subagent}) is None
    assert await list_subagents_from_store(store, session_id, project) == []
    assert await get_session_info_from_store(store, session_id, project) is None
    listed = await list_sessions_from_store(store, project)
    assert [info.session_id for info in listed] == [fork.session_id]


# Import of what is on the agent's disk


@pytest.mark.parametrize("batch_size", [500, 7])
async def test_importing_twice_leaves_the_same_transcripts_as_once(
    first_host: Story, store: BeanieSessionStore, batch_size: int
) -> None:
    await import_session_to_store(first_host.session_id, store, batch_size=batch_size)
    once = await load_all(store, first_host.key)
    on_disk = first_host.first.run.transcripts()
    assert once.keys() == on_disk.keys()
    for subpath, entries in on_disk.items():
        metadata = [_metadata_on_disk(first_host)] if subpath else []
        assert exactly(once[subpath]) == exactly([*entries, *metadata])

    await import_session_to_store(first_host.session_id, store, batch_size=batch_size)
    assert _exactly(await load_all(store, first_host.key)) == _exactly(once)


@pytest.mark.parametrize("at_least", [500, 7])
async def test_importing_over_what_was_mirrored_a_second_time_adds_nothing(
    first_host: Story, store: BeanieSessionStore, at_least: int
) -> None:
    batch_size = _size_with_a_uuid_in_each(first_host.first.run.transcripts(), at_least)
    await replay(store, first_host.first)
    await import_session_to_store(first_host.session_id, store, batch_size=batch_size)
    once = await load_all(store, first_host.key)
    assert once.keys() == first_host.first.stored.keys()
    for subpath, entries in first_host.first.stored.items():
        assert exactly(_with_uuid(once[subpath])) == exactly(_with_uuid(entries))

    await import_session_to_store(
        first_host.session_id, BeanieSessionStore(), batch_size=batch_size
    )
    assert _exactly(await load_all(store, first_host.key)) == _exactly(once)


def _size_with_a_uuid_in_each(transcripts: dict[str, list[Entry]], at_least: int) -> int:
    """The size of batches of which another process can repeat any and be recognised.

    Which entries of the agent meet in a batch depends on how fast it ran.
    """

    def fits(size: int) -> bool:
        return all(
            _with_uuid(entries[start : start + size])
            for entries in transcripts.values()
            for start in range(0, len(entries), size)
        )

    return next(filter(fits, count(at_least)))


async def test_importing_over_what_was_mirrored_adds_only_what_is_never_mirrored(
    first_host: Story, store: BeanieSessionStore
) -> None:
    await replay(store, first_host.first)
    await import_session_to_store(first_host.session_id, store)
    imported = await load_all(store, first_host.key)
    for subpath, entries in first_host.first.stored.items():
        assert exactly(mirrored(imported[subpath])) == exactly(mirrored(entries))
        on_disk = first_host.first.run.transcripts()[subpath]
        request_records = [entry for entry in on_disk if entry["type"] in NOT_MIRRORED]
        assert request_records
        added = [entry for entry in imported[subpath] if entry["type"] in NOT_MIRRORED]
        assert exactly(added) == exactly(request_records)


def _with_uuid(entries: list[Entry]) -> list[Entry]:
    return [entry for entry in entries if "uuid" in entry]


def _exactly(transcripts: Transcripts) -> dict[str, list[str]]:
    return {subpath: exactly(entries) for subpath, entries in transcripts.items()}


def _metadata_on_disk(story: Story) -> Entry:
    (sidecar,) = story.first.run.home.glob(".claude/projects/*/*/subagents/*.meta.json")
    return {**json.loads(sidecar.read_text()), "type": "agent_metadata"}


# The demo


@pytest.mark.soak
def test_the_demo_passes_without_credentials(mongo_url: str) -> None:
    finished = _demo({"SESSION_STORE_MONGODB_URL": mongo_url})
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "PASSED" in finished.stdout
    assert max(map(len, finished.stdout.splitlines())) <= 80
    with MongoClient(mongo_url) as client:
        assert not [name for name in client.list_database_names() if "demo" in name]


def test_the_live_demo_asks_for_a_key() -> None:
    finished = _demo({}, "--live")
    assert finished.returncode == 2
    assert "ANTHROPIC_API_KEY" in finished.stderr


def _demo(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo", *arguments],
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
