"""Whatever ``json.loads`` can return, ``load`` gives back deep-equal; native wherever possible."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import random
import struct
import subprocess
import textwrap
import threading
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from typing import Any

import bson
import pytest
from claude_agent_sdk import fold_session_summary
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.database import own_loop
from support.processes import PREPARED

from beanie_session_store import (
    BeanieSessionStore,
    CorruptEntryError,
    EntryChunk,
    SessionSummary,
    TranscriptEntry,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.storage.codec import MAX_VALUE_BYTES
from beanie_session_store.models.packing import unpack

KEY = {"project_key": "-app", "session_id": "11111111-1111-4111-8111-111111111111"}
SUBAGENT = {**KEY, "subpath": "subagents/agent-a1"}
MIB = 1024 * 1024
LONE = "cut inside an emoji: \ud83d"


@pytest.fixture
def entries(database: Database) -> Any:
    return database["claude_transcript_entries"]


@pytest.fixture
def summaries(database: Database) -> Any:
    return database["claude_transcript_summaries"]


@pytest.fixture
def chunks(database: Database) -> Any:
    return database["claude_transcript_chunks"]


# What JSON there is

TEXT = st.text(
    st.one_of(
        st.characters(),
        st.characters(categories=["Cs"]),
        st.sampled_from(["\0", "$", ".", "\n", "\ud83d", "\ude00", "\U0001f600", "\uffff"]),
    ),
    max_size=12,
) | st.sampled_from(["\ud83d\ude00", "\ude00\ud83d", "\0", "sha256:", "\ufeff", "a" * 1100, ""])
KEYS = (
    st.sampled_from(
        ["$ref", "$id", "$db", "_id", "", ".", "a.b", "$set", "$where", "a\0b", "0", "__proto__"]
    )
    | TEXT
)
INTEGERS = st.integers() | st.sampled_from(
    [
        sign * 2**power + step
        for sign in (1, -1)
        for power in (31, 32, 53, 63, 64, 1000)
        for step in (-1, 0, 1)
    ]
)
SCALARS = st.none() | st.booleans() | INTEGERS | st.floats() | st.just(-0.0) | TEXT
REFERENCE = st.fixed_dictionaries(
    {"$ref": SCALARS}, optional={"$id": SCALARS, "$db": SCALARS, "_id": SCALARS, "x": SCALARS}
)
JSON = st.recursive(
    SCALARS | REFERENCE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
TIMESTAMPS = st.sampled_from(
    [
        "2026-11-23T15:00:00.000Z",
        "0001-01-01T00:00:00",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999999-23:59",
        "9999-12-31T23:59:59",
        "2026-02-30T00:00:00Z",
        "Z",
    ]
)
BLOCKS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "tool_result"]) | SCALARS},
    optional={"text": TEXT | st.just("<command-name>/clear</command-name>") | JSON},
)
MESSAGES = st.fixed_dictionaries(
    {"content": TEXT | st.lists(BLOCKS | JSON, max_size=3) | JSON}, optional={"role": SCALARS}
)
# The fields that the store or the SDK's fold look at, and any others.
ENTRIES = st.builds(
    lambda known, others: {**others, **known},
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["user", "assistant", "tag", "custom-title"]) | JSON,
            "uuid": TEXT | st.uuids().map(str) | JSON,
            "timestamp": TIMESTAMPS | JSON,
            "message": MESSAGES | JSON,
            "customTitle": TEXT | JSON,
            "aiTitle": TEXT,
            "lastPrompt": TEXT | JSON,
            "summary": TEXT,
            "gitBranch": TEXT,
            "cwd": TEXT | JSON,
            "tag": TEXT | JSON,
            "isSidechain": JSON,
            "isMeta": JSON,
            "_id": JSON,
        },
    ),
    st.dictionaries(KEYS, JSON, max_size=3),
)
BATCHES = st.lists(st.lists(ENTRIES, max_size=4), min_size=1, max_size=3)


def difference(one: Any, other: Any) -> str | None:
    """Where two JSON values differ in value, exact type or order of keys."""
    pending = [("$", one, other)]
    while pending:
        path, a, b = pending.pop()
        if type(a) is not type(b):
            return f"{path}: {type(a).__name__} became {type(b).__name__}"
        if isinstance(a, dict):
            if list(a) != list(b):
                return f"{path}: keys {list(a)!r:.200} became {list(b)!r:.200}"
            pending.extend((f"{path[-200:]}[{key!r:.20}]", a[key], b[key]) for key in a)
        elif isinstance(a, list):
            if len(a) != len(b):
                return f"{path}: {len(a)} members became {len(b)}"
            pending.extend(
                (f"{path[-200:]}[{n}]", x, y) for n, (x, y) in enumerate(zip(a, b, strict=True))
            )
        elif isinstance(a, float):
            # Tells -0.0 from 0.0, and takes every NaN for the same.
            equal = math.isnan(b) if math.isnan(a) else struct.pack("d", a) == struct.pack("d", b)
            if not equal:
                return f"{path}: {a!r} became {b!r}"
        elif a != b:
            return f"{path}: {a!r:.200} became {b!r:.200}"
    return None


def property_settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def without_repetitions(
    batches: Sequence[Sequence[dict[str, Any]]],
) -> list[list[dict[str, Any]]]:
    """The same batches without entries that are there before, uuid and all."""
    seen: set[str] = set()
    kept: list[list[dict[str, Any]]] = []
    for batch in batches:
        kept.append([])
        for entry in batch:
            if isinstance(entry.get("uuid"), str):
                written = json.dumps(entry, sort_keys=True, ensure_ascii=False)
                if written in seen:
                    continue
                seen.add(written)
            kept[-1].append(entry)
    return kept


async def assert_comes_back(
    store: BeanieSessionStore, key: dict[str, str], expected: list[dict[str, Any]]
) -> None:
    loaded = await store.load(key)
    assert difference(expected or None, loaded) is None
    streamed = [dict(entry) async for entry in store.stream(key)]
    assert difference(expected, streamed) is None


# The promise, for any JSON


@pytest.mark.parametrize("tries", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_any_json_comes_back_and_is_summarised_as_the_sdk_would(
    mongo_url: str, database_name: str, tries: int
) -> None:
    sessions = count()

    async def comes_back(batches: list[list[dict[str, Any]]]) -> None:
        key = {"project_key": f"project-{next(sessions)}", "session_id": "s"}
        store = BeanieSessionStore()
        for batch in batches:
            await store.append(key, batch)
        expected = [entry for batch in batches for entry in batch]
        # Through a store that remembers nothing of the writing.
        reader = BeanieSessionStore()
        await assert_comes_back(reader, key, expected)
        summaries = await reader.list_session_summaries(key["project_key"])
        if not expected:
            assert summaries == []
            return
        try:
            folded = fold_session_summary(None, key, expected)["data"]
        except Exception:
            # The SDK cannot fold it; it must be listed all the same.
            assert [summary["session_id"] for summary in summaries] == ["s"]
            return
        assert difference([folded], [summary["data"] for summary in summaries]) is None

    with own_loop(mongo_url, database_name) as run:

        @property_settings(tries)
        @given(BATCHES)
        @example([[{"uuid": "\ud83d"}, {"uuid": "\ude00"}, {"uuid": "\0"}, {"uuid": ""}]])
        @example([[{"uuid": "u", "n": 1}, {"uuid": "u", "n": True}], [{"uuid": "u", "n": 1.0}]])
        @example([[{"uuid": "\ud83d", "n": 1}, {"uuid": "\ud83d"}], [{"uuid": "\ud83d", "n": 2}]])
        @example([[{"type": "user", "message": {"content": LONE}}], [{"lastPrompt": LONE}]])
        @example([[{"customTitle": LONE}], [{"customTitle": "whole"}], [{"customTitle": LONE}]])
        @example([[{"text": "\ud83d\ude00"}, {"text": "\U0001f600"}]])
        @example([[{"_id": 1, "$ref": "a", "$id": {"$ref": "b"}, "$db": "c"}]])
        @example([[{}], [{}], [{"type": "tag", "tag": ""}]])
        def check(batches: list[list[dict[str, Any]]]) -> None:
            run(lambda: comes_back(without_repetitions(batches)))

        check()


def test_deeply_nested_json_comes_back(mongo_url: str, database_name: str) -> None:
    sessions = count()

    async def comes_back(leaf: Any, shape: list[bool], levels: int) -> None:
        value = leaf
        for level in range(levels):
            value = [value] if shape[level % len(shape)] else {"k": value}
        key = {"project_key": f"deep-{next(sessions)}", "session_id": "s"}
        # The fold looks into a message, so it meets the depth as well.
        expected = [{"uuid": "1", "deep": value}, {"type": "user", "message": {"content": value}}]
        await BeanieSessionStore().append(key, expected)
        await assert_comes_back(BeanieSessionStore(), key, expected)

    with own_loop(mongo_url, database_name) as run:

        @property_settings(30)
        @given(SCALARS, st.lists(st.booleans(), min_size=1, max_size=3), st.integers(0, 900))
        @example("leaf", [True], 87)
        @example("leaf", [True], 88)
        @example("leaf", [True], 89)
        @example("leaf", [False], 90)
        @example("leaf", [False], 180)
        @example("leaf", [True], 900)
        @example("leaf", [False], 900)
        def check(leaf: Any, shape: list[bool], levels: int) -> None:
            run(lambda: comes_back(leaf, shape, levels))

        check()


def test_the_deepest_json_that_python_parses_comes_back(mongo_url: str, database_name: str) -> None:
    # At the top of a script json.loads has the whole stack; the store must do with no more.
    script = """
        import asyncio, json, sys

        value, depth = None, 900
        while depth < 2000:
            try:
                value = json.loads('{"deep": ' + "[" * depth + "]" * depth + "}")
            except RecursionError:
                break
            depth += 1

        from beanie_session_store import BeanieSessionStore

        def levels(value):
            found = 0
            while value:
                (value,) = value.values() if isinstance(value, dict) else value
                found += 1
            return found

        async def main():
            url, name = sys.argv[1:]
            async with BeanieSessionStore.connect(url, database=name) as store:
                key = {"project_key": "p", "session_id": "s"}
                await store.append(key, [value])
                (loaded,) = await store.load(key)
                print(levels(loaded) == levels(value))

        asyncio.run(main())
    """
    done = subprocess.run(
        [PREPARED, "-c", textwrap.dedent(script), mongo_url, database_name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "True", done.stderr[-600:]


def test_a_call_deep_in_the_callers_stack_stores_deep_json(
    mongo_url: str, database_name: str
) -> None:
    deep: Any = "leaf"
    for _ in range(900):
        deep = [deep]

    async def comes_back() -> None:
        async def deeper(levels: int) -> None:
            if levels:
                return await deeper(levels - 1)
            await BeanieSessionStore().append(KEY, [{"deep": deep}])
            await assert_comes_back(BeanieSessionStore(), KEY, [{"deep": deep}])

        await deeper(300)

    with own_loop(mongo_url, database_name) as run:
        run(comes_back)


ODD_VALUES: dict[str, Any] = {
    "lone high surrogate": "\ud83d",
    "lone low surrogate": "\ude00",
    "two adjacent surrogates": "\ud83d\ude00",
    "NUL in a string": "a\0b",
    "NUL in a key": {"a\0b": 1},
    "lone surrogate in a key": {"\ud83d": 1},
    "odd keys": {"": 1, ".": 2, "a.b": 3, "$": 4, "$set": {"$inc": 5}},
    "a reference": {"$ref": "c", "$id": 1},
    "a reference with more": {"$ref": "c", "$id": 1, "$db": "d", "x": 1},
    "a reference the other way round": {"$id": 1, "$ref": "c"},
    "what only looks like a reference": {"$ref": 1, "$id": 1},
    "a nested reference": [{"a": {"$ref": "c", "$id": None}}],
    "_id": {"_id": {"_id": "x"}},
    "_id in the middle": {"z": 1, "_id": 2, "a": 3},
    "largest int64": 2**63 - 1,
    "beyond int64": 2**63,
    "below int64": -(2**63) - 1,
    "4000 digits": 10**4000,
    "odd floats": [math.inf, -math.inf, math.nan, -0.0, 0.0, 5e-324],
    "equal values of other types": [True, 1, 1.0, False, 0, 0.0, None],
    "extended JSON": {"$date": 1, "$oid": "x", "$numberLong": "1"},
    "names of other languages": {"__proto__": {}, "constructor": 1},
    "empty list": [],
    "empty object": {},
}


async def test_what_bson_refuses_or_alters_comes_back(store: BeanieSessionStore) -> None:
    for name, value in ODD_VALUES.items():
        expected = [{"type": "user", "value": value, "more": [value]}]
        for key in (KEY, SUBAGENT):
            place = {**key, "session_id": name}
            await store.append(place, expected)
            assert difference(expected, await store.load(place)) is None, name
            streamed = [dict(entry) async for entry in store.stream(place)]
            assert difference(expected, streamed) is None, name


async def test_a_lone_surrogate_in_a_title_comes_back_in_the_summary(
    store: BeanieSessionStore,
) -> None:
    await store.append(KEY, [{"type": "custom-title", "customTitle": LONE}])
    (summary,) = await store.list_session_summaries("-app")
    assert summary["data"]["custom_title"] == LONE


async def test_what_the_sdk_cannot_fold_is_stored_and_the_rest_folded(
    store: BeanieSessionStore,
) -> None:
    # A date that the SDK parses but cannot turn into epoch milliseconds.
    odd = {"type": "user", "timestamp": "0001-01-01T00:00:00", "customTitle": "odd"}
    expected = [{"customTitle": "first"}, odd, {"customTitle": "last"}]
    await store.append(KEY, expected)
    await assert_comes_back(store, KEY, expected)
    (summary,) = await store.list_session_summaries("-app")
    assert summary["data"]["custom_title"] == "last"


async def test_every_odd_uuid_is_its_own_idempotency_key(store: BeanieSessionStore) -> None:
    uuids = ["", "\0", "\ud83d", "\ude00", "\ud83d\ude00", "\U0001f600", "é", "e\u0301"]
    uuids += ["a" * 256, "a" * 257, "a" * 100_000, "A", "a", "sha256:", "sha256:" + "0" * 64]
    expected = [{"uuid": value, "n": n} for n, value in enumerate(uuids)]
    await store.append(KEY, expected)
    await assert_comes_back(store, KEY, expected)
    for entry in expected:
        await store.append(KEY, [entry])
    await BeanieSessionStore().append(KEY, expected)
    await assert_comes_back(store, KEY, expected)


async def test_a_digest_as_uuid_does_not_meet_the_uuid_it_is_the_digest_of(
    store: BeanieSessionStore, entries: Any
) -> None:
    await store.append(KEY, [{"uuid": "\ud83d", "n": 1}])
    stored = (await entries.find_one({}))["uuid"]
    expected = [{"uuid": "\ud83d", "n": 1}, {"uuid": stored, "n": 2}]
    await store.append(KEY, [expected[1]])
    await assert_comes_back(store, KEY, expected)


async def test_a_uuid_that_is_no_string_is_no_idempotency_key(store: BeanieSessionStore) -> None:
    expected = [{"uuid": value} for value in (None, 1, True, 1.5, [], {"$ne": None}, ["a"])]
    await store.append(KEY, expected)
    await assert_comes_back(store, KEY, expected)


# Large entries


# Just large enough that its packed form is cut into chunks.
CHUNKED = 22 * MIB


@cache
def incompressible(size: int) -> str:
    """Text of random characters, which shrinks by a quarter at most."""
    return base64.b64encode(random.Random(size).randbytes(size * 3 // 4 + 3)).decode()[:size]


def entry_of_size(size: int, **fields: Any) -> dict[str, Any]:
    """An entry whose native form takes exactly ``size`` bytes."""
    entry = {**fields, "text": ""}
    entry["text"] = "x" * (size - len(bson.encode(entry)))
    assert len(bson.encode(entry)) == size
    return entry


@pytest.mark.parametrize(
    ("make", "size"),
    [
        pytest.param(lambda size: "x" * size, 17 * MIB, id="flat"),
        pytest.param(incompressible, CHUNKED, id="chunked"),
        pytest.param(incompressible, 17 * MIB, id="packed", marks=pytest.mark.soak),
        pytest.param(lambda size: "x" * size, 40 * MIB, id="flat 40", marks=pytest.mark.soak),
        pytest.param(incompressible, 40 * MIB, id="chunked 40", marks=pytest.mark.soak),
    ],
)
async def test_an_entry_beyond_the_document_limit_comes_back(
    store: BeanieSessionStore, make: Callable[[int], str], size: int
) -> None:
    expected = [{"n": 1}, {"uuid": "big", "text": make(size)}, {"n": 2}]
    await store.append(KEY, expected)
    # Equality first: a difference of this size is no reading.
    assert (await store.load(KEY) == expected) is True
    assert ([entry async for entry in store.stream(KEY)] == expected) is True


async def test_a_large_entry_that_compresses_takes_one_document(
    store: BeanieSessionStore, entries: Any, chunks: Any
) -> None:
    await store.append(KEY, [{"text": "x" * 17 * MIB}])
    document = await entries.find_one({})
    assert "packed" in document
    assert "entry" not in document
    assert "chunks" not in document
    assert await chunks.count_documents({}) == 0


@pytest.mark.parametrize(
    ("over", "form"), [(-1, "entry"), (0, "entry"), (1, "packed")], ids=["below", "at", "above"]
)
async def test_native_reaches_exactly_to_its_limit(
    store: BeanieSessionStore, entries: Any, over: int, form: str
) -> None:
    # The longest names that a key may have must still fit beside it.
    key = {"project_key": "p" * 1024, "session_id": "s" * 1024, "subpath": "a" * 1024}
    expected = entry_of_size(MAX_VALUE_BYTES + over, uuid="u" * 256)
    await store.append(key, [expected])
    forms = {"entry", "packed", "chunks"} & (await entries.find_one({})).keys()
    assert forms == {form}
    assert (await store.load(key) == [expected]) is True


async def test_a_packed_entry_near_the_document_limit_comes_back(
    store: BeanieSessionStore, entries: Any, chunks: Any
) -> None:
    # Random base64 packs to just over three quarters.
    expected = [{"text": incompressible(20 * MIB)}]
    await store.append(KEY, expected)
    assert (await store.load(KEY) == expected) is True
    document = await entries.find_one({})
    assert 14 * MIB < len(document["packed"]) <= MAX_VALUE_BYTES
    assert await chunks.count_documents({}) == 0


async def test_a_batch_of_large_native_entries_is_stored_whole(store: BeanieSessionStore) -> None:
    # More than one message to the server can take.
    expected = [entry_of_size(10 * MIB, n=n) for n in range(5)]
    await store.append(KEY, expected)
    assert (await store.load(KEY) == expected) is True


@pytest.mark.parametrize("prompt", ["x" * 17 * MIB, LONE], ids=["large", "surrogate"])
async def test_a_prompt_that_only_packs_takes_one_summary_document(
    store: BeanieSessionStore, summaries: Any, chunks: Any, prompt: str
) -> None:
    await store.append(KEY, [{"lastPrompt": prompt}])
    document = await summaries.find_one({})
    assert "packed_data" in document
    assert "data" not in document
    assert await chunks.count_documents({}) == 0
    (summary,) = await BeanieSessionStore().list_session_summaries("-app")
    assert (summary["data"]["last_prompt"] == prompt) is True


@pytest.mark.parametrize("first", [True, False], ids=["on creation", "on a later append"])
async def test_a_large_prompt_fits_beside_large_metadata(database: Database, first: bool) -> None:
    # As much of everything as is allowed.
    note = "m" * 65_500
    key = {"project_key": "p" * 1024, "session_id": "s" * 1024}
    store = BeanieSessionStore(tenant="t" * 1024, metadata={"note": note})
    if not first:
        await store.append(key, [{"n": 1}])
    # The fold is just small enough to be kept natively.
    prompt = "x" * (MAX_VALUE_BYTES - 200)
    await store.append(key, [{"lastPrompt": prompt}])
    (summary,) = await store.list_session_summaries(key["project_key"])
    assert (summary["data"]["last_prompt"] == prompt) is True
    stored = await SessionSummary.find_one({"metadata.note": note})
    assert stored is not None


# Native is the rule


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "user", "message": {"role": "user", "content": "Hello"}},
        {"type": "user", "n": 2**63 - 1, "f": math.inf, "z": -0.0, "none": None},
        {"type": "user", "text": "a\0b", "emoji": "\U0001f600"},
        {"type": "user", "a.b": 1, "$set": {"$inc": 1}, "": {"": ""}},
        {"type": "user", "$ref": "alone"},
        {"type": "user", "$id": "alone", "_id": 1},
        {"type": "user", "uuid": "\ufdd0"},
        {"type": "user", "deep": json.loads("[" * 80 + "]" * 80)},
    ],
    ids=["plain", "numbers", "text", "keys", "$ref", "$id", "noncharacter", "80 levels"],
)
async def test_what_bson_can_hold_stays_a_queryable_document(
    store: BeanieSessionStore, entries: Any, entry: dict[str, Any]
) -> None:
    await store.append(KEY, [entry])
    (document,) = await entries.find({"entry.type": "user"}).to_list()
    assert isinstance(document["entry"], dict)
    assert not {"packed", "chunks"} & document.keys()
    stored = await TranscriptEntry.find({"entry.type": "user"}).to_list()
    assert [found.seq for found in stored] == [1]
    await assert_comes_back(store, KEY, [entry])


async def test_only_the_odd_entry_of_a_batch_is_packed(
    store: BeanieSessionStore, entries: Any
) -> None:
    batch = [{"type": "user", "n": n} for n in range(5)]
    batch[2]["text"] = LONE
    await store.append(KEY, batch)
    documents = await entries.find().sort("seq").to_list()
    assert ["entry" in document for document in documents] == [True, True, False, True, True]
    assert ["packed" in document for document in documents] == [False, False, True, False, False]
    assert await entries.count_documents({"entry.type": "user"}) == 4


async def test_a_summary_is_a_queryable_document(store: BeanieSessionStore, summaries: Any) -> None:
    await store.append(KEY, [{"customTitle": "Plan"}])
    assert await summaries.count_documents({"data.custom_title": "Plan"}) == 1
    # One that was packed becomes native again as soon as it can.
    await store.append(KEY, [{"customTitle": LONE}])
    assert await summaries.count_documents({"packed_data": {"$exists": True}}) == 1
    await store.append(KEY, [{"customTitle": "Plan B"}])
    document = await summaries.find_one({"data.custom_title": "Plan B"})
    assert "packed_data" not in document


# Entries as Beanie reads them


async def test_a_documents_content_is_the_entry_however_it_is_stored(
    store: BeanieSessionStore,
) -> None:
    batch = [{"type": "user", "n": 1}, {"type": "user", "n": 2**70, "text": LONE}]
    await store.append(KEY, batch)
    found = await TranscriptEntry.find(TranscriptEntry.tenant == "default").sort("seq").to_list()
    assert [document.content for document in found] == batch
    assert found[0].packed is None
    assert found[1].entry is None


async def test_a_documents_content_has_plain_ints(store: BeanieSessionStore) -> None:
    entry = {"big": 2**40, "small": 1, "true": True}
    await store.append(KEY, [entry])
    document = await TranscriptEntry.find_one(TranscriptEntry.tenant == "default")
    assert document is not None
    assert difference(entry, document.content) is None


async def test_content_over_chunks_says_how_to_read_it(
    store: BeanieSessionStore, smaller_limits: int
) -> None:
    await store.append(KEY, [{"text": incompressible(CHUNKED // smaller_limits)}])
    document = await TranscriptEntry.find_one(TranscriptEntry.tenant == "default")
    assert document is not None
    with pytest.raises(ValueError, match=r"3 chunks; read it with the store's load\(\)"):
        _ = document.content


# Damage


PACKED_DAMAGE = {
    "truncated": lambda data: data[:-5],
    "cut to nothing": lambda data: b"",
    "no compressed data": lambda data: b"\x01garbage",
    "an unknown format": lambda data: b"\x7f" + data[1:],
    "flipped bits": lambda data: data[:12] + bytes([data[12] ^ 0xFF]) + data[13:],
}


@pytest.mark.parametrize("damage", PACKED_DAMAGE.values(), ids=PACKED_DAMAGE.keys())
async def test_a_damaged_packed_entry_is_reported(
    store: BeanieSessionStore, entries: Any, damage: Callable[[bytes], bytes]
) -> None:
    await store.append(KEY, [{"n": 1}, {"text": LONE * 20}])
    document = await entries.find_one({"seq": 2})
    await entries.update_one({"seq": 2}, {"$set": {"packed": damage(document["packed"])}})
    with pytest.raises(CorruptEntryError, match=r"entry 2 of session 1111.*delete the session"):
        await store.load(KEY)
    stream = store.stream(KEY)
    assert await anext(stream) == {"n": 1}
    with pytest.raises(CorruptEntryError, match="entry 2 of"):
        await anext(stream)
    found = await TranscriptEntry.find_one({"seq": 2})
    assert found is not None
    with pytest.raises(ValueError, match="packed"):
        _ = found.content


async def test_a_damaged_chunk_is_reported(
    store: BeanieSessionStore, chunks: Any, smaller_limits: int
) -> None:
    expected = [{"text": incompressible(CHUNKED // smaller_limits)}]
    await store.append(KEY, expected)
    whole = await chunks.find_one({"part": 1})
    damages = [
        lambda: chunks.delete_one({"part": 1}),
        lambda: chunks.replace_one({"part": 1}, {**whole, "data": b"short"}),
        lambda: chunks.replace_one({"part": 1}, {**whole, "part": 7}),
    ]
    for damage in damages:
        await damage()
        with pytest.raises(CorruptEntryError, match="entry 1 of session 1111"):
            await store.load(KEY)
        with pytest.raises(CorruptEntryError, match="entry 1 of session 1111"):
            await anext(store.stream(KEY))
        await chunks.replace_one({"_id": whole["_id"]}, whole, upsert=True)
    # Once it is mended it comes back.
    assert (await store.load(KEY) == expected) is True


async def test_an_entry_without_any_content_is_reported(
    store: BeanieSessionStore, entries: Any
) -> None:
    await store.append(KEY, [{"n": 1}])
    await entries.update_one({}, {"$unset": {"entry": ""}})
    with pytest.raises(CorruptEntryError, match="entry 1 of"):
        await store.load(KEY)


async def test_a_damaged_summary_is_reported(store: BeanieSessionStore, summaries: Any) -> None:
    await store.append(KEY, [{"customTitle": LONE}])
    await summaries.update_one({}, {"$set": {"packed_data": b"\x01garbage"}})
    with pytest.raises(CorruptEntryError, match="the summary of session 1111"):
        await store.list_session_summaries("-app")
    # What it does not concern still works.
    assert len(await store.list_sessions("-app")) == 1
    assert await store.load(KEY) == [{"customTitle": LONE}]


# Nothing is left behind


async def test_deleting_a_session_leaves_no_chunks(
    store: BeanieSessionStore, smaller_limits: int
) -> None:
    big = incompressible(CHUNKED // smaller_limits)
    await store.append(KEY, [{"lastPrompt": big}])
    await store.append(SUBAGENT, [{"text": big}])
    assert set(await EntryChunk.distinct("subpath")) == {"", "subagents/agent-a1"}
    assert set(await EntryChunk.distinct("seq")) == {0, 1, 2}
    await store.delete(KEY)
    for model in (TranscriptEntry, SessionSummary, EntryChunk):
        assert await model.count() == 0
    assert await store.load(KEY) is None
    assert await store.load(SUBAGENT) is None
    # Its successor, at the same positions, reads its own chunks.
    expected = [{"text": big[::-1]}]
    await store.append(KEY, expected)
    assert (await store.load(KEY) == expected) is True


async def test_deleting_a_subagent_leaves_only_the_sessions_other_chunks(
    store: BeanieSessionStore, chunks: Any, smaller_limits: int
) -> None:
    big = {"text": incompressible(CHUNKED // smaller_limits)}
    other = {**KEY, "subpath": "subagents/agent-a10"}
    for key, entry in ((KEY, {"n": 1}), (SUBAGENT, big), (other, big)):
        await store.append(key, [entry])
    await store.delete(SUBAGENT)
    assert await chunks.distinct("subpath") == ["subagents/agent-a10"]
    assert await store.load(KEY) == [{"n": 1}]
    assert (await store.load(other) == [big]) is True
    assert await store.load(SUBAGENT) is None
    assert len(await store.list_session_summaries("-app")) == 1


async def test_a_large_last_prompt_comes_back_and_leaves_no_stale_chunks_when_replaced(
    store: BeanieSessionStore, chunks: Any, smaller_limits: int
) -> None:
    prompt, owned = (
        incompressible(CHUNKED // smaller_limits),
        {"collection": "claude_transcript_summaries"},
    )
    await store.append(KEY, [{"lastPrompt": prompt}])
    first = await chunks.count_documents(owned)
    assert first > 1
    for reader in (store, BeanieSessionStore()):
        (summary,) = await reader.list_session_summaries("-app")
        assert (summary["data"]["last_prompt"] == prompt) is True
    # Still chunked, with other content.
    await BeanieSessionStore().append(KEY, [{"customTitle": "t"}])
    assert await chunks.count_documents(owned) == first
    (summary,) = await store.list_session_summaries("-app")
    assert (summary["data"]["last_prompt"] == prompt) is True
    assert summary["data"]["custom_title"] == "t"
    # Packed, then native.
    for prompt in (LONE, "short"):
        await store.append(KEY, [{"lastPrompt": prompt}])
        assert await chunks.count_documents(owned) == 0
        (summary,) = await store.list_session_summaries("-app")
        assert summary["data"]["last_prompt"] == prompt
    # What belongs to the entry is kept.
    assert await chunks.count_documents({}) > 1


async def test_a_packed_entry_is_stored_while_the_caller_goes_on(
    store: BeanieSessionStore,
) -> None:
    # Compression runs in a thread: the caller's loop is not held up by it.
    main_thread = threading.get_ident()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            assert threading.get_ident() == main_thread
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.ensure_future(tick())
    try:
        await store.append(KEY, [{"text": incompressible(17 * MIB)}])
    finally:
        ticking.cancel()
    assert ticks > 20


async def test_what_is_packed_is_json_that_other_tools_can_read(
    store: BeanieSessionStore, entries: Any
) -> None:
    entry = {"uuid": str(uuid.UUID(int=1)), "text": LONE, "n": 2**70}
    await store.append(KEY, [entry])
    document = await entries.find_one({})
    assert unpack(document["packed"]) == entry
