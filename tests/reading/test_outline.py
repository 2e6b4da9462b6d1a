"""A session in outline says what the whole transcript says, and is read in parts of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.conversation import Conversation, shop
from support.reported import cases

from beanie_session_store import BeanieSessionStore, import_transcripts
from beanie_session_store.app.reading.glimpse_fields import CUT_CHARACTERS
from beanie_session_store.app.reading.glimpses import FILLED_BYTES
from beanie_session_store.app.reading.json_beginnings import completed_json
from beanie_session_store.app.transcripts.outline import Outline, used
from beanie_session_store.app.transcripts.outline_fields import OUTLINE_FIELDS
from beanie_session_store.app.transcripts.tokens import Tokens

KEY = {"project_key": "-srv-shop", "session_id": "session"}


async def outlined(
    store: BeanieSessionStore, key: Any = KEY, outline: Outline | None = None
) -> Outline:
    """The outline of a session, or one that goes on with what came to it."""
    outline = outline or Outline()
    async for row in store.reader(key).rows(OUTLINE_FIELDS, after=outline.until):
        outline.add(row)
    return outline


async def stored(store: BeanieSessionStore, transcripts: dict[str, list[Any]]) -> None:
    for subpath, entries in transcripts.items():
        await store.append({**KEY, "subpath": subpath} if subpath else KEY, entries)


async def test_it_says_what_the_transcript_says(store: BeanieSessionStore, tmp_path: Path) -> None:
    await stored(store, shop())
    for case in cases():
        folder = tmp_path / case.path.name
        await import_transcripts(store, case.lay_out(folder))
    looked_at = 0
    async for session in store.all_sessions():
        transcript = await store.transcript(session.key())
        assert transcript is not None
        outline = await outlined(store, session.key())
        for agent in transcript.subagents:
            subpath, call = agent.subpath, transcript.origins.get(agent.subpath)
            found = outline.caller_of(subpath)
            entry = None if found is None else await store.reader(session.key()).entry(found[0])
            assert (entry and entry.entry.get("uuid")) == (call and call.entry.uuid), session
        if transcript.copied or transcript.sidechains or session.title is None:
            continue
        kept = [turn.text for turn in transcript.turns if turn.prompt]
        left = outline.left_behind()
        turns = [
            turn
            for turn in outline.turns
            if turn.number and not any(each.first <= turn.first < each.until for each in left)
        ]
        if not transcript.branches:
            asked = [" ".join(text.split())[:240] for text in kept]
            assert [turn.text for turn in turns] == asked, session
            looked_at += 1
    assert looked_at > 10


async def test_tokens_calls_failures_and_branches_are_counted_once(
    store: BeanieSessionStore,
) -> None:
    await stored(store, shop())
    transcript = await store.transcript(KEY)
    assert transcript is not None
    outline = await outlined(store)
    summed = Tokens()
    for measured in (*outline.turns, *outline.subagents.values()):
        summed = sum(used(measured).values(), summed)
    assert summed == sum(transcript.total_usage.values(), Tokens())
    turns = outline.turns
    assert sum(turn.calls for turn in turns) == len(transcript.tool_calls)
    assert sum(turn.failures for turn in turns) == sum(c.is_error for c in transcript.tool_calls)
    (branch,) = outline.left_behind()
    assert transcript.branches[0][0].uuid == "main-20"
    assert (branch.first, branch.last, branch.turns, branch.messages) == (22, 25, 1, 4)
    assert [turn.text for turn in transcript.turns if turn.prompt][1].startswith("This is what")


async def test_it_goes_on_with_what_is_written_later(store: BeanieSessionStore) -> None:
    transcripts = shop()
    main, agent = transcripts.values()
    outline = Outline()
    for start in range(0, len(main), 7):
        await store.append(KEY, main[start : start + 7])
        outline = await outlined(store, outline=outline)
    await store.append({**KEY, "subpath": "subagents/agent-a1"}, agent)
    outline = await outlined(store, outline=outline)
    assert outline == await outlined(store)


async def test_going_back_twice_leaves_two_branches_and_each_is_whole(
    store: BeanieSessionStore,
) -> None:
    talk = Conversation()
    talk.prompt("one")
    talk.text("one is done")
    back = talk.last
    for number in range(3):
        talk.last = back
        talk.prompt(f"two, try {number}")
        talk.call("Bash", {"command": "x"}, "y")
        talk.text("tried")
    await stored(store, {"": talk.entries})
    outline = await outlined(store)
    assert [(each.first, each.last, each.turns) for each in outline.left_behind()] == [(3, 10, 2)]
    # To the middle of a turn.
    talk.last = talk.entries[11]["uuid"]
    talk.prompt("another way")
    await stored(store, {"": talk.entries})
    outline = await outlined(store)
    assert [(each.first, each.last) for each in outline.left_behind()] == [(3, 10), (13, 14)]


async def test_large_entries_come_as_their_beginnings(
    store: BeanieSessionStore, smaller_limits: int
) -> None:
    million = "wide and long\n" * 70_000
    talk = Conversation()
    talk.prompt(million)
    talk.call("Bash", {"command": million, "n": 1, "deep": {"a": [million]}}, million)
    talk.call("Read", {"file_path": "x"}, [{"type": "text", "text": million}], structured=[million])
    # One that is no document of MongoDB's: it is packed, and cut into chunks where it is large.
    talk.prompt("\ud83d" + million)
    talk.prompt("\ud83d" + "".join(map(chr, range(0x4E00, 0x9000))) * 60)
    talk.text("small")
    await stored(store, {"": talk.entries})
    found = await store.reader(KEY).window(1, 20)
    assert [each.seq for each in found] == list(range(1, 9))
    filled = [each for each in found if each.is_whole]
    assert sum(each.size for each in filled if each.size > 40_000) <= FILLED_BYTES
    assert found[-1].entry == talk.entries[-1]
    for glimpse, entry in zip(found, talk.entries, strict=True):
        assert glimpse.problem is None
        assert glimpse.entry["type"] == entry["type"]
        if glimpse.is_whole:
            assert glimpse.entry == entry
        else:
            assert len(json.dumps(glimpse.entry)) < 40 * CUT_CHARACTERS
            assert glimpse.entry["message"]["role"] == entry["message"]["role"]
        whole = await store.reader(KEY).entry(glimpse.seq)
        assert whole is not None
        assert whole.entry == entry


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), JSON, max_size=3), st.floats(0, 1), st.booleans())
@settings(max_examples=60)
def test_any_beginning_of_json_can_be_read(value: Any, part: float, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    beginning = text[: max(1, round(part * len(text)))]
    assert isinstance(json.loads(completed_json(beginning)), dict)
    assert json.loads(completed_json(text)) == value
