"""What was stored is not stored again: retries, replays and repeated imports."""

from __future__ import annotations

import random

import pytest
from beanie import init_beanie
from support.entries import (
    KEY,
    SUBAGENT,
    assert_summary_is_the_fold,
    marker,
    message,
    seqs,
    turn,
)
from support.server import connected, failing

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    SessionStoreError,
    SessionSummary,
)
from beanie_session_store.app.database.driver import Database


async def test_replayed_batch_changes_nothing(store: BeanieSessionStore) -> None:
    first, second = turn(1), turn(2)
    await store.append(KEY, first)
    await store.append(KEY, second)
    before = await SessionSummary.find_one({})
    for batch in (first, second, first + second):
        await store.append(KEY, batch)
        assert await store.load(KEY) == first + second
    assert await SessionSummary.find_one({}) == before


async def test_replay_in_other_batches_changes_nothing(store: BeanieSessionStore) -> None:
    entries = [entry for number in range(8) for entry in turn(number)]
    await store.append(KEY, entries)
    for size in (1, 2, 3, 5, 7, 100):
        importer = BeanieSessionStore()
        for at in range(0, len(entries), size):
            await importer.append(KEY, entries[at : at + size])
        if size > 1:
            assert await store.load(KEY) == entries, f"in batches of {size}"
        else:
            # The very first entry has neither a uuid nor a neighbour to be known by.
            assert await store.load(KEY) == [*entries, entries[0]]
            await store.delete(KEY)
            await store.append(KEY, entries)


async def test_a_partly_new_batch_stores_only_what_is_missing(store: BeanieSessionStore) -> None:
    first, second = turn(1), turn(2)
    await store.append(KEY, first)
    await store.append(KEY, first + second)
    assert await store.load(KEY) == first + second
    assert await seqs() == list(range(1, 13))
    await assert_summary_is_the_fold(store)


async def test_a_replay_does_not_roll_the_summary_back(store: BeanieSessionStore) -> None:
    old = [message("one", customTitle="old title")]
    await store.append(KEY, old)
    await store.append(KEY, [message("two", customTitle="new title")])
    await store.append(KEY, [*old, message("three")])
    (summary,) = await store.list_session_summaries("project")
    assert summary["data"]["custom_title"] == "new title"
    await assert_summary_is_the_fold(store)


async def test_a_repeated_marker_of_a_new_turn_is_kept(store: BeanieSessionStore) -> None:
    batches = [[marker("plan")], [marker("plan")], [marker("plan"), message("go")]]
    for batch in batches:
        await store.append(KEY, batch)
    assert await store.load(KEY) == [entry for batch in batches for entry in batch]


async def test_an_entry_without_uuid_is_not_taken_for_a_different_neighbour(
    store: BeanieSessionStore,
) -> None:
    known = message("known")
    await store.append(KEY, [marker("a"), known, marker("b")])
    await store.append(KEY, [marker("x"), known, marker("b"), marker("y")])
    assert await store.load(KEY) == [
        marker("a"),
        known,
        marker("b"),
        marker("x"),
        marker("y"),
    ]


async def test_equal_neighbours_are_matched_once_each(store: BeanieSessionStore) -> None:
    start, end = message("start"), message("end")
    await store.append(KEY, [start, marker(), end])
    await store.append(KEY, [start, marker(), marker(), end])
    assert await store.load(KEY) == [start, marker(), end, marker()]


ALMOST_EQUAL = [1.0, True, 1, None, "1"]


@pytest.mark.parametrize("odd", ALMOST_EQUAL)
async def test_almost_equal_neighbours_are_told_apart(
    store: BeanieSessionStore, odd: object
) -> None:
    known = message("known")
    others = [kind for kind in ALMOST_EQUAL if type(kind) is not type(odd)]
    for kind in (odd, *others):
        await store.append(KEY, [known, marker(value=kind)])
    loaded = [entry["value"] for entry in (await store.load(KEY) or [])[1:]]
    assert [type(value) for value in loaded] == [type(kind) for kind in (odd, *others)]


async def test_a_uuid_twice_in_one_batch_is_stored_once(store: BeanieSessionStore) -> None:
    twin = message("twin")
    await store.append(KEY, [twin, message("other"), twin])
    loaded = await store.load(KEY) or []
    assert loaded.count(twin) == 1
    assert len(loaded) == 2


async def test_one_uuid_in_two_transcripts_is_stored_in_both(store: BeanieSessionStore) -> None:
    twin = message("twin")
    await store.append(KEY, [twin])
    await store.append(SUBAGENT, [twin])
    assert await store.load(KEY) == await store.load(SUBAGENT) == [twin]


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param([marker("only"), marker("only")], id="without-uuid"),
        pytest.param(turn(3), id="mixed"),
    ],
)
async def test_retry_after_a_commit_with_unknown_outcome_stores_once(
    store: BeanieSessionStore,
    database: Database,
    batch: list[dict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("beanie_session_store.app.database.attempts._SECONDS", 0.2)
    await store.append(KEY, turn(1))
    # The commit happens on the server, but the answer says that its majority is not known.
    write_concern_error = {"code": 64, "errmsg": "waiting for replication timed out"}
    async with failing(
        database,
        "commitTransaction",
        mode={"times": 1000},
        writeConcernError=write_concern_error,
        errorLabels=["UnknownTransactionCommitResult"],
    ):
        with pytest.raises(SessionStoreError, match="not known"):
            await store.append(KEY, batch)
    await store.append(KEY, batch)
    assert (await store.load(KEY) or [])[6:] == batch
    await assert_summary_is_the_fold(store)


@pytest.mark.parametrize("client", ["same client", "new client"])
async def test_retry_after_beanie_was_initialised_again_stores_once(
    store: BeanieSessionStore,
    database: Database,
    mongo_url: str,
    monkeypatch: pytest.MonkeyPatch,
    client: str,
) -> None:
    """As a server that reloads does, or a test suite; the batch has no uuid to know it by."""
    monkeypatch.setattr("beanie_session_store.app.database.attempts._SECONDS", 0.2)
    batch = [marker("only"), marker("only")]
    await store.append(KEY, turn(1))
    write_concern_error = {"code": 64, "errmsg": "waiting for replication timed out"}
    async with failing(
        database,
        "commitTransaction",
        mode={"times": 1000},
        writeConcernError=write_concern_error,
        errorLabels=["UnknownTransactionCommitResult"],
    ):
        with pytest.raises(SessionStoreError, match="not known"):
            await store.append(KEY, batch)
    async with connected(mongo_url) as other:
        again = database if client == "same client" else other[database.name]
        await init_beanie(database=again, document_models=DOCUMENT_MODELS)
        await store.append(KEY, batch)
        assert (await store.load(KEY) or [])[6:] == batch
        # A repetition that is one of its own is stored.
        await store.append(KEY, batch)
        assert (await store.load(KEY) or [])[6:] == batch + batch
        await assert_summary_is_the_fold(store)


async def test_a_replay_counts_what_was_stored_without_an_answer(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beanie_session_store.app.database.attempts._SECONDS", 0.2)
    first, rest = turn(1), [marker("one"), marker("two"), *turn(2)]
    replay = await store.replay(KEY)
    async with failing(
        database,
        "commitTransaction",
        mode={"times": 1000},
        writeConcernError={"code": 64, "errmsg": "waiting for replication timed out"},
        errorLabels=["UnknownTransactionCommitResult"],
    ):
        with pytest.raises(SessionStoreError, match="not known"):
            await replay.add(first)
    assert await replay.add(first) == len(first)
    assert await replay.add(rest) == len(rest)
    assert replay.added == len(first + rest)
    assert await store.load(KEY) == first + rest
    again = await store.replay(KEY)
    assert await again.add(first + rest) == 0
    await assert_summary_is_the_fold(store)


async def test_a_replay_goes_on_though_beanie_was_initialised_again(
    store: BeanieSessionStore, database: Database
) -> None:
    transcript = [message("task"), marker("one"), marker("two"), marker("three")]
    await store.append(KEY, transcript)
    again = BeanieSessionStore()
    await again.append(KEY, transcript[:2])
    await init_beanie(database=database, document_models=DOCUMENT_MODELS)
    await again.append(KEY, transcript[2:])
    assert await store.load(KEY) == transcript


async def test_random_replays_never_lose_or_double(store: BeanieSessionStore) -> None:
    """Against a model: any window of the true transcript may arrive again at any time."""
    chance = random.Random(11)
    truth = [entry for number in range(40) for entry in turn(number)]
    stored = 0
    while stored < len(truth):
        size = chance.randint(6, 18)
        if chance.random() < 0.5 and stored >= 6:
            start = chance.randrange(0, stored - 5, 6)
            await store.append(KEY, truth[start : start + 6])
        else:
            start = max(0, stored - 6 * chance.randint(0, 2))
            await store.append(KEY, truth[start : stored + size])
            stored = min(len(truth), stored + size)
            while stored < len(truth) and "uuid" not in truth[stored - 1]:
                await store.append(KEY, truth[stored - 6 : stored + 1])
                stored += 1
    assert await store.load(KEY) == truth
    await assert_summary_is_the_fold(store)


# Of fewer, some would have no entry with a uuid, by which it is known what comes again.
@pytest.mark.parametrize("size", [500, 7, 4])
async def test_importing_over_a_mirrored_session_adds_only_what_is_new(
    store: BeanieSessionStore, size: int
) -> None:
    """The agent's own file has entries that it never sends to a store, scattered about."""
    on_disk: list[dict] = []
    mirrored: list[dict] = []
    for number in range(10):
        batch = turn(number)
        await store.append(KEY, batch)
        mirrored += batch
        for index, entry in enumerate(batch):
            on_disk.append(entry)
            if index % 3 == 1:
                on_disk.append({"type": "api-request", "number": f"{number}-{index}"})
    only_on_disk = [entry for entry in on_disk if entry["type"] == "api-request"]

    async def imported() -> list[dict]:
        importer = BeanieSessionStore()
        for at in range(0, len(on_disk), size):
            await importer.append(KEY, on_disk[at : at + size])
        return await store.load(KEY) or []

    first = await imported()
    assert first == mirrored + only_on_disk
    for _ in range(3):
        assert await imported() == first
    await assert_summary_is_the_fold(store)


async def test_metadata_imported_in_a_batch_of_its_own_is_stored_once(
    store: BeanieSessionStore,
) -> None:
    transcript = [message("task"), message("done")]
    metadata = [{"type": "agent_metadata", "agentType": "general-purpose"}]
    for _ in range(3):
        importer = BeanieSessionStore()
        await importer.append(SUBAGENT, transcript)
        await importer.append(SUBAGENT, metadata)
        assert await store.load(SUBAGENT) == transcript + metadata
