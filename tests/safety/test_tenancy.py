"""A tenant's sessions are its own: no other tenant sees, changes or deletes anything of them."""

from __future__ import annotations

import base64
import copy
import random
from itertools import count
from typing import Any

import pytest
from claude_agent_sdk import fold_session_summary
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.database import own_loop

from beanie_session_store import (
    BeanieSessionStore,
    EntryChunk,
    SessionSummary,
    TranscriptEntry,
    UnknownSessionError,
    enable_search,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.models.packing import unpack

PROJECT = "-app"
SESSION = "11111111-1111-4111-8111-111111111111"
KEY = {"project_key": PROJECT, "session_id": SESSION}
SUBAGENT = {**KEY, "subpath": "subagents/agent-a1"}
UUID = "22222222-2222-4222-8222-222222222222"


def entry(text: str, uuid: str | None = UUID) -> dict[str, Any]:
    fields = {"type": "user", "message": {"role": "user", "content": text}, "customTitle": text}
    return fields if uuid is None else {**fields, "uuid": uuid}


async def collected(store: BeanieSessionStore, key: dict[str, str]) -> list[dict[str, Any]]:
    return [dict(found) async for found in store.stream(key)]


async def view(store: BeanieSessionStore, project: str, keys: list[dict[str, str]]) -> Any:
    """Everything that a store says of some transcripts and of their project."""
    return {
        "loaded": [await store.load(key) for key in keys],
        "streamed": [await collected(store, key) for key in keys],
        "subkeys": [sorted(await store.list_subkeys(key)) for key in keys],
        "sessions": sorted(map(str, await store.list_sessions(project))),
        "summaries": sorted(map(str, await store.list_session_summaries(project))),
    }


@pytest.fixture
async def ours(database: Database) -> BeanieSessionStore:
    """A store of tenant A with a session and a subagent in it."""
    store = BeanieSessionStore(tenant="A", metadata={"user_id": "a"})
    await store.append(KEY, [entry("main"), entry("no uuid", None)])
    await store.append(SUBAGENT, [entry("subagent")])
    return store


@pytest.fixture
def theirs(ours: BeanieSessionStore) -> BeanieSessionStore:
    """A store of tenant B on the same collections."""
    return BeanieSessionStore(tenant="B", metadata={"user_id": "b"})


# What another tenant can do with the same names


async def test_another_tenant_reads_nothing(
    ours: BeanieSessionStore, theirs: BeanieSessionStore, database: Database
) -> None:
    assert await theirs.load(KEY) is None
    assert await theirs.load(SUBAGENT) is None
    assert [found async for found in theirs.stream(KEY)] == []
    assert [found async for found in theirs.stream(SUBAGENT, after=1)] == []
    assert await theirs.list_sessions(PROJECT) == []
    assert await theirs.list_session_summaries(PROJECT) == []
    assert await theirs.list_subkeys(KEY) == []
    assert await theirs.transcript(KEY) is None
    assert (await theirs.sessions()).sessions == []
    assert await theirs.usage(by=()) == await theirs.tools() == []
    await enable_search(database)
    assert len(await ours.search("subagent")) == 1
    assert await theirs.search("subagent") == []
    for call in (theirs.verify, theirs.repair):
        with pytest.raises(UnknownSessionError):
            await call(KEY)
    assert len(await ours.list_sessions(PROJECT)) == 1


async def test_another_tenant_deletes_nothing(
    ours: BeanieSessionStore, theirs: BeanieSessionStore
) -> None:
    before = await view(ours, PROJECT, [KEY, SUBAGENT])
    await theirs.delete(SUBAGENT)
    await theirs.delete(KEY)
    assert await view(ours, PROJECT, [KEY, SUBAGENT]) == before
    assert before["loaded"][0] == [entry("main"), entry("no uuid", None)]


async def test_another_tenant_changes_nothing_by_writing_to_the_same_names(
    ours: BeanieSessionStore, theirs: BeanieSessionStore
) -> None:
    before = await view(ours, PROJECT, [KEY, SUBAGENT])
    await theirs.append(KEY, [entry("other main")])
    await theirs.append(SUBAGENT, [entry("other subagent")])
    assert await view(ours, PROJECT, [KEY, SUBAGENT]) == before
    assert await theirs.load(KEY) == [entry("other main")]
    await theirs.delete(KEY)
    assert await view(ours, PROJECT, [KEY, SUBAGENT]) == before


async def test_a_uuid_is_stored_in_every_transcript_that_has_it(
    ours: BeanieSessionStore, theirs: BeanieSessionStore
) -> None:
    places = [
        (store, key)
        for store in (ours, theirs)
        for project in (PROJECT, "-other")
        for session in ("s1", "s2")
        for key in (
            {"project_key": project, "session_id": session},
            {"project_key": project, "session_id": session, "subpath": "subagents/agent-a"},
            {"project_key": project, "session_id": session, "subpath": "subagents/agent-b"},
        )
    ]
    for n, (store, key) in enumerate(places):
        await store.append(key, [entry(str(n))])
    for n, (store, key) in enumerate(places):
        assert await store.load(key) == [entry(str(n))]
    # And once in each.
    for n, (store, key) in enumerate(places):
        await store.append(key, [entry(str(n))])
        assert await store.load(key) == [entry(str(n))]


async def test_a_tenants_chunks_are_its_own(database: Database, smaller_limits: int) -> None:
    stores = [BeanieSessionStore(tenant=tenant) for tenant in ("A", "B")]
    # Beyond what one document holds, packed as well.
    texts = [incompressible(seed, 17 * 1024 * 1024 // smaller_limits) for seed in (1, 2)]
    for store, text in zip(stores, texts, strict=True):
        await store.append(KEY, [{"text": text}])
    for store, text in zip(stores, texts, strict=True):
        assert (await store.load(KEY) == [{"text": text}]) is True
    await stores[1].delete(KEY)
    assert (await stores[0].load(KEY) == [{"text": texts[0]}]) is True
    assert await EntryChunk.distinct("tenant") == ["A"]


def incompressible(seed: int, size: int) -> str:
    return base64.b64encode(random.Random(seed).randbytes(size)).decode()


async def test_what_is_stored_names_its_tenant(
    ours: BeanieSessionStore, theirs: BeanieSessionStore
) -> None:
    await theirs.append(KEY, [entry("b")])
    assert await TranscriptEntry.find(TranscriptEntry.tenant == "A").count() == 3
    assert await TranscriptEntry.find(TranscriptEntry.tenant == "B").count() == 1
    assert await SessionSummary.find(SessionSummary.tenant == "A").count() == 1
    assert ours.tenant == "A"


SIMILAR = [
    ("acme", "acme-2"),
    ("a", "aa"),
    ("a", "A"),
    ("a", "a "),
    ("a", "a\n"),
    ("a/b", "a"),
    (".*", "acme"),
    ("^a", "a"),
    ("$ne", "a"),
    ("**", "a"),
    ("default", "Default"),
    ("é", "e\u0301"),
    ("ß", "ss"),
    ("1", "01"),
    ("\u200b", " "),
    ("a\uffff", "a\U00010000"),
]


async def test_similar_tenants_do_not_mix(database: Database) -> None:
    for number, names in enumerate(SIMILAR):
        key = {**KEY, "project_key": f"pair {number}"}
        subagent = {**SUBAGENT, "project_key": f"pair {number}"}
        stores = [BeanieSessionStore(tenant=name) for name in names]
        for n, store in enumerate(stores):
            await store.append(key, [entry(str(n))])
            await store.append(subagent, [entry(f"sub {n}")])
        for n, store in enumerate(stores):
            assert await store.load(key) == [entry(str(n))], names
            assert await store.load(subagent) == [entry(f"sub {n}")], names
            sessions = await store.list_sessions(key["project_key"])
            assert [found["session_id"] for found in sessions] == [SESSION], names
        await stores[0].delete(key)
        assert await stores[0].load(key) is None, names
        assert await stores[1].load(key) == [entry("1")], names
        assert await stores[1].load(subagent) == [entry("sub 1")], names


async def test_names_that_join_to_the_same_text_do_not_mix(database: Database) -> None:
    parts = [("a/b", "c", "d"), ("a", "b/c", "d"), ("a", "b", "c/d"), ("a/b/c", "d", "e")]
    keys = [
        (tenant, {"project_key": project, "session_id": session})
        for tenant, project, session in parts
    ]
    keys += [("a", {"project_key": "b", "session_id": "c", "subpath": "d"})]
    for n, (tenant, key) in enumerate(keys):
        await BeanieSessionStore(tenant=tenant).append(key, [entry(str(n))])
    for n, (tenant, key) in enumerate(keys):
        assert await BeanieSessionStore(tenant=tenant).load(key) == [entry(str(n))]


# For any names and any operations

NAMES = st.sampled_from(
    ["a", "ab", "a/b", "a.b", "a:b", "A", "é", "e\u0301", ".*", "^a", "$ne", "**", "a ", "a\n"]
) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6).filter(
    lambda name: name != "*"
)
PLACES = st.tuples(NAMES, NAMES, st.none() | NAMES)
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "delete", "read"]),
        st.integers(0, 5),
        st.lists(st.none() | st.sampled_from(["u1", "u2", "u3"]), min_size=1, max_size=3),
    ),
    max_size=8,
)


def key_of(place: tuple[str, str, str | None]) -> dict[str, str]:
    project, session, subpath = place
    key = {"project_key": project, "session_id": session}
    return key if subpath is None else {**key, "subpath": subpath}


class Model:
    """What a tenant must find, as plain dicts."""

    def __init__(self) -> None:
        self.transcripts: dict[tuple[str, str, str | None], list[dict[str, Any]]] = {}

    def append(self, place: tuple[str, str, str | None], batch: list[dict[str, Any]]) -> None:
        transcript = self.transcripts.setdefault(place, [])
        for item in batch:
            if "uuid" not in item or item not in transcript:
                transcript.append(item)

    def delete(self, place: tuple[str, str, str | None]) -> None:
        project, session, subpath = place
        for found in list(self.transcripts):
            if found == place or (subpath is None and found[:2] == (project, session)):
                del self.transcripts[found]

    def subkeys(self, place: tuple[str, str, str | None]) -> list[str]:
        return sorted(
            subpath
            for project, session, subpath in self.transcripts
            if (project, session) == place[:2] and subpath is not None
        )

    def sessions(self, project: str) -> dict[str, Any]:
        found = {}
        for place, transcript in self.transcripts.items():
            if place[0] == project and place[2] is None:
                key = {"project_key": project, "session_id": place[1]}
                found[place[1]] = fold_session_summary(None, key, transcript)["data"]
        return found


async def assert_holds(
    store: BeanieSessionStore, model: Model, places: list[tuple[str, str, str | None]]
) -> None:
    for place in places:
        expected = model.transcripts.get(place)
        assert await store.load(key_of(place)) == expected
        assert [found async for found in store.stream(key_of(place))] == (expected or [])
        assert sorted(await store.list_subkeys(key_of(place))) == model.subkeys(place)
    for project in {place[0] for place in places}:
        summaries = await store.list_session_summaries(project)
        data = {summary["session_id"]: summary["data"] for summary in summaries}
        assert data == model.sessions(project)
        sessions = await store.list_sessions(project)
        mtimes = {summary["session_id"]: summary["mtime"] for summary in summaries}
        assert {found["session_id"]: found["mtime"] for found in sessions} == mtimes
        page = await store.sessions(project_key=project, limit=1000)
        assert {session.session_id for session in page.sessions} == data.keys()


@pytest.mark.parametrize("tries", [10, pytest.param(100, marks=pytest.mark.soak)])
def test_nothing_that_one_tenant_does_changes_what_another_finds(
    mongo_url: str, database_name: str, tries: int
) -> None:
    runs, texts = count(), count()

    async def hold(
        tenants: list[str],
        places: list[tuple[str, str, str | None]],
        operations: list[tuple[int, str, int, list[str | None]]],
    ) -> None:
        # Names of one example are not met again in the next.
        suffix = f"#{next(runs)}"
        stores = [BeanieSessionStore(tenant=name + suffix) for name in tenants]
        models = [Model() for _ in tenants]
        for tenant, what, where, uuids in operations:
            store, model, place = stores[tenant], models[tenant], places[where % len(places)]
            if what == "delete":
                await store.delete(key_of(place))
                model.delete(place)
            elif what == "append":
                # Without a uuid an entry is new, whatever stands beside it.
                batch = [
                    entry(str(next(texts) if uuid is None else next(texts) % 3), uuid)
                    for uuid in uuids
                ]
                await store.append(key_of(place), batch)
                model.append(place, batch)
            else:
                await assert_holds(store, model, places)
        for store, model in zip(stores, models, strict=True):
            await assert_holds(store, model, places)
        # Nor does it depend on what a store remembers.
        for name, model in zip(tenants, models, strict=True):
            await assert_holds(BeanieSessionStore(tenant=name + suffix), model, places)

    with own_loop(mongo_url, database_name) as run:

        @settings(max_examples=tries, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(
            st.lists(NAMES, min_size=2, max_size=2, unique=True),
            st.lists(PLACES, min_size=1, max_size=3, unique=True),
            OPERATIONS.flatmap(
                lambda operations: st.tuples(
                    *(st.tuples(st.integers(0, 1), *map(st.just, one)) for one in operations)
                ).map(list)
            ),
        )
        @example(
            ["a", "a/b"],
            [("p", "s", None), ("p", "s", "sub"), ("p", "s/sub", None)],
            [
                (0, "append", 0, ["u1", None]),
                (1, "append", 0, ["u1"]),
                (0, "append", 1, ["u1"]),
                (0, "append", 2, ["u1"]),
                (1, "append", 1, ["u1"]),
                (1, "delete", 0, []),
                (0, "delete", 1, []),
            ],
        )
        def check(
            tenants: list[str],
            places: list[tuple[str, str, str | None]],
            operations: list[tuple[int, str, int, list[str | None]]],
        ) -> None:
            run(lambda: hold(tenants, places, operations))

        check()


# Metadata


async def test_metadata_is_on_every_session_and_queryable(database: Database) -> None:
    metadata = {"user_id": "u1", "team": {"name": "blue", "n": 2**40}, "tags": ["x", "y"]}
    store = BeanieSessionStore(tenant="A", metadata=metadata)
    for n in range(3):
        await store.append({"project_key": PROJECT, "session_id": f"s{n}"}, [entry(str(n))])
    # A session that a subagent's entries create has it as well.
    await store.append({**SUBAGENT, "session_id": "s3"}, [entry("3")])
    await BeanieSessionStore(tenant="A", metadata={"user_id": "u2"}).append(
        {"project_key": PROJECT, "session_id": "s4"}, [entry("4")]
    )
    for query in (
        {"metadata.user_id": "u1"},
        {"metadata.team.name": "blue"},
        {"metadata.team.n": 2**40},
        {"metadata.tags": "y"},
    ):
        found = await SessionSummary.find(query).to_list()
        assert sorted(summary.session_id for summary in found) == ["s0", "s1", "s2", "s3"]
        assert [summary.metadata for summary in found] == [metadata] * 4


async def test_a_later_store_does_not_change_a_sessions_metadata(database: Database) -> None:
    await BeanieSessionStore(metadata={"user_id": "first"}).append(KEY, [entry("1")])
    for later in ({"user_id": "second", "more": 1}, {}, None):
        store = BeanieSessionStore(metadata=later)
        await store.append(KEY, [entry("2", None)])
        await store.append(SUBAGENT, [entry("3", None)])
        (summary,) = await SessionSummary.find_all().to_list()
        assert summary.metadata == {"user_id": "first"}


async def test_metadata_does_not_appear_on_a_session_that_was_made_without(
    database: Database,
) -> None:
    await BeanieSessionStore().append(KEY, [entry("1")])
    await BeanieSessionStore(metadata={"user_id": "later"}).append(KEY, [entry("2", None)])
    stored = await database["claude_transcript_summaries"].find_one({})
    assert stored is not None
    assert not {"metadata", "packed_metadata"} & stored.keys()


async def test_a_session_made_anew_has_the_metadata_of_its_new_maker(
    database: Database,
) -> None:
    first = BeanieSessionStore(metadata={"user_id": "first"})
    second = BeanieSessionStore(metadata={"user_id": "second"})
    await first.append(KEY, [entry("1")])
    await second.append(KEY, [entry("2", None)])
    await first.delete(KEY)
    await second.append(KEY, [entry("3")])
    (summary,) = await SessionSummary.find_all().to_list()
    assert summary.metadata == {"user_id": "second"}


async def test_changing_the_dict_afterwards_changes_no_metadata(database: Database) -> None:
    metadata: dict[str, Any] = {"user_id": "u1", "team": {"name": "blue"}, "tags": ["x"]}
    given_ = copy.deepcopy(metadata)
    store = BeanieSessionStore(metadata=metadata)
    metadata["user_id"] = "changed"
    metadata["team"]["name"] = "changed"
    metadata["tags"].append("changed")
    metadata["date"] = object()
    await store.append(KEY, [entry("1")])
    (summary,) = await SessionSummary.find_all().to_list()
    assert summary.metadata == given_


@pytest.mark.parametrize(
    "metadata",
    [
        {"name": "cut \ud83d"},
        {"\ud83d": 1},
        {"n": 2**70},
        {"a\0b": 1},
        {"$ref": "c", "$id": 1},
        {"n": 2**70, "user_id": "u1"},
    ],
    ids=["surrogate", "surrogate key", "large int", "NUL key", "reference", "mixed"],
)
async def test_metadata_that_bson_cannot_hold_is_kept(
    database: Database, metadata: dict[str, Any]
) -> None:
    store = BeanieSessionStore(metadata=metadata)
    await store.append(KEY, [entry("1")])
    (summary,) = await SessionSummary.find_all().to_list()
    assert summary.metadata is None
    assert summary.packed_metadata is not None
    assert unpack(summary.packed_metadata) == metadata
    # The session is none the worse for it.
    assert await store.load(KEY) == [entry("1")]
    assert len(await store.list_session_summaries(PROJECT)) == 1


@pytest.mark.parametrize(
    "metadata", [{}, {"a.b": 1, "$set": {"$inc": 1}, "": ""}, {"_id": 1}, {"t": None}]
)
async def test_odd_metadata_is_kept_as_it_is(database: Database, metadata: dict[str, Any]) -> None:
    await BeanieSessionStore(metadata=metadata).append(KEY, [entry("1")])
    (summary,) = await SessionSummary.find_all().to_list()
    assert summary.metadata == metadata


async def test_metadata_is_not_part_of_the_sdks_summary(ours: BeanieSessionStore) -> None:
    (summary,) = await ours.list_session_summaries(PROJECT)
    assert set(summary) == {"session_id", "mtime", "data"}
    assert "user_id" not in str(summary)
