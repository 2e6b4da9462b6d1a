"""Whatever keeps a store from working, or from keeping a promise, is found and said."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from beanie import init_beanie
from pymongo import IndexModel, ReadPreference
from support.command import SessionStoreCommand
from support.database import prepared
from support.entries import KEY, turn
from support.secured import PASSWORD, SecuredServer
from support.server import Commands, connected, without_expiry
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    ClientClosedError,
    Diagnosis,
    EmbeddedMongo,
    InvalidModelError,
    SessionSummary,
    TranscriptEntry,
    clear_retention,
    diagnose,
    downgrade_schema,
    set_retention,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import (
    Database,
    close_client,
    collection_of,
    open_client,
)
from beanie_session_store.app.embedded.mongo import Member
from beanie_session_store.app.health.exposure import tls
from beanie_session_store.app.health.permissions import needed_besides, needed_to_use
from beanie_session_store.app.health.server_checks import room
from beanie_session_store.app.health.target import Target
from beanie_session_store.app.storage.connection import StoreModels

CHECKS = [
    *("client", "server", "topology", "clock", "tls", "permissions", "schema"),
    *("indexes", "transactions", "retention", "summaries", "encryption", "disk"),
]
READS = {
    *("hello", "buildInfo", "connectionStatus", "find", "listIndexes", "aggregate", "dbStats"),
    *(
        "listCollections",
        "commitTransaction",
        "endSessions",
        "getMore",
        "killCursors",
        "replSetGetConfig",
    ),
}
LOG = "claude_transcript_migrations"


def said(diagnosis: Diagnosis, check: str) -> tuple[str, str]:
    """The verdict of a check, and all that it says."""
    finding = diagnosis.of(check)
    assert finding is not None, diagnosis
    assert (finding.verdict == "good") == (finding.advice is None), finding
    return finding.verdict, f"{finding.found}. {finding.advice or ''}"


@asynccontextmanager
async def on(url: str, name: str = "doctor") -> AsyncIterator[Database]:
    async with connected(url) as client:
        yield client[name]


async def test_all_is_looked_at_and_only_the_lone_member_is_found(database: Database) -> None:
    found = await diagnose(database)
    assert [finding.check for finding in found.findings] == CHECKS
    wrong = [finding for finding in found.findings if finding.verdict != "good"]
    assert [finding.check for finding in wrong] == ["topology"]
    assert "no copy of its data" in wrong[0].found
    assert found.is_healthy
    assert not found.is_clean
    assert found.database == database.name
    assert found.hosts.startswith("127.0.0.1:")
    assert "beanie-session-store 0" in said(found, "client")[1]


async def test_an_examination_writes_nothing(mongo_url: str, database_name: str) -> None:
    commands = Commands()
    async with connected(mongo_url, event_listeners=[commands]) as client:
        await diagnose(client[database_name])
        assert set(commands.names) <= READS
        assert await client[database_name].list_collection_names() == []
        await upgrade_schema(client[database_name])
        commands.sent.clear()
        await diagnose(client[database_name])
        assert set(commands.names) <= READS


async def test_three_members_are_in_order_until_some_are_lost() -> None:
    with EmbeddedMongo(members=3) as mongo:
        command = SessionStoreCommand(mongo.url, "doctor")
        async with on(mongo.url) as database:
            await upgrade_schema(database)
            whole = await diagnose(database)
            assert whole.is_clean, whole
            assert "of 3 members, primary" in said(whole, "topology")[1]
        clean = await command("doctor")
        assert (clean.code, clean.output.splitlines()[-1]) == (0, "everything is in order")
        async with on(mongo.url) as database:
            await forget_the_journal(database, True)
            verdict, text = said(await diagnose(database), "topology")
            assert (verdict, "before a write is in the journal" in text) == ("warning", True)
            await forget_the_journal(database, False)
        await lose(mongo.members[2])
        async with on(mongo.url) as database:
            verdict, text = said(await diagnose(database), "topology")
            assert verdict == "warning"
            assert f"127.0.0.1:{mongo.members[2].port}: " in text
            assert "start mongod" in text
        await lose(mongo.members[1])
        async with on(mongo.url) as database:
            await without_primary(database)
            found = await diagnose(database)
            verdict, text = said(found, "topology")
            assert (verdict, found.is_healthy) == ("bad", False)
            assert "none of them is primary" in text
            assert found.findings[-1].check == "tls"


async def forget_the_journal(database: Database, forgets: bool) -> None:
    admin: Any = database.client.admin
    config = (await admin.command("replSetGetConfig"))["config"]
    config["version"] += 1
    config["writeConcernMajorityJournalDefault"] = not forgets
    await admin.command("replSetReconfig", config)


async def lose(member: Member) -> None:
    os.kill(member.pid, signal.SIGKILL)
    while answers(member):  # noqa: ASYNC110 - the kernel has no event
        await asyncio.sleep(0.05)


def answers(member: Member) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", member.port)) != errno.ECONNREFUSED


async def without_primary(database: Database) -> None:
    deadline = time.monotonic() + WATCHDOG_SECONDS
    while time.monotonic() < deadline:
        admin = database.client.admin
        hello: Any = await admin.command("hello", read_preference=ReadPreference.NEAREST)
        if not hello["isWritablePrimary"]:
            return
        await asyncio.sleep(0.1)


async def test_one_member_that_is_used_directly_is_found(database: Database) -> None:
    host, port = next(iter(database.client.topology_description.server_descriptions()))
    async with on(f"mongodb://{host}:{port}/?directConnection=true", database.name) as direct:
        verdict, text = said(await diagnose(direct), "topology")
    assert verdict == "warning"
    assert "replicaSet=embedded-" in text


async def test_a_standalone_server_is_found(standalone_database: Database) -> None:
    found = await diagnose(standalone_database)
    for check in ("topology", "transactions"):
        assert said(found, check)[0] == "warning"
    assert "--replSet" in said(found, "topology")[1]
    assert found.is_healthy
    host, port = next(iter(standalone_database.client.topology_description.server_descriptions()))
    command = SessionStoreCommand(f"mongodb://{host}:{port}", standalone_database.name)
    done = await command("doctor")
    assert (done.code, done.errors) == (4, "")
    assert done.output.splitlines()[-1] == "it works: 2 warnings"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("mongodb://user:geheim@127.0.0.1:9/?serverSelectionTimeoutMS=200", "start mongod"),
        ("mongodb://user:geheim@absent.invalid/?serverSelectionTimeoutMS=200", "not known here"),
    ],
)
async def test_a_server_that_is_away_is_found(url: str, text: str) -> None:
    async with on(url) as database:
        found = await diagnose(database)
    assert [finding.check for finding in found.findings] == ["client", "server"]
    assert text in said(found, "server")[1]
    assert not found.is_healthy
    assert "geheim" not in json.dumps(found.as_json())


async def test_a_wrong_name_of_the_set_is_found(mongo_url: str) -> None:
    url = mongo_url.replace(mongo_url.partition("replicaSet=")[2], "other")
    # In a process of its own, for older drivers leave a connection open there.
    done = await SessionStoreCommand(f"{url}&serverSelectionTimeoutMS=500", "doctor")("doctor")
    assert (done.code, done.errors) == (1, "")
    assert "Correct replicaSet=... in the connection string." in done.output


async def test_a_schema_is_followed_from_nothing_to_a_newer_one(
    mongo_url: str, database_name: str
) -> None:
    async with on(mongo_url, database_name) as database:
        found = await diagnose(database)
        assert said(found, "schema")[0] == said(found, "indexes")[0] == "bad"
        assert "schema upgrade" in said(found, "schema")[1]

        await init_beanie(database=database, document_models=DOCUMENT_MODELS)
        found = await diagnose(database)
        assert (said(found, "schema")[0], said(found, "indexes")[0]) == ("warning", "good")

        await upgrade_schema(database)
        assert said(await diagnose(database), "schema")[0] == "good"

        (undone,) = await downgrade_schema(database)
        verdict, text = said(await diagnose(database), "schema")
        assert verdict == "warning"
        assert f"1 migration is still to run: {undone}" in text

        await upgrade_schema(database)
        await database[LOG].update_many({}, {"$set": {"checksum": "another"}})
        assert "edited since" in said(await diagnose(database), "schema")[1]

        record = await database[LOG].find_one({"checksum": "another"}) or {}
        newer = {**record, "_id": "newer", "script": "29990101000000_future"}
        await database[LOG].insert_one(newer)
        verdict, text = said(await diagnose(database), "schema")
        assert verdict == "bad"
        assert "pip install -U" in text


async def test_indexes_that_are_not_as_declared_are_found(database: Database) -> None:
    entries = database["claude_transcript_entries"]
    await entries.create_index("region", name="region")
    verdict, text = said(await diagnose(database), "indexes")
    assert verdict == "good"
    assert "claude_transcript_entries.region" in text

    await database["claude_transcript_summaries"].drop_index("session_activity")
    verdict, text = said(await diagnose(database), "indexes")
    assert verdict == "warning"
    assert "claude_transcript_summaries.session_activity" in text

    await entries.drop_index("transcript_expiry")
    await entries.create_index("expires_at", name="transcript_expiry", expireAfterSeconds=60)
    assert (
        "claude_transcript_entries.transcript_expiry"
        in said(await diagnose(database), "indexes")[1]
    )

    await entries.drop_index("transcript_uuid")
    assert said(await diagnose(database), "indexes")[0] == "bad"


class AcmeEntry(TranscriptEntry):
    class Settings(TranscriptEntry.Settings):
        name = "acme_entries"
        indexes = [*TranscriptEntry.Settings.indexes, IndexModel("region", name="region"), "color"]


class AcmeSummary(SessionSummary):
    class Settings(SessionSummary.Settings):
        name = "acme_sessions"


async def test_classes_of_a_teams_own_are_examined(mongo_url: str, database_name: str) -> None:
    own: Any = {"entries": AcmeEntry, "summaries": AcmeSummary}
    async with on(mongo_url, database_name) as database:
        await upgrade_schema(database, **own)
        verdict, text = said(await diagnose(database, **own), "indexes")
        assert verdict == "warning"
        assert "acme_entries.color_1, acme_entries.region" in text
        await database["acme_entries"].create_index("region", name="region")
        await database["acme_entries"].create_index("color")
        found = await diagnose(database, **own)
        assert (said(found, "indexes")[0], said(found, "schema")[0]) == ("good", "good")
        with pytest.raises(InvalidModelError):
            await diagnose(database, entries=SessionSummary)  # type: ignore[arg-type]


@pytest.mark.usefixtures("quick_policies")
async def test_what_should_have_expired_and_is_still_there_is_found(database: Database) -> None:
    assert "no policies" in said(await diagnose(database), "retention")[1]
    await set_retention(database, timedelta(days=1))
    assert "1 policy" in said(await diagnose(database), "retention")[1]
    async with without_expiry(database):
        await BeanieSessionStore().append(KEY, turn(1))
        past = datetime.now(timezone.utc) - timedelta(hours=2)
        await collection_of(SessionSummary).update_one({}, {"$set": {"expires_at": past}})
        verdict, text = said(await diagnose(database), "retention")
        assert verdict == "bad"
        assert f"{past:%Y-%m-%d %H:%M}" in text
        assert "ttlMonitorEnabled" in text
    await database["claude_transcript_chunks"].drop_index("transcript_expiry")
    verdict, text = said(await diagnose(database), "retention")
    assert verdict == "bad"
    assert "claude_transcript_chunks" in text


async def test_a_wrong_clock_is_found(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    for seconds, side in ((3600, "ahead of"), (-7200, "behind")):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: now() + seconds)
        verdict, text = said(await diagnose(database), "clock")
        assert verdict == "warning"
        assert f"{abs(seconds)} s {side} the server's" in text


def test_a_disk_that_is_nearly_full_is_found() -> None:
    stats = {"storageSize": 5e9, "indexSize": 5e8, "fsUsedSize": 96e9, "fsTotalSize": 1e11}
    assert room(stats).verdict == "warning"
    assert room({**stats, "fsUsedSize": 90e9}).verdict == "good"
    # A hosted server does not say.
    assert room({"storageSize": 5e9, "indexSize": 5e8}).found == "5.5 GB used by this database"


async def test_permissions_are_named_one_by_one(secured: SecuredServer) -> None:
    async with on(secured.url()) as database:
        await prepared(database)
        assert said(await diagnose(database), "permissions")[0] == "good"
    _, url = secured.user(("readWrite", "doctor"))
    async with on(url) as database:
        found = await diagnose(database)
    assert [each.check for each in found.findings if each.verdict != "good"] == ["topology"]

    name, url = secured.user(("read", "doctor"))
    async with on(url) as database:
        found = await diagnose(database)
    verdict, text = said(found, "permissions")
    assert verdict == "bad"
    three = ", ".join(f"claude_transcript_{each}" for each in ("entries", "summaries", "chunks"))
    assert f"{name}@admin may do: insert, update, remove on {three}. As an adm" in text
    assert f'db.grantRolesToUser("{name}", [{{role: "readWrite", db: "doctor"}}])' in text
    assert said(found, "schema")[0] == "good"

    _, url = secured.user(("readWrite", "elsewhere"))
    async with on(url) as database:
        found = await diagnose(database)
    assert said(found, "permissions")[0] == "bad"
    for check in ("schema", "indexes", "transactions", "retention", "disk"):
        assert said(found, check)[0] == "unknown"

    use = ["find", "insert", "update", "remove", "listIndexes", "dbStats"]
    everything = {"resource": {"db": "doctor", "collection": ""}, "actions": use}
    _, url = secured.user(privileges=[everything])
    async with on(url) as database:
        verdict, text = said(await diagnose(database), "permissions")
    assert verdict == "warning"
    assert "but not watch sessions (changeStream on claude_transcript_summaries), nor call" in text
    assert "nor call init_beanie without skip_indexes=True (createIndex on claude_transcr" in text
    assert "listCollections on the database" in text
    # An administrator who follows the page gives the application what is good for it.
    _, url = secured.user(privileges=role_for_running("doctor"))
    async with on(url) as database:
        verdict, text = said(await diagnose(database), "permissions")
    assert verdict == "warning"
    assert "watch" not in text
    assert "but not call init_beanie without skip_indexes=True" in text


def role_for_running(database: str) -> list[dict[str, Any]]:
    """The role in docs/operating.md."""
    text = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    (role,) = re.findall(
        r"db\.createRole\((\{\s+\"role\": \"sessionStore\",.*?\n\})\)", text, re.DOTALL
    )
    return json.loads(role.replace('"app"', json.dumps(database)))["privileges"]


@pytest.mark.usefixtures("quick_policies")
async def test_the_permissions_that_are_asked_for_are_enough(secured: SecuredServer) -> None:
    models = StoreModels(TranscriptEntry, SessionSummary)
    async with on(secured.url(), "exact") as database:
        target = Target.of(database, models)
    needs = [*needed_to_use(target), *chain(*needed_besides(target).values())]
    privileges = [
        {"resource": {"db": "exact", "collection": need.collection}, "actions": [*need.actions]}
        for need in needs
    ]
    _, url = secured.user(privileges=privileges)
    async with on(url, "exact") as database:
        await prepared(database)
        assert said(await diagnose(database), "permissions")[0] == "good"
        store = BeanieSessionStore()
        for batch in (turn(1), turn(2)):
            await store.append(KEY, batch)
            await store.append(KEY, batch)
        assert len(await store.load(KEY) or []) == 12
        async for entry in store.watch(KEY):
            if entry.seq == 12:
                break
        await set_retention(database, timedelta(days=1))
        await clear_retention(database)
        await store.hold(KEY)
        assert (await store.repair(KEY)).is_sound
        assert [each async for each in store.all_sessions()]
        assert (await store.sessions()).sessions
        await store.delete(KEY)


async def test_who_is_not_let_in_is_told_why(secured: SecuredServer) -> None:
    async with on(secured.url_of_nobody) as database:
        verdict, text = said(await diagnose(database), "permissions")
    assert verdict == "bad"
    assert "the connection string has none" in text
    async with on(secured.url(password="wrong")) as database:
        found = await diagnose(database)
    assert "Check the user and password" in said(found, "server")[1]
    assert "wrong" not in json.dumps(found.as_json())


async def test_a_closed_client_is_no_finding(mongo_url: str) -> None:
    async with on(mongo_url) as database:
        await diagnose(database)
    with pytest.raises(ClientClosedError):
        await diagnose(database)


async def test_the_command_says_it_line_by_line(
    database: Database, mongo_url: str, secured: SecuredServer
) -> None:
    command = SessionStoreCommand(mongo_url, database.name)
    warned = await command("doctor")
    *findings, conclusion = warned.output.splitlines()
    assert (warned.code, conclusion) == (4, "it works: 1 warning")
    assert [line.split()[1] for line in findings] == CHECKS
    assert "warning  topology     replica set " in warned.output
    assert "\x1b" not in warned.output

    as_json = await command("--json", "doctor")
    assert as_json.code == 4
    assert [each["check"] for each in as_json.json["findings"]] == CHECKS
    assert as_json.json["is_healthy"] is True

    bare = await SessionStoreCommand(mongo_url, f"{database.name}_bare")("doctor")
    assert bare.code == 1
    assert bare.output.splitlines()[-1] == "it does not work, or not as promised: 2 bad, 1 warning"

    refused = await SessionStoreCommand(secured.url(password="geheimnis"), "doctor")("doctor")
    assert refused.code == 1
    assert "geheim" not in refused.output + refused.errors
    assert PASSWORD not in refused.output + refused.errors


@pytest.mark.parametrize("columns", [80, 200])
async def test_a_terminal_gets_what_to_do_below_what_was_found(
    database: Database, mongo_url: str, columns: int
) -> None:
    command = SessionStoreCommand(mongo_url, database.name)
    shown = await command.on_terminal(columns, "doctor", code=4)
    assert "\x1b[33mwarning\x1b[0m" in shown
    plain = await command.on_terminal(columns, "doctor", code=4, NO_COLOR="1")
    assert "\x1b" not in plain
    lines = plain.splitlines()
    assert all(len(line) <= columns for line in lines)
    assert "                     Add two members before sessions matter." in map(str.rstrip, lines)
    assert "good    schema       up to date, " in plain
    assert lines[-1] == "it works: 1 warning"


@pytest.mark.parametrize(
    ("url", "verdict", "says"),
    [
        ("mongodb://localhost,127.0.0.1:1,[::1]:2/x", "good", "on loopback"),
        ("mongodb://%2Ftmp%2Fmongodb-1.sock/x", "good", "on loopback"),
        ("mongodb://127.0.0.1,db.example/x", "warning", "not encrypted"),
        ("mongodb://10.0.0.7/x", "warning", "not encrypted"),
        ("mongodb://db.example/x?tls=false", "warning", "not encrypted"),
        ("mongodb://db.example/x?tls=true", "good", "certificates checked"),
        ("mongodb://db.example/x?ssl=true", "good", "certificates checked"),
        ("mongodb://db.example/x?tls=true&tlsInsecure=true", "warning", "no certificate is ch"),
        (
            "mongodb://db.example/x?tls=true&tlsAllowInvalidCertificates=true",
            "warning",
            "no certificate is checked",
        ),
        (
            "mongodb://db.example/x?tls=true&tlsAllowInvalidHostnames=true",
            "warning",
            "the name in a certificate is not checked",
        ),
    ],
)
async def test_who_may_read_along_on_the_way_is_said(url: str, verdict: str, says: str) -> None:
    # Nobody is asked, so that the servers need not be there.
    client = open_client(url)
    try:
        found = tls(Target.of(client["x"], StoreModels(TranscriptEntry, SessionSummary)))
    finally:
        await close_client(client)
    assert (found.verdict, found.check) == (verdict, "tls")
    assert says in found.found
    assert (found.advice is None) == (verdict == "good")


async def test_a_server_that_asks_nobody_is_not_taken_for_one_that_does(
    mongo_url: str, database: Database
) -> None:
    """It knows a user, who comes with a password, and lets in everybody else as well."""
    await database.command("createUser", "ann", pwd="geheim", roles=["readWrite"])
    try:
        url = mongo_url.replace("mongodb://", "mongodb://ann:geheim@", 1)
        url += f"{'&' if '?' in url else '?'}authSource={database.name}"
        async with on(url, database.name) as theirs:
            verdict, text = said(await diagnose(theirs), "permissions")
        assert (verdict, "the server controls no access" in text) == ("good", True)
    finally:
        await database.command("dropUser", "ann")
