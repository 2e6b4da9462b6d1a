"""A summary of another session's conversation does not title this session."""

from __future__ import annotations

from typing import Any

import bson
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support.entries import KEY, SUBAGENT, message

from beanie_session_store import BeanieSessionStore, SessionSummary, Transcript
from beanie_session_store.app.database.driver import Database
from beanie_session_store.models.counting.tally import Tally
from beanie_session_store.models.plain import JSON_CODEC

Entry = dict[str, Any]


def summary(text: str, leaf: Any = None) -> Entry:
    return {"type": "summary", "summary": text, **({} if leaf is None else {"leafUuid": leaf})}


def said(uuid: str) -> Entry:
    return message(f"prompt {uuid}", uuid=uuid)


def last_own(entries: list[Entry]) -> str | None:
    """The rule, without regard to how much is remembered."""
    uuids = [entry.get("uuid") for entry in entries]
    found = None
    for entry in entries:
        if entry["type"] == "summary" and (not entry.get("leafUuid") or entry["leafUuid"] in uuids):
            found = entry["summary"]
    return found or None


async def title_after(store: BeanieSessionStore, *batches: list[Entry]) -> str | None:
    for batch in batches:
        await store.append(KEY, batch)
    found = await SessionSummary.find_one()
    assert found is not None
    entries = await store.load(KEY)
    assert entries is not None
    verification = await store.verify(KEY)
    assert verification.is_sound, verification.differences
    title = found.title
    assert Transcript(entries).title == title == last_own(list(entries))
    return title


@pytest.mark.parametrize(
    ("batches", "title"),
    [
        ([[summary("foreign", "x"), said("a")]], None),
        ([[said("a")], [summary("foreign", "x")]], None),
        ([[said("a"), summary("own", "a")]], "own"),
        ([[said("a")], [summary("own", "a")]], "own"),
        ([[summary("own", "a"), said("a")]], "own"),
        ([[summary("own", "a")], [said("a")]], "own"),
        ([[summary("own", "a")], [summary("foreign", "x")], [said("b")], [said("a")]], "own"),
        ([[said("a")], [summary("own", "a"), summary("foreign", "x")]], "own"),
        ([[said("a"), said("b")], [summary("first", "a")], [summary("last", "b")]], "last"),
        ([[summary("first", "b")], [said("a")], [summary("last", "a")], [said("b")]], "last"),
        ([[summary("first", "a"), summary("last", "a")], [said("a")]], "last"),
        ([[said("a")], [summary("own", "a")], [summary("", "a")]], None),
        ([[summary("alone")]], "alone"),
        ([[summary("alone", "")], [said("a")]], "alone"),
        ([[summary("alone")], [said("a")], [summary("foreign", "x")]], "alone"),
        ([[summary("of nobody", "\ud83d"), summary("long", "x" * 5000)], [said("a")]], None),
        ([[said("x" * 5000)], [summary("of a long one", "x" * 5000)]], "of a long one"),
    ],
)
async def test_the_last_own_summary_titles_a_session(
    store: BeanieSessionStore, batches: list[list[Entry]], title: str | None
) -> None:
    assert await title_after(store, *batches) == title


async def test_what_a_person_or_the_model_called_it_goes_before_a_summary(
    store: BeanieSessionStore,
) -> None:
    named = {"type": "ai-title", "aiTitle": "named"}
    await store.append(KEY, [said("a"), named])
    await store.append(KEY, [summary("own", "a")])
    found = await SessionSummary.find_one()
    assert found is not None
    assert found.title == "named"


async def test_a_leaf_in_another_session_or_in_a_subagent_is_none_of_this_conversation(
    store: BeanieSessionStore,
) -> None:
    await store.append({**KEY, "session_id": "another"}, [said("elsewhere")])
    other_tenant = BeanieSessionStore(tenant="another")
    await other_tenant.append(KEY, [said("theirs")])
    await store.append(KEY, [said("a")])
    await store.append(SUBAGENT, [said("side")])
    lines = [summary(leaf, leaf) for leaf in ("elsewhere", "theirs", "side")]
    await store.append(KEY, lines)
    found = await store.summary(KEY)
    assert found is not None
    assert found.title is None
    await store.append(SUBAGENT, [said("elsewhere")])
    assert (await store.verify(KEY)).is_sound
    # A copied session has the entry itself.
    await store.append({**KEY, "session_id": "copy"}, [said("a"), summary("copied", "a")])
    copied = await store.summary({**KEY, "session_id": "copy"})
    assert copied is not None
    assert copied.title == "copied"


async def test_another_writer_finds_what_the_first_one_stored(store: BeanieSessionStore) -> None:
    await store.append(KEY, [said("a"), summary("foreign", "x")])
    await BeanieSessionStore().append(KEY, [said("b")])
    await store.append(KEY, [summary("own", "b")])
    await BeanieSessionStore().append(KEY, [said("x")])
    found = await SessionSummary.find_one()
    assert found is not None
    assert found.title == "own"
    assert (await store.verify(KEY)).is_sound


async def test_an_own_summary_behind_a_long_conversation_is_found(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, [summary(f"foreign {n}", f"x{n}") for n in range(500)])
    document = await database["claude_transcript_summaries"].find_one() or {}
    assert len(document["totals"]["in_flight"]["summaries"]) == 64
    for start in range(0, 3000, 500):
        await store.append(KEY, [said(f"u{n}") for n in range(start, start + 500)])
    assert await title_after(store, [summary("own", "u1")]) == "own"
    # What came before the title waits for its leaf no more.
    document = await database["claude_transcript_summaries"].find_one() or {}
    assert document["totals"]["in_flight"].keys() & {"summaries", "titled_by"} == {"titled_by"}
    assert await title_after(store, [summary("foreign", "x")], [said("u3000")]) == "own"


_LEAVES = st.sampled_from(["a", "b", "c", "x"])
_LINES = st.lists(
    st.one_of(
        st.tuples(st.just("summary"), _LEAVES | st.none()), st.tuples(st.just("said"), _LEAVES)
    ),
    max_size=14,
)


@settings(max_examples=400, deadline=None)
@given(lines=_LINES, cuts=st.sets(st.integers(0, 14)), foreign=st.integers(0, 80))
def test_the_title_is_the_same_however_the_entries_are_cut(
    lines: list[tuple[str, str | None]], cuts: set[int], foreign: int
) -> None:
    entries: list[Entry] = []
    uuids: set[str | None] = set()
    for number, (kind, uuid) in enumerate(lines):
        if kind == "summary":
            entries.append(summary(f"s{number}", uuid))
        elif uuid not in uuids:
            uuids.add(uuid)
            entries.append(said(uuid or ""))
        if number == len(lines) // 3:
            entries.append({"type": "custom-title", "customTitle": ""})
        if number == len(lines) // 2:
            entries += [summary(f"foreign {n}", f"y{n}") for n in range(foreign)]

    def folded(cut: set[int]) -> Tally:
        tally, stored, batch = Tally(), set[str](), list[Entry]()
        for place, entry in enumerate([*entries, None]):
            if batch and (entry is None or place in cut):
                tally.add(batch, "", place - len(batch) + 1)
                tally.settle_leaves(stored)
                stored |= {each["uuid"] for each in batch if "uuid" in each}
                document = bson.decode(bson.encode(tally.document(1)), JSON_CODEC)
                tally, batch = Tally.of(document, tally.texts), []
            if entry is not None:
                batch.append(entry)
        return tally

    one_by_one = folded(set(range(200)))
    for other in (folded(cuts), folded(set())):
        assert other.document(1) == one_by_one.document(1)
        assert other.texts == one_by_one.texts
    if foreign < 50:
        assert one_by_one.texts["title"] == Transcript(entries).title == last_own(entries)


def test_what_waits_is_bounded() -> None:
    tally = Tally()
    for number in range(1000):
        tally.add([summary("x" * 500, f"{number:0100}")], "", number + 1)
    assert len(bson.encode(tally.document(1))) < 32 * 1024
    tally.add([said(f"{999:0100}")], "", 1001)
    assert tally.texts["title"] == "x" * 200
