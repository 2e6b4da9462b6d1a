"""A service of a team as type checkers see it: many tenants, documents of its own, all of a store.

It is never run. Each ``assert_type`` fails where the package's types get looser.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import date, datetime, timedelta, timezone
from typing import Annotated, Any

from beanie import Document, Link, init_beanie  # pyright: ignore[reportUnknownVariableType]
from beanie.operators import In, Or
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ResultMessage,
    SDKSessionInfo,
    SessionKey,
    list_sessions_from_store,
    query,
    rename_session_via_store,
)
from claude_agent_sdk.types import SessionStoreEntry
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, Field
from pymongo import AsyncMongoClient, IndexModel
from pymongo.asynchronous.database import AsyncDatabase
from typing_extensions import assert_type

from beanie_session_store import (
    DOCUMENT_MODELS,
    EVERY,
    AssistantEntry,
    BeanieSessionStore,
    EntryView,
    Mapped,
    SearchHit,
    SessionListing,
    SessionPage,
    SessionSummary,
    SessionTotals,
    StreamedEntry,
    ToolStatistics,
    Transcript,
    TranscriptEntry,
    UnknownSessionError,
    UsageRow,
    UsageStatistics,
    UserEntry,
    adopt,
    copy_sessions,
    diagnose,
    enable_search,
    export_transcripts,
    import_transcripts,
    mapped,
    parse_entry,
    schema_status,
    session_key,
    set_retention,
    settled,
    sweep_sessions,
    upgrade_schema,
    verify_sessions,
)


class Ticket(BaseModel):
    number: int
    urgent: bool = False


class AcmeEntry(TranscriptEntry):
    region: str = "eu"

    class Settings(TranscriptEntry.Settings):
        name = "acme_entries"
        indexes = [*TranscriptEntry.Settings.indexes, IndexModel("region", name="region")]


class AcmeSummary(SessionSummary):
    owner: str = ""
    reviewed_at: Mapped[datetime | None] = mapped(None)
    ticket: Ticket | None = None
    labels: list[str] = Field(default_factory=list[str])

    class Settings(SessionSummary.Settings):
        name = "acme_sessions"


class Customer(Document):
    name: str
    latest: Link[AcmeSummary] | None = None


Store = BeanieSessionStore[AcmeSummary]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with AsyncMongoClient[dict[str, Any]]("mongodb://localhost") as client:
        database = client["app"]
        await upgrade_schema(database, entries=AcmeEntry, summaries=AcmeSummary)
        await init_beanie(
            database=database,
            document_models=[Customer, AcmeEntry, AcmeSummary, *DOCUMENT_MODELS],
        )
        yield
        await settled()


app = FastAPI(lifespan=lifespan)


def store_of(tenant: str) -> Store:
    store = BeanieSessionStore(tenant=tenant, entries=AcmeEntry, summaries=AcmeSummary)
    assert_type(store, BeanieSessionStore[AcmeSummary])
    return store


Tenants = Annotated[Store, Depends(store_of)]


@app.post("/{tenant}/ask")
async def ask(store: Tenants, prompt: str, session_id: str | None = None) -> dict[str, str]:
    result: ResultMessage | None = None
    try:
        async with store.agent_options(ClaudeAgentOptions(resume=session_id)) as options:
            assert_type(options, ClaudeAgentOptions)
            async for message in query(prompt=prompt, options=options):
                if isinstance(message, ResultMessage):
                    result = message
    except UnknownSessionError:
        raise HTTPException(404) from None
    if result is None:
        raise HTTPException(502)
    return {"session_id": result.session_id, "answer": result.result or ""}


@app.get("/{tenant}/sessions")
async def sessions(store: Tenants, after: str | None = None) -> list[dict[str, object]]:
    week_ago = datetime.now(timezone.utc) - timedelta(days=7)
    page = await store.sessions(
        SessionSummary.totals.turns > 3,
        AcmeSummary.totals.usage.model == "opus",
        AcmeSummary.owner == "mia",
        AcmeSummary.reviewed_at < week_ago,
        AcmeSummary.metadata["user_id"] == "u1",
        SessionSummary.alive(),
        {"ticket.urgent": True},
        Or(SessionSummary.expires_at > week_ago, AcmeSummary.tag == "bug"),
        In(SessionSummary.branch, ["main", "next"]),
        metadata={"user_id": "u1"},
        since=week_ago,
        after=after,
    )
    assert_type(page, SessionPage[AcmeSummary])
    assert_type(page.sessions, Sequence[AcmeSummary])
    assert_type(page.cursor, str | None)
    return [
        {
            "title": each.title or each.first_prompt,
            "turns": each.totals.turns,
            "owner": each.owner,
            "ticket": each.ticket.number if each.ticket else None,
        }
        for each in page.sessions
    ]


async def keys(store: Store, names: Mapping[str, str], subkey: SessionKey) -> None:
    plain = {"project_key": "-srv", "session_id": "s1"}
    made = session_key("-srv", "s1", subpath="subagents/agent-a1")
    assert_type(made, SessionKey)
    for key in (plain, made, names, subkey):
        assert_type(await store.load(key), list[SessionStoreEntry] | None)
        assert_type(await store.list_subkeys(key), list[str])
        await store.append(key, [{"type": "user", "uuid": "1", "message": {"content": "Hi"}}])
        await store.delete(key, wait=True)
    async for listing in store.all_sessions():
        assert_type(listing, SessionListing)
        assert_type(listing.key(), SessionKey)
        await store.hold(listing.key())
        await store.release(listing.key())
        await store.set_metadata(listing.key(), {"user_id": "u1"})
        await store.repair(listing.key())
    replay = await store.replay(plain)
    assert_type(await replay.add(await store.load(made) or []), int)


async def documents(store: Store, now: datetime) -> None:
    summary = await store.summary(session_key("-srv", "s1"))
    assert_type(summary, AcmeSummary | None)
    if summary is None:
        return
    assert_type(summary.totals, SessionTotals)
    assert_type(summary.totals.turns, int)
    assert_type(summary.totals.usage, list[UsageRow])
    assert_type(summary.totals.cost_usd, float | None)
    assert_type(summary.expires_at, datetime | None)
    assert_type(summary.metadata, dict[str, Any] | None)
    assert_type(summary.reviewed_at, datetime | None)
    if summary.expires_at is not None and summary.totals.last_at is not None:
        assert_type(summary.expires_at - summary.totals.last_at, timedelta)
    summary.metadata = {"user_id": "u2"}
    summary.owner = "mia"
    summary.reviewed_at = now
    assert_type(summary.reviewed_at, datetime)
    await summary.save()
    await summary.set({AcmeSummary.metadata: {"user_id": "u3"}, AcmeSummary.owner: "ben"})
    await store.load(summary.key())

    found = AcmeSummary.find(
        AcmeSummary.tenant == "acme",
        AcmeSummary.expires_at > now,
        AcmeSummary.totals.cost_usd >= 1.5,
        AcmeSummary.totals.first_at < now,
        AcmeSummary.totals.tools.errors != 0,
    )
    assert_type(await found.sort(-AcmeSummary.active_at).to_list(), list[AcmeSummary])
    first = await TranscriptEntry.find_one(TranscriptEntry.entry["type"] == "user")
    assert_type(first, TranscriptEntry | None)
    for entry in await AcmeEntry.find(AcmeEntry.seq > 3, AcmeEntry.region == "eu").to_list():
        assert_type(entry, AcmeEntry)
        assert_type(entry.parsed, EntryView)
        assert_type(entry.content, dict[str, Any])


async def reading(store: Store) -> None:
    key = session_key("-srv", "s1")
    transcript = await store.transcript(key)
    assert_type(transcript, Transcript | None)
    if transcript is not None:
        for turn in transcript.turns:
            assert_type(turn.text, str)
            assert_type([call.duration for call in turn.tool_calls], list[timedelta | None])
        for subagent in transcript.subagents:
            assert_type(subagent.answer, str)
    async with aclosing(store.watch(key, after=3)) as entries:
        async for entry in entries:
            assert_type(entry, StreamedEntry)
            assert_type(entry.seq, int)
            view = parse_entry(entry)
            if isinstance(view, AssistantEntry):
                assert_type(view.text, str)
    for hit in await store.search("timeout"):
        assert_type(hit, SearchHit)
        assert_type(hit.parsed, UserEntry | AssistantEntry)
        assert_type(hit.parsed.text, str)
    rows = await store.usage(AcmeSummary.owner == "mia", by=("day", "model"), since=date.today())
    assert_type(rows, list[UsageStatistics])
    assert_type([row.cost_usd for row in rows], list[float | None])
    assert_type(await store.tools(SessionSummary.totals.turns > 1), list[ToolStatistics])
    removal = await store.delete_sessions(SessionSummary.active_at < datetime.now(timezone.utc))
    assert_type(removal.deleted, int)
    assert_type(await list_sessions_from_store(store), list[SDKSessionInfo])
    await rename_session_via_store(store, "s1", "Timeouts")


def of_any(store: BeanieSessionStore) -> str:
    """For stores of whichever class."""
    return store.tenant


async def databases(database: AsyncDatabase[dict[str, Any]], acme: Store) -> None:
    plain = BeanieSessionStore(tenant="acme")
    assert_type(plain, BeanieSessionStore)
    assert_type(plain, BeanieSessionStore[SessionSummary])
    assert_type(await plain.sessions(), SessionPage[SessionSummary])
    assert_type(BeanieSessionStore.on(database), BeanieSessionStore[SessionSummary])
    assert_type(BeanieSessionStore.on(database, summaries=AcmeSummary), Store)
    async with (
        BeanieSessionStore.connect("mongodb://localhost/app") as opened,
        BeanieSessionStore.connect("mongodb://localhost/app", summaries=AcmeSummary) as own,
    ):
        assert_type(opened, BeanieSessionStore[SessionSummary])
        assert_type(own, Store)
    of_any(acme)
    await set_retention(database, timedelta(days=30), tenant=EVERY, summaries=AcmeSummary)
    await enable_search(database, on_progress=print)
    assert_type((await diagnose(database)).is_healthy, bool)
    assert_type((await schema_status(database)).is_current, bool)
    await sweep_sessions(database)
    await adopt(database, database, tenant=lambda project: project.removeprefix("-srv-"))
    await copy_sessions(plain, acme)
    await import_transcripts(acme, "~/.claude/projects")
    await export_transcripts(acme, "pages", format="html")
    assert_type((await verify_sessions(acme, acme.all_sessions())).is_sound, bool)
