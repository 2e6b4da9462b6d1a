"""Who holds a session, as the command line tells it and ends it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support.command import SessionStoreCommand
from support.entries import KEY, message, turn

from beanie_session_store import BeanieSessionStore, LeaseLostError
from beanie_session_store.app.database.driver import Database

PROJECT = ("--project", KEY["project_key"])
HOUR = timedelta(hours=1)


@pytest.fixture
def command(mongo_url: str, database: Database) -> SessionStoreCommand:
    return SessionStoreCommand(mongo_url, database.name)


async def test_sessions_and_show_mark_who_holds_one(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    await store.append(KEY, [message("Fix the login")])
    await store.append({**KEY, "session_id": "other"}, [message("Nobody holds it")])
    assert "LEASE" not in (await command("sessions")).output
    assert "held by" not in (await command("show", "session")).output
    async with store.lease(KEY, owner="host 7\u202e", ttl=HOUR) as leased:
        lines = (await command("sessions")).output.splitlines()
        column = lines[0].split().index("LEASE")
        cells = {line.split()[0]: line.split()[column] for line in lines[1:]}
        assert cells == {"session": "host_7�", "other": "-"}
        shown = (await command("show", "session")).output
        assert f"held by host 7� since {leased.lease.since:%Y-%m-%dT%H:%M:%S}Z, until " in shown
        rows = (await command("--json", "sessions")).json["sessions"]
        assert {row["session_id"]: row["lease"] for row in rows} == {
            "session": {
                "owner": "host 7\u202e",
                "since": leased.lease.since.isoformat(),
                "until": leased.until.isoformat(),
            },
            "other": None,
        }
        screen = await command.on_terminal(100, "sessions")
        assert "LEASE" in screen
        assert "host 7�" in screen
    assert "LEASE" not in (await command("sessions")).output
    assert (await command("--json", "sessions")).json["sessions"][0]["lease"] is None


async def test_show_a_lease(store: BeanieSessionStore, command: SessionStoreCommand) -> None:
    await store.append(KEY, turn(1))
    assert (await command("lease", "show", "session")).output == "Nobody holds session.\n"
    assert (await command("--json", "lease", "show", "session")).json == {**KEY, "lease": None}
    async with store.lease(KEY, owner="host-7"):
        shown = await command("lease", "show", "session")
        assert shown.output.startswith("session is held by host-7 since ")
        found = (await command("--json", "lease", "show", "sess")).json
        assert found["lease"]["owner"] == "host-7"
    finished = await command("lease", "show", "unknown")
    assert (finished.code, finished.output) == (1, "")
    assert "There is no session unknown" in finished.errors


@pytest.mark.parametrize("is_there", [True, False])
async def test_break_a_lease(
    store: BeanieSessionStore, command: SessionStoreCommand, is_there: bool
) -> None:
    where = () if is_there else PROJECT
    if is_there:
        await store.append(KEY, turn(1))
    async with store.lease(KEY, owner="host-7", ttl=HOUR) as leased:
        if not is_there:
            assert (await command("lease", "break", "session", "--yes")).code == 1
        refused = await command("lease", "break", "session", *where)
        assert refused.code == 2
        assert "session is held by host-7 since " in refused.errors
        assert "Nothing was changed" in refused.errors
        assert await store.lease_of(KEY) is not None
        # The beginning of an id is for people.
        assert (await command("lease", "break", "sess", *PROJECT, "--yes")).code == 1
        broken = await command("lease", "break", "session", *where, "--yes")
        assert (broken.code, broken.output) == (0, "broke the lease of host-7\n")
        assert await store.lease_of(KEY) is None
        with pytest.raises(LeaseLostError):
            await leased.append(KEY, turn(2))
    again = await command("--json", "lease", "break", "session", *where, "--yes")
    if is_there:
        assert (again.code, again.json) == (0, {**KEY, "broken": None})
    else:
        assert again.code == 1


async def test_only_the_lease_that_was_shown_is_broken(store: BeanieSessionStore) -> None:
    async with store.lease(KEY, owner="host-7"):
        seen = await store.lease_of(KEY)
    async with store.lease(KEY, owner="host-7") as leased:
        assert await store.break_lease(KEY, lease=seen) is None
        await leased.append(KEY, turn(1))
        assert await store.break_lease(KEY, lease=leased.lease) == leased.lease
