"""Adoption: what other adapters stored is kept whole, in order and in time, however often run.

The shape ``mongodb-package`` is written by hand after what is publicly known of it: one document
per entry with a ``position``, a summary per session, a counter.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import bson
import pytest
from bson import DBRef, Int64, ObjectId
from claude_agent_sdk import (
    get_session_messages_from_store,
    list_sessions_from_store,
    project_key_for_directory,
)
from pymongo import MongoClient
from support.command import invoked
from support.database import Databases
from support.entries import assert_summary_is_the_fold, marker, message
from support.processes import PREPARED
from support.server import connected, forget_killed, of_one_to_kill, profiled

from beanie_session_store import (
    BeanieSessionStore,
    InvalidKeyError,
    SessionSummary,
    TranscriptEntry,
    database_of,
)
from beanie_session_store.app.adoption.adopt import adopt
from beanie_session_store.app.adoption.search import find_source
from beanie_session_store.app.adoption.sources import (
    MONGODB_PACKAGE,
    PULL_REQUEST_1014,
    AdoptionError,
    preset,
)
from beanie_session_store.app.database.driver import Database

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
MAIN, SUB, OTHER_SUB = "", "subagents/agent-a1", "subagents/agent-b2"
SHAPES = ("mongodb-package", "pull-request-1014")
DIRECTORY = "/srv/adopted"
PROJECT = project_key_for_directory(DIRECTORY)

Steps = Sequence[tuple[str, dict[str, Any]]]


class Adapter:
    """Stands for another adapter: writes documents of its shape, a second apart."""

    def __init__(self, database: Database, shape: str, *, per_transcript: bool = False) -> None:
        self.database = database
        self.shape = shape
        self.per_transcript = per_transcript
        self.clock = int(START.timestamp())
        self.positions: dict[Any, int] = {}
        self.ids = 0

    @property
    def entries(self) -> Any:
        name = "claude_session_entries" if self.shape == "mongodb-package" else "sdk_sessions"
        return self.database[name]

    def document(self, project: str, session: str, subpath: str, entry: Any) -> dict[str, Any]:
        self.clock += 1
        self.ids += 1
        stamp = self.clock.to_bytes(4, "big") + self.ids.to_bytes(8, "big")
        found: dict[str, Any] = {
            "_id": ObjectId(stamp),
            "project_key": project,
            "session_id": session,
            "entry": entry,
        }
        if subpath:
            found["subpath"] = subpath
        if self.shape == "mongodb-package":
            counter = (project, session, subpath if self.per_transcript else "")
            self.positions[counter] = self.positions.get(counter, 0) + 1
            found["position"] = Int64(self.positions[counter])
        else:
            found["mtime"] = Int64(self.clock * 1000 + 7)
        return found

    async def write(self, session: str, steps: Steps, project: str = PROJECT) -> None:
        documents = [self.document(project, session, path, entry) for path, entry in steps]
        await self.entries.insert_many(documents)
        if self.shape == "mongodb-package":
            owner = {"project_key": project, "session_id": session}
            await self.database["claude_session_summaries"].update_one(
                owner, {"$set": {"mtime": Int64(self.clock * 1000 + 7)}}, upsert=True
            )
            await self.database["claude_session_counters"].update_one(
                owner, {"$inc": {"position": len(documents)}}, upsert=True
            )

    async def mtimes(self) -> dict[str, int]:
        """What its listing says: the time of the last append to each session."""
        name = "claude_session_summaries" if self.shape == "mongodb-package" else "sdk_sessions"
        found: dict[str, int] = {}
        query = {} if self.shape == "mongodb-package" else {"subpath": {"$exists": False}}
        async for row in self.database[name].find(query):
            found[row["session_id"]] = max(found.get(row["session_id"], 0), row["mtime"])
        return found


def turn(number: int) -> list[tuple[str, dict[str, Any]]]:
    """Main and subagent entries that alternate, about half of them without uuid."""
    return [
        (MAIN, marker(f"mode-{number}")),
        (MAIN, message(f"prompt {number}", sessionId="s", cwd=DIRECTORY)),
        (SUB, message(f"task {number}")),
        (SUB, marker("same")),
        (MAIN, marker("same")),
        (MAIN, marker("same")),
        (OTHER_SUB, marker("other")),
        (MAIN, message(f"answer {number}")),
        (MAIN, {"type": "last-prompt", "lastPrompt": f"prompt {number}", "sessionId": "s"}),
    ]


@pytest.fixture(params=SHAPES)
async def adapter(request: pytest.FixtureRequest, mongo_url: str) -> AsyncIterator[Adapter]:
    async with source_adapter(mongo_url, request.param) as made:
        yield made


@pytest.fixture
async def package(mongo_url: str) -> AsyncIterator[Adapter]:
    """For what does not depend on the shape."""
    async with source_adapter(mongo_url, "mongodb-package") as made:
        yield made


@asynccontextmanager
async def source_adapter(mongo_url: str, shape: str, **options: Any) -> AsyncIterator[Adapter]:
    name = f"test_source_{uuid.uuid4().hex[:12]}"
    async with connected(mongo_url) as client:
        yield Adapter(client[name], shape, **options)
        await client.drop_database(name)


@pytest.fixture
def clean_name(databases: Databases) -> Iterator[str]:
    """A second target, for the run to compare with."""
    with databases.migrated() as name:
        yield name


def digest(url: str, name: str) -> str:
    """A hash of every document of a database."""
    found = hashlib.sha256()
    with MongoClient(url) as client:
        for collection in sorted(client[name].list_collection_names()):
            for raw in client[name][collection].find().sort("_id"):
                found.update(bson.encode(raw))
    return found.hexdigest()


def contents(url: str, name: str) -> list[Any]:
    """All that a target holds, but for what differs between any two runs."""
    with MongoClient(url) as client:
        found: list[Any] = []
        for collection in ("entries", "summaries", "chunks"):
            rows = client[name][f"claude_transcript_{collection}"].find(
                {}, {"_id": 0, "active_at": 0}
            )
            key = ("tenant", "project_key", "session_id", "seq")
            found.append(sorted(rows, key=lambda row: tuple(str(row.get(k)) for k in key)))
        return found


def key(session: str, subpath: str = MAIN) -> Any:
    found = {"project_key": PROJECT, "session_id": session}
    return {**found, "subpath": subpath} if subpath else found


async def in_order(database: Database, session: str) -> list[tuple[str, Any]]:
    rows = database["claude_transcript_entries"].find({"session_id": session}).sort("seq")
    return [(row["subpath"], row["entry"]) async for row in rows]


async def test_order_uuids_summaries_and_times_are_kept(
    adapter: Adapter, database: Database, mongo_url: str
) -> None:
    steps = [step for number in range(3) for step in turn(number)]
    await adapter.write("long", steps)
    await adapter.write("short", turn(9))
    before = digest(mongo_url, adapter.database.name)

    report = await adopt(adapter.database, tenant="acme")

    assert (report.adopted, report.skipped, report.problem_count) == (2, 0, 0)
    assert report.entries == report.documents == 36
    assert digest(mongo_url, adapter.database.name) == before
    assert await in_order(database, "long") == steps
    store = BeanieSessionStore(tenant="acme")
    await assert_summary_is_the_fold(store, key("long"))
    listed = {row["session_id"]: row["mtime"] for row in await store.list_sessions(PROJECT)}
    assert listed == await adapter.mtimes()
    rows = await database["claude_transcript_entries"].find({"session_id": "long"}).to_list()
    assert all(row.get("uuid") == row["entry"].get("uuid") for row in rows)
    rows.sort(key=lambda row: row["seq"])
    offset = timedelta(milliseconds=7 if adapter.shape == "pull-request-1014" else 0)
    times = [START + timedelta(seconds=n + 1) + offset for n in range(len(rows))]
    assert [row["created_at"].replace(tzinfo=timezone.utc) for row in rows] == times


async def test_the_sdk_works_on_adopted_sessions(adapter: Adapter, database: Database) -> None:
    ids = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"]
    for session in ids:
        asked = message(f"question of {session}", sessionId=session, parentUuid=None)
        told = {
            **message(parentUuid=asked["uuid"], sessionId=session),
            "type": "assistant",
            "message": {"role": "assistant", "content": [{"type": "text", "text": "answer"}]},
        }
        await adapter.write(session, [(MAIN, asked), (MAIN, marker()), (MAIN, told)])
    await adapter.write(ids[0], [(MAIN, marker("touched"))])

    await adopt(adapter.database, tenant="acme")

    store = BeanieSessionStore(tenant="acme")
    listed = await list_sessions_from_store(store, directory=DIRECTORY)
    # The first is what `continue_conversation` resumes.
    assert [info.session_id for info in listed] == ids
    assert listed[0].first_prompt == f"question of {ids[0]}"
    messages = await get_session_messages_from_store(store, ids[1], directory=DIRECTORY)
    assert [each.type for each in messages] == ["user", "assistant"]


async def test_positions_that_count_per_transcript_put_the_main_one_first(
    mongo_url: str, database: Database
) -> None:
    async with source_adapter(mongo_url, "mongodb-package", per_transcript=True) as adapter:
        await adapter.write("s", turn(1))
        await adopt(adapter.database, tenant="acme")
        await adapter.write("s", turn(2))
        report = await adopt(adapter.database, tenant="acme")

    assert report.entries == 9
    ordered = [subpath for subpath, _ in await in_order(database, "s")]
    assert ordered == ([MAIN] * 6 + [SUB] * 2 + [OTHER_SUB]) * 2


async def test_two_runs_equal_one(
    adapter: Adapter, database: Database, mongo_url: str, clean_name: str
) -> None:
    for session in range(4):
        await adapter.write(f"s{session}", turn(session))
    await adopt(adapter.database, tenant="acme")
    again = await adopt(adapter.database, tenant="acme")
    assert (again.adopted, again.unchanged, again.entries) == (0, 4, 0)

    await adapter.write("s1", [*turn(7), (MAIN, marker("mode-7"))])
    await adapter.write("s9", turn(9))
    third = await adopt(adapter.database, tenant="acme")
    assert (third.adopted, third.unchanged, third.entries) == (2, 3, 19)

    assert await clean_run(adapter, mongo_url, clean_name) == 55
    assert contents(mongo_url, database.name) == contents(mongo_url, clean_name)


async def clean_run(adapter: Adapter, url: str, name: str) -> int:
    """Adopt all at once into another target, and say how many entries it took."""
    async with connected(url) as client:
        return (await adopt(adapter.database, client[name], tenant="acme")).entries


CHILD = """
import asyncio
from beanie_session_store.app.adoption.adopt import adopt
from beanie_session_store.app.storage.client import open_database

async def main():
    async with open_database({url!r}, {target!r}) as database:
        await adopt(database.client[{source!r}], database, tenant="acme")

asyncio.run(main())
"""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("many", [250, pytest.param(600, marks=pytest.mark.soak)])
async def test_a_run_after_a_kill_equals_a_clean_run(
    shape: str, many: int, database: Database, mongo_url: str, clean_name: str
) -> None:
    async with source_adapter(mongo_url, shape) as adapter:
        for session in range(4):
            alike = [(MAIN, marker("same"))] * many
            await adapter.write(f"s{session}", [*alike, *turn(1), *alike, *turn(2)])
            await adapter.write(f"s{session}", [step for n in range(3) for step in turn(n)])
        total = await adapter.entries.count_documents({})
        url = of_one_to_kill(mongo_url)
        code = CHILD.format(url=url, source=adapter.database.name, target=database.name)
        killed = 0
        for share in (0.1, 0.6):
            child = await asyncio.create_subprocess_exec(PREPARED, "-c", code)
            while child.returncode is None:
                target = database["claude_transcript_entries"]
                if await target.estimated_document_count() > total * share:
                    os.kill(child.pid, signal.SIGKILL)
                    killed += 1
                    break
                await asyncio.sleep(0.01)
            await child.wait()
            await forget_killed(mongo_url)
        stored = await database["claude_transcript_entries"].count_documents({})
        assert killed == 2
        report = await adopt(adapter.database, tenant="acme")
        assert report.entries == total - stored
        await clean_run(adapter, mongo_url, clean_name)
    assert contents(mongo_url, database.name) == contents(mongo_url, clean_name)


async def test_two_runs_at_once_equal_one(
    package: Adapter, database: Database, mongo_url: str, clean_name: str
) -> None:
    for session in range(6):
        await package.write(f"s{session}", [step for n in range(4) for step in turn(n)])
    reports = await asyncio.gather(
        *(adopt(package.database, tenant="acme", workers=2) for _ in range(2))
    )
    assert sum(report.entries for report in reports) == 216
    await adopt(package.database, tenant="acme")
    await clean_run(package, mongo_url, clean_name)
    assert contents(mongo_url, database.name) == contents(mongo_url, clean_name)


async def test_a_session_deleted_in_the_store_stays_deleted(
    package: Adapter, database: Database
) -> None:
    await package.write("s", turn(1))
    await adopt(package.database, tenant="acme")
    store = BeanieSessionStore(tenant="acme")
    await store.delete(key("s"))
    await package.write("s", turn(2))
    report = await adopt(package.database, tenant="acme")
    assert report.skipped == 1
    assert await store.load(key("s")) is None


async def test_a_session_that_the_application_went_on_with_loses_nothing(
    package: Adapter, database: Database
) -> None:
    await package.write("s", turn(1))
    await adopt(package.database, tenant="acme")
    store = BeanieSessionStore(tenant="acme")
    own = message("own")
    await store.append(key("s"), [own])
    mtime = (await store.list_sessions(PROJECT))[0]["mtime"]
    await package.write("s", turn(2))
    assert (await adopt(package.database, tenant="acme")).entries == 9
    stored = await in_order(database, "s")
    assert stored[9] == (MAIN, own)
    assert len(stored) == 19
    await assert_summary_is_the_fold(store, key("s"))
    assert (await store.list_sessions(PROJECT))[0]["mtime"] >= mtime


async def existing(adapter: Adapter, stored: Steps) -> BeanieSessionStore:
    """A store whose application wrote the session itself, before any adoption."""
    store = BeanieSessionStore(tenant="acme")
    for subpath, entry in stored:
        await store.append(key("s", subpath), [entry])
    return store


async def test_a_session_that_the_store_has_in_part_gets_the_rest(
    adapter: Adapter, database: Database
) -> None:
    steps = [*turn(1), *turn(2)]
    await adapter.write("s", steps)
    store = await existing(adapter, steps[:5])
    report = await adopt(adapter.database, tenant="acme")
    assert (report.adopted, report.entries, report.problem_count) == (1, 13, 0)
    assert await in_order(database, "s") == steps
    await assert_summary_is_the_fold(store, key("s"))
    assert (await adopt(adapter.database, tenant="acme")).unchanged == 1


async def test_a_session_that_the_store_has_later_entries_of_is_reported_and_left_alone(
    package: Adapter, database: Database
) -> None:
    steps = [*turn(1), *turn(2)]
    await package.write("s", steps)
    await existing(package, [steps[10]])
    report = await adopt(package.database, tenant="acme")
    assert (report.skipped, report.entries, report.problem_count) == (1, 0, 1)
    assert "later entries" in str(report.problems[0])
    assert await in_order(database, "s") == [steps[10]]

    forced = await adopt(package.database, tenant="acme", out_of_order=True)
    assert forced.entries == 17
    assert sorted(map(str, await in_order(database, "s"))) == sorted(map(str, steps))


async def test_an_unrelated_session_of_the_same_name_is_left_alone(
    package: Adapter, database: Database
) -> None:
    await package.write("s", turn(1))
    await existing(package, [(MAIN, marker("own"))])
    report = await adopt(package.database, tenant="acme")
    assert (report.skipped, report.problem_count) == (1, 1)
    assert len(await in_order(database, "s")) == 1


async def test_tenants_are_kept_apart(package: Adapter, database: Database) -> None:
    for project in ("-srv-a", "-srv-b", "-srv-c"):
        await package.write(f"of{project}", turn(1), project)
    tenants = {"-srv-a": "a", "-srv-b": "b"}
    report = await adopt(package.database, tenant=tenants.get)
    assert (report.adopted, report.skipped, report.problem_count) == (2, 1, 0)
    for tenant, project in (("a", "-srv-a"), ("b", "-srv-b")):
        store = BeanieSessionStore(tenant=tenant)
        found = [len(await store.list_sessions(each)) for each in ("-srv-a", "-srv-b", "-srv-c")]
        assert found == [int(project == each) for each in ("-srv-a", "-srv-b", "-srv-c")]
    with pytest.raises(InvalidKeyError):
        await adopt(package.database, tenant="")


async def test_metadata_and_projects_can_be_chosen(package: Adapter, database: Database) -> None:
    for project in ("-srv-a", "-srv-b"):
        await package.write(f"of{project}", turn(1), project)
    await adopt(package.database, tenant="t", projects=["-srv-b"], metadata={"from": "old"})
    rows = await database["claude_transcript_summaries"].find().to_list()
    assert [(row["project_key"], row["metadata"]) for row in rows] == [("-srv-b", {"from": "old"})]


async def test_broken_documents_are_reported_and_adopted_once_repaired(
    adapter: Adapter, database: Database
) -> None:
    good = turn(1)
    bad: list[Any] = [None, "no JSON", [1], message(when=START), message(raw=b"x")]
    await adapter.write("s", [*good, *((MAIN, entry) for entry in bad), *turn(2)])
    odd = [
        adapter.document(PROJECT, "s", MAIN, marker()) | {"subpath": 7},
        adapter.document(PROJECT, "s", MAIN, marker()) | {"project_key": {"a": 1}},
        adapter.document(PROJECT, "", MAIN, marker()),
    ]
    await adapter.entries.insert_many(odd)
    ids = [row["_id"] async for row in adapter.entries.find({"entry": {"$in": bad}})]
    assert len(ids) == len(bad)

    seen: list[Any] = []
    report = await adopt(adapter.database, tenant="acme", on_problem=seen.append)
    assert sorted(each.document for each in seen) == sorted([*ids, *(row["_id"] for row in odd)])
    assert all(str(each.document) in str(each) for each in seen)
    assert (report.adopted, report.skipped, report.entries) == (1, 2, 18)

    again = await adopt(adapter.database, tenant="acme")
    assert (again.entries, again.problem_count) == (0, len(seen))
    repaired = marker("repaired")
    await adapter.entries.update_one({"_id": ids[0]}, {"$set": {"entry": repaired}})
    await adapter.entries.update_one({"_id": odd[0]["_id"]}, {"$unset": {"subpath": ""}})
    third = await adopt(adapter.database, tenant="acme")
    assert (third.entries, third.problem_count) == (2, len(seen) - 2)
    fourth = await adopt(adapter.database, tenant="acme")
    assert (fourth.entries, fourth.problem_count) == (0, len(seen) - 2)
    assert len(await in_order(database, "s")) == 20
    await assert_summary_is_the_fold(BeanieSessionStore(tenant="acme"), key("s"))


async def test_late_documents_are_adopted_or_reported(mongo_url: str, database: Database) -> None:
    async with source_adapter(mongo_url, "pull-request-1014") as adapter:
        early = [adapter.document(PROJECT, "s", MAIN, entry) for entry in (message(), marker())]
        await adapter.write("s", turn(1))
        await adopt(adapter.database, tenant="acme")
        await adapter.entries.insert_many(early)
        report = await adopt(adapter.database, tenant="acme")
        assert (report.entries, report.problem_count) == (1, 1)
        assert "1 documents without uuid" in str(report.problems[0])
        assert (await adopt(adapter.database, tenant="acme")).unchanged == 1


async def test_any_entry_comes_out_as_it_went_in(package: Adapter, database: Database) -> None:
    deep: Any = {}
    for _ in range(120):
        deep = {"deeper": deep}
    odd = [
        message(big=Int64(2**60), small=Int64(1)),
        message(ref=DBRef("c", 1)),
        message(deep=deep),
        message("x" * 3_000_000),
        {"type": "doubled", "uuid": "same", "n": 1},
        {"type": "doubled", "uuid": "same", "n": 1},
    ]
    await package.write("s", [(MAIN, entry) for entry in odd])
    await package.entries.insert_one(
        package.document(PROJECT, "s", MAIN, '{"type": "text", "cut": "\\ud83d"}')
    )
    report = await adopt(package.database, tenant="acme")
    assert report.problem_count == 0
    stored = await BeanieSessionStore(tenant="acme").load(key("s"))
    assert stored is not None
    assert stored[0]["big"] == 2**60  # type: ignore[typeddict-item]
    assert stored[1]["ref"] == {"$ref": "c", "$id": 1}  # type: ignore[typeddict-item]
    assert stored[2:4] == odd[2:4]
    assert stored[4:] == [odd[4], {"type": "text", "cut": "\ud83d"}]


async def test_a_source_is_told_by_its_shape(adapter: Adapter, database: Database) -> None:
    await adapter.write("s", turn(1))
    found = await find_source(adapter.database)
    assert found.name == adapter.shape
    assert found.collection == adapter.entries.name
    with pytest.raises(AdoptionError, match="holds no documents"):
        await find_source(database)
    other = PULL_REQUEST_1014 if adapter.shape == "mongodb-package" else MONGODB_PACKAGE
    with pytest.raises(AdoptionError, match=adapter.entries.name):
        await find_source(adapter.database, other)
    await adapter.database["second"].insert_one(
        {"project_key": "p", "session_id": "s", "entry": {}, "mtime": 1}
    )
    if adapter.shape == "pull-request-1014":
        with pytest.raises(AdoptionError, match="more than one"):
            await find_source(adapter.database)
    counted = await adopt(
        adapter.database, tenant="t", source=replace(found, name="chosen"), dry_run=True
    )
    assert (counted.listed, counted.documents, counted.done) == (1, 9, 0)
    assert await database["claude_transcript_entries"].count_documents({}) == 0


async def test_a_source_with_other_names_can_be_described(
    mongo_url: str, database: Database
) -> None:
    async with source_adapter(mongo_url, "mongodb-package") as adapter:
        rows = [
            {"k": {"project": PROJECT, "sid": "s"}, "n": n, "line": message(f"{n}"), "at": START}
            for n in (2, 0, 1)
        ]
        await adapter.database["lines"].insert_many(rows)
        described = preset(
            "mongodb-package",
            collection="lines",
            project_key="k.project",
            session_id="k.sid",
            order="n",
            entry="line",
            mtime="at",
        )
        await adopt(adapter.database, tenant="acme", source=described)
    store = BeanieSessionStore(tenant="acme")
    stored = await store.load(key("s"))
    assert stored == [rows[1]["line"], rows[2]["line"], rows[0]["line"]]
    (listed,) = await store.list_sessions(PROJECT)
    assert listed["mtime"] == int(START.timestamp() * 1000)
    with pytest.raises(AdoptionError):
        preset("unknown")
    with pytest.raises(AdoptionError):
        preset("mongodb-package", entry="$where")


async def test_every_query_on_the_target_starts_with_the_session(
    package: Adapter, database: Database
) -> None:
    await package.write("s", turn(1))
    operations: list[dict[str, Any]] = []
    async with profiled(database, operations):
        await adopt(package.database, tenant="acme")
        await package.write("s", turn(2))
        await adopt(package.database, tenant="acme")
    filters = [
        each
        for operation in operations
        if "claude_transcript_" in operation["ns"] and operation["op"] in ("query", "update")
        for each in [operation["command"].get("filter") or operation["command"].get("q")]
        if each and "policies" not in operation["ns"] and "migration" not in operation["ns"]
    ]
    assert filters
    assert all(list(each)[:3] == ["tenant", "project_key", "session_id"] for each in filters)


async def test_the_command_adopts_and_says_what_it_found(
    adapter: Adapter, database: Database, mongo_url: str
) -> None:
    await adapter.write("s", turn(1))
    await adapter.write("other", [(MAIN, None), *turn(2)], "-srv-other")
    command = [
        *("--url", mongo_url, "--database", database.name, "--tenant", "acme", "adopt"),
        *("--source-database", adapter.database.name, "--tenant-for", "-srv-o=others"),
    ]

    async def run(*more: str) -> tuple[int, str]:
        # The command runs a loop of its own.
        result = await asyncio.to_thread(invoked, [*command, *more])
        return result.exit_code, result.output

    code, out = await run("--dry-run")
    assert code == 0
    assert adapter.shape in out
    assert "2 sessions" in out
    code, out = await run()
    assert code == 1
    assert "2 of 2 sessions: 2 adopted (18 entries)" in out
    assert "its entry is absent" in out
    rows = await database["claude_transcript_summaries"].find().to_list()
    assert {(row["tenant"], row["session_id"]) for row in rows} == {
        ("acme", "s"),
        ("others", "other"),
    }
    code, out = await run("--project", PROJECT)
    assert code == 0
    assert "1 unchanged" in out
    code, out = await run("--from", "nothing")
    assert code == 2
    assert "mongodb-package" in out


async def test_source_and_target_may_share_a_database(database: Database) -> None:
    for shape in SHAPES:
        adapter = Adapter(database, shape)
        await adapter.write(shape, turn(1))
    for shape in SHAPES:
        assert (await adopt(database, tenant="acme", source=shape)).entries == 9
        assert (await adopt(database, tenant="acme", source=shape)).unchanged == 1
        assert await in_order(database, shape)


async def test_adopting_into_another_database_leaves_the_application_where_it_is(
    adapter: Adapter, database: Database, mongo_url: str
) -> None:
    await adapter.write("s", turn(0))
    target = database.client[f"{database.name}_other"]
    try:
        report = await adopt(adapter.database, target, tenant="acme")
        assert (report.adopted, report.problem_count) == (1, 0)
        assert database_of(SessionSummary).name == database.name
        assert database_of(TranscriptEntry).name == database.name
        assert await BeanieSessionStore(tenant="acme").list_sessions("proj") == []
    finally:
        await database.client.drop_database(target.name)
