"""What a team on Beanie 1 gives to the store, as type checkers see it; it is never run."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from beanie import init_beanie  # pyright: ignore[reportUnknownVariableType]
from motor.motor_asyncio import AsyncIOMotorClient
from typing_extensions import assert_type

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    SessionPage,
    SessionSummary,
    adopt,
    clear_retention,
    diagnose,
    disable_search,
    downgrade_schema,
    enable_search,
    retention_policies,
    schema_status,
    set_retention,
    sweep_sessions,
    upgrade_schema,
)


async def given(client: AsyncIOMotorClient[dict[str, Any]]) -> None:
    database = client["app"]
    await upgrade_schema(database)
    await init_beanie(database=database, document_models=DOCUMENT_MODELS)
    await downgrade_schema(database, dry_run=True)
    await schema_status(database)
    await diagnose(database)
    await enable_search(database)
    await disable_search(database)
    await set_retention(database, timedelta(days=30))
    await clear_retention(database)
    await retention_policies(database)
    await sweep_sessions(database)
    await adopt(client["old"], database, tenant="acme")
    store = BeanieSessionStore.on(database)
    now = datetime.now(timezone.utc)
    page = await store.sessions(SessionSummary.totals.turns > 3, SessionSummary.active_at < now)
    assert_type(page, SessionPage[SessionSummary])
    found = SessionSummary.find(SessionSummary.metadata["user_id"] == "u1")
    assert_type(await found.sort(-SessionSummary.active_at).to_list(), list[SessionSummary])
