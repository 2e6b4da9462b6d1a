"""What docs/using.md says of constructors and names holds."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

from claude_agent_sdk import SessionStore
from support.entries import KEY, message

from beanie_session_store import BeanieSessionStore, SessionSummary, TranscriptEntry

DOCUMENT = (Path(__file__).parents[2] / "docs" / "using.md").read_text()
ROWS = re.findall(r"^\| `([\w.]+)` \| ([\w' ]+) \|", DOCUMENT, re.MULTILINE)
PROTOCOL = {name for name in vars(SessionStore) if not name.startswith("_")}


def test_every_name_in_the_tables_is_there_and_whose_it_says() -> None:
    assert len(ROWS) > 12
    beanies = {"SessionSummary.find": SessionSummary, "TranscriptEntry.find": TranscriptEntry}
    for name, whose in ROWS:
        if whose == "Beanie's":
            assert hasattr(beanies[name], "find")
        else:
            assert callable(getattr(BeanieSessionStore, name))
            assert (name in PROTOCOL) == (whose == "the SDK's"), name


def test_every_way_to_read_sessions_and_entries_is_in_the_tables() -> None:
    """A name that is not there stands for something else than reading them."""
    others = {
        *("append", "delete", "delete_sessions", "hold", "release", "set_metadata", "tenant"),
        *("insert_sessions", "replay", "verify", "repair", "usage", "tools"),
        *("spent", "watch_budget", "checkout"),
        *("agent_options", "connect", "on", "lease", "lease_of", "break_lease", "readiness"),
        *("erase", "verify_erasure", "recorded"),
        *("seal", "destroy_key", "rotate_keys", "key_status"),
    }
    public = {name for name in dir(BeanieSessionStore) if not name.startswith("_")}
    assert public - others == {name for name, whose in ROWS if whose != "Beanie's"}


def test_each_job_of_a_worker_connects_in_a_loop_of_its_own(
    mongo_url: str, database_name: str
) -> None:
    """As Celery, RQ and cron run them: one after another in one process, on a migrated database."""

    async def job(*, upgrade: bool) -> int:
        async with BeanieSessionStore.connect(
            mongo_url, database=database_name, tenant="acme", upgrade=upgrade
        ) as store:
            await store.append(KEY, [message()])
            assert await SessionSummary.find({"tenant": "acme"}).count() == 1
            return len(await store.load(KEY) or [])

    assert [asyncio.run(job(upgrade=upgrade)) for upgrade in (True, False, False)] == [1, 2, 3]


async def test_what_names_a_session_has_its_key(store: BeanieSessionStore) -> None:
    await store.append(KEY, [message()])
    (listing,) = [each async for each in store.all_sessions()]
    (found,) = (await store.sessions()).sessions
    named: Any = await store.session_named(KEY["session_id"])
    for each in (listing, found, named):
        assert each.key() == KEY
    assert inspect.isasyncgenfunction(BeanieSessionStore.all_sessions)
