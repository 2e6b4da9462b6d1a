"""Different entries under one uuid: each is kept, and each only once however often it comes.

Agents write them: a prompt with thirty attachments gives all of these one uuid.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import subprocess
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import (
    InMemorySessionStore,
    fork_session_via_store,
    project_key_for_directory,
)
from support.entries import (
    KEY,
    SUBAGENT,
    assert_summary_is_the_fold,
    marker,
    message,
    seqs,
    turn,
)
from support.processes import PREPARED
from support.server import connected
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    BeanieSessionStore,
    adopt,
    copy_sessions,
    export_transcripts,
    import_transcripts,
    verify_sessions,
)
from beanie_session_store.app.database.driver import Database

PROJECT = "-srv-app"
SESSION = "11111111-1111-4111-8111-111111111111"
ON_DISK: Any = {"project_key": PROJECT, "session_id": SESSION}


def attachment(number: int, uuid: str = "one") -> dict[str, Any]:
    return {
        "type": "attachment",
        "uuid": uuid,
        "parentUuid": "prompt",
        "timestamp": "2026-01-01T00:00:01.000Z",
        "attachment": {"type": "file", "filename": f"file-{number}.txt"},
    }


ATTACHMENTS = [attachment(number) for number in range(30)]
LINES = [
    marker("plan"),
    {**message("look at these"), "uuid": "prompt"},
    *ATTACHMENTS,
    marker("plan"),
    {**message("and then?"), "uuid": "later", "parentUuid": "one"},
]


def parts(entries: list[dict[str, Any]], size: int) -> list[list[dict[str, Any]]]:
    return [entries[at : at + size] for at in range(0, len(entries), size)]


@pytest.mark.parametrize("size", [1, 2, 7, 29, 100])
async def test_all_are_kept_in_batches_of_any_size(store: BeanieSessionStore, size: int) -> None:
    for part in parts(LINES, size):
        await store.append(KEY, part)
    assert await store.load(KEY) == LINES
    assert [dict(entry) async for entry in store.stream(KEY)] == LINES
    assert await seqs() == list(range(1, len(LINES) + 1))
    await assert_summary_is_the_fold(store)
    found = (await store.transcript(KEY)).entries
    assert [dict(entry.raw) for entry in found] == LINES


@pytest.mark.parametrize("size", [2, 7, 100])
async def test_another_store_that_sends_them_again_changes_nothing(
    store: BeanieSessionStore, size: int
) -> None:
    await store.append(KEY, LINES)
    for again in (LINES, ATTACHMENTS, ATTACHMENTS[::-1], [ATTACHMENTS[17]], LINES[5:]):
        for part in parts(again, size):
            await BeanieSessionStore().append(KEY, part)
        assert await store.load(KEY) == LINES


async def test_a_batch_of_old_and_new_ones_adds_the_new(store: BeanieSessionStore) -> None:
    await store.append(KEY, ATTACHMENTS[:10])
    mixed = ATTACHMENTS[5:20]
    random.Random(1).shuffle(mixed)
    await BeanieSessionStore().append(KEY, mixed)
    loaded = await store.load(KEY) or []
    assert loaded[:10] == ATTACHMENTS[:10]
    assert sorted(map(json.dumps, loaded)) == sorted(map(json.dumps, ATTACHMENTS[:20]))
    new = [entry for entry in mixed if entry not in ATTACHMENTS[:10]]
    assert loaded[10:] == new


async def test_what_differs_in_type_alone_is_another_entry(store: BeanieSessionStore) -> None:
    kinds = [{"uuid": "u", "n": value} for value in (1, 1.0, True, "1", None)]
    for batch in ([kinds[0]], kinds[1:3], kinds, [*kinds, *kinds]):
        await store.append(KEY, batch)
    loaded = await store.load(KEY) or []
    assert [type(entry["n"]) for entry in loaded] == [int, float, bool, str, type(None)]


async def test_the_order_of_keys_makes_no_other_entry(store: BeanieSessionStore) -> None:
    await store.append(KEY, [{"uuid": "u", "a": 1, "b": {"c": 1, "d": 2}}])
    await store.append(KEY, [{"b": {"d": 2, "c": 1}, "a": 1, "uuid": "u"}])
    assert await store.load(KEY) == [{"uuid": "u", "a": 1, "b": {"c": 1, "d": 2}}]


ODD = ["", "\0", "\ud83d", "a" * 300, "sha256:" + "0" * 64, f"sha256:{'0' * 64}:{'0' * 64}"]


@pytest.mark.parametrize("uuid", ODD, ids=range(len(ODD)))
async def test_it_holds_for_any_uuid_and_content(store: BeanieSessionStore, uuid: str) -> None:
    deep: Any = "x"
    for _ in range(120):
        deep = [deep]
    texts = ["plain", "\ud83d", deep, 2**70, "x" * 1_000_000]
    entries = [{"uuid": uuid, "text": text} for text in texts]
    await store.append(KEY, entries[:2])
    for _ in range(2):
        for part in parts(entries, 2):
            await BeanieSessionStore().append(KEY, part)
    assert await store.load(KEY) == entries


async def test_a_key_that_was_stored_is_no_uuid_of_another(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, ATTACHMENTS[:2])
    rows = database["claude_transcript_entries"].find({}, {"uuid": 1}).sort("seq", 1)
    first, second = [row["uuid"] async for row in rows]
    assert first == "one"
    # Somebody's entry that has the digest itself as its uuid.
    impostor = {"type": "user", "uuid": second}
    await store.append(KEY, [impostor])
    assert await store.load(KEY) == [*ATTACHMENTS[:2], impostor]


async def test_larger_than_a_document(store: BeanieSessionStore, smaller_limits: int) -> None:
    size = 9_000_000 // smaller_limits
    texts = [random.Random(seed).randbytes(size).hex() for seed in (1, 2)]
    entries = [{"uuid": "u", "text": text} for text in texts]
    for entry in (*entries, *entries):
        await store.append(KEY, [entry])
    assert (await store.load(KEY) == entries) is True


async def test_a_subagent_has_its_own(store: BeanieSessionStore) -> None:
    await store.append(KEY, ATTACHMENTS[:2])
    await store.append(SUBAGENT, ATTACHMENTS[1:3])
    await BeanieSessionStore().append(SUBAGENT, ATTACHMENTS)
    assert await store.load(KEY) == ATTACHMENTS[:2]
    assert await store.load(SUBAGENT) == [*ATTACHMENTS[1:3], ATTACHMENTS[0], *ATTACHMENTS[3:]]


async def test_without_transactions(standalone_database: Database) -> None:
    for part in (ATTACHMENTS[:3], ATTACHMENTS[1:7], ATTACHMENTS):
        await BeanieSessionStore().append(KEY, part)
    assert await BeanieSessionStore().load(KEY) == ATTACHMENTS


async def test_a_further_one_comes_first_after_a_delete(store: BeanieSessionStore) -> None:
    """Its uuid is free again, so it takes it, or it would not be known when it comes again."""
    await store.append(KEY, ATTACHMENTS[:3])
    await store.delete(KEY)
    await store.append(KEY, [ATTACHMENTS[2]])
    await BeanieSessionStore().append(KEY, ATTACHMENTS[:3])
    assert await store.load(KEY) == [ATTACHMENTS[2], *ATTACHMENTS[:2]]


async def test_deletes_meanwhile_leave_none_twice(
    store: BeanieSessionStore, database: Database
) -> None:
    rng = random.Random(7)
    for _ in range(3):

        async def write(entries: list[dict[str, Any]]) -> None:
            own = BeanieSessionStore()
            for part in parts(entries, 3):
                await own.append(KEY, part)
                await asyncio.sleep(rng.uniform(0, 0.01))

        async def delete() -> None:
            for _ in range(4):
                await asyncio.sleep(rng.uniform(0, 0.03))
                await BeanieSessionStore().delete(KEY)

        await asyncio.gather(write(ATTACHMENTS), write(ATTACHMENTS[::-1]), delete())
        await store.append(KEY, ATTACHMENTS)
        loaded = await store.load(KEY) or []
        assert sorted(map(json.dumps, loaded)) == sorted(map(json.dumps, ATTACHMENTS))


WRITER = """
import asyncio, json, sys
from beanie_session_store import BeanieSessionStore

async def main(url, database, size):
    entries = json.load(sys.stdin)
    async with BeanieSessionStore.connect(url, database=database) as store:
        for at in range(0, len(entries), int(size)):
            await store.append(
                {"project_key": "project", "session_id": "session"}, entries[at : at + int(size)]
            )

asyncio.run(main(*sys.argv[1:]))
"""


async def test_two_processes_at_once(
    mongo_url: str, database_name: str, store: BeanieSessionStore
) -> None:
    def write(size: int, entries: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PREPARED, "-c", WRITER, mongo_url, database_name, str(size)],
            input=json.dumps(entries),
            capture_output=True,
            text=True,
            check=False,
        )

    shuffled = random.Random(3).sample(ATTACHMENTS, 30)
    done = await asyncio.gather(
        asyncio.to_thread(write, 4, ATTACHMENTS), asyncio.to_thread(write, 3, shuffled)
    )
    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * 2
    loaded = await store.load(KEY) or []
    assert sorted(map(json.dumps, loaded)) == sorted(map(json.dumps, ATTACHMENTS))
    await assert_summary_is_the_fold(store)


async def test_a_watcher_sees_all(store: BeanieSessionStore) -> None:
    await store.append(KEY, LINES[:9])
    seen: list[dict[str, Any]] = []
    async with aclosing(store.watch(KEY)) as watched:

        async def collect() -> None:
            async for entry in watched:
                seen.append(dict(entry))
                if len(seen) == len(LINES):
                    return

        task = asyncio.create_task(collect())
        for part in parts(LINES, 8):
            await BeanieSessionStore().append(KEY, part)
        await asyncio.wait_for(task, WATCHDOG_SECONDS)
    assert seen == LINES


def answer(uuid: str, parent: str, text: str) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {
        "type": "assistant",
        "uuid": uuid,
        "parentUuid": parent,
        "timestamp": "2026-01-01T00:00:02.000Z",
        "message": {"role": "assistant", "id": f"msg_{uuid}", "content": content},
    }


@pytest.mark.parametrize(
    ("uuid", "parent"),
    [("one", "prompt"), ("one", "one"), ("prompt", "prompt"), ("prompt", None), ("done", "done")],
    ids=[
        "of their own",
        "each behind itself",
        "the prompt's",
        "the prompt's, at a start",
        "the answer's",
    ],
)
async def test_the_conversation_does_not_break(
    store: BeanieSessionStore, uuid: str, parent: str | None
) -> None:
    attachments = [{**attachment(number, uuid), "parentUuid": parent} for number in range(30)]
    if uuid == "one":
        attachments[0]["parentUuid"] = "prompt"
    behind = "one" if uuid == "one" else "prompt"
    entries = [
        {**message("look at these"), "uuid": "prompt", "parentUuid": None},
        *(attachments if uuid != "done" else []),
        answer("done", behind, "Seen."),
        *(attachments if uuid == "done" else []),
        {**message("and then?"), "uuid": "later", "parentUuid": "done"},
        answer("end", "later", "No more."),
    ]
    for part in parts(entries, 4):
        await store.append(KEY, part)
    assert await store.load(KEY) == entries
    transcript = await store.transcript(KEY)
    assert transcript is not None
    told = [(turn.text, turn.answer) for turn in transcript.turns]
    assert told == [("look at these", "Seen."), ("and then?", "No more.")]
    summary = await store.summary(KEY)
    assert summary is not None
    assert summary.totals is not None
    assert (summary.totals.turns, summary.totals.entries) == (2, len(entries))


def on_disk(folder: Path, lines: list[dict[str, Any]], session: str = SESSION) -> Path:
    path = folder / PROJECT / f"{session}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("others", [0, 3], ids=["alone", "with others"])
async def test_a_file_goes_in_and_comes_out_whole(
    store: BeanieSessionStore, tmp_path: Path, others: int
) -> None:
    given = on_disk(tmp_path / "in", LINES)
    for number in range(others):
        on_disk(tmp_path / "in", turn(number), f"22222222-2222-4222-8222-22222222222{number}")
    report = await import_transcripts(store, tmp_path / "in")
    assert (report.entries, report.problem_count) == (len(LINES) + 6 * others, 0)
    again = await import_transcripts(BeanieSessionStore(), tmp_path / "in")
    assert (again.entries, again.unchanged) == (0, 1 + others)
    await export_transcripts(store, tmp_path / "out", format="jsonl")
    written = tmp_path / "out" / PROJECT / given.name
    assert [json.loads(line) for line in written.read_text().splitlines()] == LINES


@pytest.mark.parametrize("size", [1, 4, 100])
async def test_an_import_over_what_was_mirrored_adds_the_rest(
    store: BeanieSessionStore, tmp_path: Path, size: int
) -> None:
    for part in parts(LINES[:12], size):
        await store.append(ON_DISK, part)
    on_disk(tmp_path, LINES)
    report = await import_transcripts(BeanieSessionStore(), tmp_path)
    assert report.entries == len(LINES) - 12
    assert await store.load(ON_DISK) == LINES


async def test_copies_and_forks_have_all(store: BeanieSessionStore) -> None:
    await store.append(ON_DISK, LINES)
    other = BeanieSessionStore(tenant="other")
    for added in (len(LINES), 0):
        report = await copy_sessions(store, other)
        assert (report.entries, report.problem_count) == (added, 0)
    assert await other.load(ON_DISK) == LINES
    foreign = InMemorySessionStore()
    await foreign.append(ON_DISK, LINES)
    third = BeanieSessionStore(tenant="third")
    await copy_sessions(foreign, third, projects=[PROJECT])
    assert await third.load(ON_DISK) == LINES
    directory = "/srv/forked"
    key: Any = {"project_key": project_key_for_directory(directory), "session_id": SESSION}
    await store.append(key, LINES)
    forked = await fork_session_via_store(store, SESSION, directory)
    loaded = await store.load({**key, "session_id": forked.session_id}) or []
    names = [entry["attachment"]["filename"] for entry in loaded if entry["type"] == "attachment"]
    assert names == [f"file-{number}.txt" for number in range(30)]


@pytest.mark.parametrize("again", [False, True], ids=["new", "complete"])
async def test_adopted_sessions_have_all(
    store: BeanieSessionStore, mongo_url: str, database_name: str, again: bool
) -> None:
    async with connected(mongo_url) as client:
        source = client[f"{database_name}_source"]
        try:
            await source["claude_session_entries"].insert_many(
                [
                    {"project_key": PROJECT, "session_id": SESSION, "position": n, "entry": line}
                    for n, line in enumerate(LINES, 1)
                ]
            )
            target = BeanieSessionStore(tenant="acme")
            if again:
                await target.append(ON_DISK, LINES[:9])
            report = await adopt(source, tenant="acme")
            assert (report.entries, report.problem_count) == (len(LINES) - 9 * again, 0)
            assert await target.load(ON_DISK) == LINES
            assert (await adopt(source, tenant="acme")).unchanged == 1
        finally:
            await client.drop_database(source.name)


async def test_the_key_of_a_further_one_is_made_of_uuid_and_content(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, ATTACHMENTS)
    rows = database["claude_transcript_entries"].find({}, {"uuid": 1}).sort("seq", 1)
    first, *further = [row["uuid"] async for row in rows]
    assert first == "one"
    digest = hashlib.sha256(b"one").hexdigest()
    assert further == [
        f"sha256:{digest}:{hashlib.sha256(written.encode()).hexdigest()}"
        for written in (json.dumps(entry, sort_keys=True) for entry in ATTACHMENTS[1:])
    ]
    assert (await verify_sessions(store, store.all_sessions())).is_sound
