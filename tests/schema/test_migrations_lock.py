"""One migrator at a time: the others wait, a dead one is replaced, and each script runs once."""

from __future__ import annotations

import asyncio
import shutil
import signal
import textwrap
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from support.processes import PREPARED
from support.server import connected
from support.watchdog import WATCHDOG_SECONDS

import beanie_session_store
from beanie_session_store import MigrationLockLostError, SessionSummary, TranscriptEntry
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.schema.log import SchemaRun
from beanie_session_store.app.schema.migrator import Migrator

PACKAGED = Path(beanie_session_store.__file__).parent / "migrations"
NAMES = [path.stem for path in sorted(PACKAGED.glob("2*.py"))]
SLOW = "29990101000000_wait_at_the_gate"

# Waits in its first step until the test opens the gate; its second leaves a trace.
SLOW_SCRIPT = '''
"""Wait at the gate."""
import asyncio
from beanie import Document, free_fall_migration
from beanie_session_store import database_of
from beanie_session_store.migrations._operations import create_index

class Gate(Document):
    class Settings:
        name = "gate"

class Forward:
    @free_fall_migration(document_models=[Gate])
    async def a_wait(self, session):
        gate = database_of(Gate)["gate"]
        await gate.insert_one({"arrived": True})
        while await gate.find_one({"_id": "open"}) is None:
            await asyncio.sleep(0.05)

    @free_fall_migration(document_models=[Gate])
    async def b_leave_a_trace(self, session):
        await database_of(Gate)["gate"].insert_one({"left": True})
        await create_index(Gate, "gate", [("left", 1)], "left")

class Backward:
    @free_fall_migration(document_models=[Gate])
    async def nothing(self, session):
        pass
'''

UPGRADE = """
    import asyncio, sys
    from pathlib import Path
    from beanie_session_store import SessionSummary, SessionStoreError, TranscriptEntry
    from beanie_session_store.app.storage.client import open_database
    from beanie_session_store.app.schema.migrator import Migrator

    async def main():
        url, name, scripts, lease = sys.argv[1:]
        async with open_database(url, name) as database:
            migrator = Migrator(
                database, TranscriptEntry, SessionSummary,
                scripts=Path(scripts), lease=float(lease),
            )
            try:
                print(await migrator.upgrade(None, False))
            except SessionStoreError as error:
                print(type(error).__name__, error)

    asyncio.run(main())
"""


@pytest.fixture
async def empty(mongo_url: str, database_name: str) -> AsyncIterator[Database]:
    async with connected(mongo_url) as client:
        yield client[database_name]


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """The package's scripts, and a slow one after them."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(PACKAGED / f"{name}.py", folder)
    (folder / f"{SLOW}.py").write_text(SLOW_SCRIPT)
    return folder


def migrator(database: Database, folder: Path | None = None, **options: Any) -> Migrator:
    return Migrator(database, TranscriptEntry, SessionSummary, scripts=folder, **options)


async def start(
    mongo_url: str, database: Database, folder: Path, lease: float
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        PREPARED,
        "-c",
        textwrap.dedent(UPGRADE),
        mongo_url,
        database.name,
        str(folder),
        str(lease),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def output_of(process: asyncio.subprocess.Process) -> str:
    output, errors = await process.communicate()
    assert not errors, errors.decode()
    return output.decode()


async def history(database: Database, folder: Path | None = None) -> list[SchemaRun]:
    return await migrator(database, folder).runs()


async def arrived(database: Database, count: int = 1) -> None:
    while await database["gate"].count_documents({"arrived": True}) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def open_gate(database: Database) -> None:
    await database["gate"].insert_one({"_id": "open"})


async def lock_of(database: Database) -> dict[str, Any] | None:
    return await database["claude_transcript_migrations"].find_one({"_id": "lock"})


async def test_five_processes_at_once_run_each_script_once(mongo_url: str, empty: Database) -> None:
    processes = [await start(mongo_url, empty, PACKAGED, 15) for _ in range(5)]
    outputs = await asyncio.gather(*map(output_of, processes))
    assert sorted(outputs) == sorted(["[]\n"] * 4 + [f"{NAMES}\n"])
    runs = await history(empty)
    assert [(run.script, run.direction) for run in runs] == [(name, "forward") for name in NAMES]
    (pid,) = {run.pid for run in runs}
    assert pid in {process.pid for process in processes}
    assert await lock_of(empty) is None


async def test_a_long_script_keeps_its_lock_while_another_waits(
    empty: Database, scripts: Path
) -> None:
    said: list[str] = []
    lease = timedelta(seconds=4)
    first = asyncio.create_task(
        migrator(empty, scripts, lease=lease.total_seconds()).upgrade(None, False)
    )
    await arrived(empty)
    taken = await lock_of(empty)
    assert taken is not None
    second = asyncio.create_task(
        migrator(empty, scripts, announce=said.append).upgrade(None, False)
    )
    # Renewed after the moment at which it would have run out.
    renewed = taken["expires_at"] + lease
    while (lock := await lock_of(empty)) and lock["expires_at"] < renewed:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert lock is not None
    assert lock["owner"] == taken["owner"]
    assert not second.done()
    await open_gate(empty)
    assert await first == [*NAMES, SLOW]
    assert await second == []
    assert said[0].startswith("waiting for the migration that process")
    assert [run.script for run in await history(empty, scripts)] == [*NAMES, SLOW]


async def test_a_migrator_that_was_killed_is_replaced_when_its_lease_has_run_out(
    mongo_url: str, empty: Database, scripts: Path
) -> None:
    killed = await start(mongo_url, empty, scripts, 3)
    await arrived(empty)
    killed.send_signal(signal.SIGKILL)
    await killed.wait()
    await open_gate(empty)
    left = await lock_of(empty)
    assert left is not None
    assert left["pid"] == killed.pid
    assert await migrator(empty, scripts, lease=3).upgrade(None, False) == [SLOW]
    runs = await history(empty, scripts)
    assert [run.script for run in runs] == [*NAMES, SLOW]
    assert runs[-1].at > left["expires_at"].replace(tzinfo=timezone.utc)
    assert runs[-1].pid != killed.pid == runs[0].pid
    assert await lock_of(empty) is None


async def test_a_migrator_that_was_asleep_stops_before_its_next_step(
    mongo_url: str, empty: Database, scripts: Path
) -> None:
    sleeper = await start(mongo_url, empty, scripts, 1)
    await arrived(empty)
    sleeper.send_signal(signal.SIGSTOP)
    await open_gate(empty)
    assert await migrator(empty, scripts, lease=1).upgrade(None, False) == [SLOW]
    sleeper.send_signal(signal.SIGCONT)
    said = await output_of(sleeper)
    assert said.startswith("MigrationLockLostError Another process took over the migration")
    assert await empty["gate"].count_documents({"left": True}) == 1
    assert [run.script for run in await history(empty, scripts)] == [*NAMES, SLOW]


async def test_who_lost_the_lock_says_to_whom_and_leaves_it_to_them(
    empty: Database, scripts: Path
) -> None:
    work = asyncio.create_task(migrator(empty, scripts).upgrade(None, False))
    await arrived(empty)
    thief = {"owner": "other", "host": "elsewhere", "pid": 7, "expires_at": _in(3600)}
    await empty["claude_transcript_migrations"].update_one({"_id": "lock"}, {"$set": thief})
    await open_gate(empty)
    with pytest.raises(MigrationLockLostError, match="process 7 on elsewhere"):
        await work
    assert await empty["gate"].count_documents({"left": True}) == 0
    assert SLOW not in {run.script for run in await history(empty, scripts)}
    lock = await lock_of(empty)
    assert lock is not None
    assert lock["owner"] == "other"


async def test_a_cancelled_migrator_gives_the_lock_back(empty: Database, scripts: Path) -> None:
    work = asyncio.create_task(migrator(empty, scripts).upgrade(None, False))
    await arrived(empty)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await _until(lambda: lock_of(empty))
    await open_gate(empty)
    assert await migrator(empty, scripts).upgrade(None, False) == [SLOW]


async def test_a_script_that_fails_is_not_recorded_and_runs_again(
    empty: Database, scripts: Path
) -> None:
    await open_gate(empty)
    slow = scripts / f"{SLOW}.py"
    slow.write_text(SLOW_SCRIPT.replace('await gate.insert_one({"arrived": True})', "1 / 0"))
    with pytest.raises(ZeroDivisionError):
        await migrator(empty, scripts).upgrade(None, False)
    assert await lock_of(empty) is None
    slow.write_text(SLOW_SCRIPT)
    assert await migrator(empty, scripts).upgrade(None, False) == [SLOW]


async def test_two_who_undo_one_step_at_once_undo_one_step(empty: Database, scripts: Path) -> None:
    await open_gate(empty)
    await migrator(empty, scripts).upgrade(None, False)
    undone = await asyncio.gather(
        *(migrator(empty, scripts).downgrade(None, None, False) for _ in range(3))
    )
    assert sorted(undone) == [[], [], [SLOW]]


async def test_an_upgrade_with_nothing_to_do_waits_for_nobody(empty: Database) -> None:
    await migrator(empty).upgrade(None, False)
    held = {"_id": "lock", "owner": "other", "host": "h", "pid": 1, "expires_at": _in(3600)}
    await empty["claude_transcript_migrations"].insert_one(held)
    assert await asyncio.wait_for(migrator(empty).upgrade(None, False), WATCHDOG_SECONDS) == []


def _in(seconds: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


async def _until(gone: Callable[[], Any]) -> None:
    while await gone() is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
