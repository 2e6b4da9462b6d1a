"""What the types refuse, each with the error that a checker gives.

An ignore that a checker does not need is an error, so a type that gets looser shows here.
"""

from __future__ import annotations

from datetime import date

from beanie_session_store import (
    BeanieSessionStore,
    SearchHit,
    SessionPage,
    SessionSummary,
    session_key,
)
from beanie_session_store import nothing as nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]


class AcmeSummary(SessionSummary):
    owner: str = ""


class Other:
    """No summary."""


async def keys(store: BeanieSessionStore) -> None:
    session_key("-srv")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    session_key("-srv", "s1", "subagents/agent-a1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await store.load("s1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await store.load({"project_key": "-srv", "session_id": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    await store.append(session_key("-srv", "s1"), {"type": "user"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await store.append(session_key("-srv", "s1"), ["Hi"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def stores(plain: BeanieSessionStore) -> None:
    # To mypy a Document is partly of an unknown type, for Beanie's is, and so fits every other.
    BeanieSessionStore(tenant=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BeanieSessionStore(summaries=Other)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    _own: BeanieSessionStore[AcmeSummary] = plain  # pyright: ignore[reportAssignmentType]
    _page: SessionPage[AcmeSummary] = await plain.sessions()  # pyright: ignore[reportAssignmentType]


async def conditions(store: BeanieSessionStore) -> None:
    await store.sessions("tag")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await store.sessions(SessionSummary.totals.turnz > 3)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    await store.sessions(SessionSummary.expires_at > 3)  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownArgumentType]
    await store.sessions(since=date.today())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await store.usage(by=["model", 3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def values(store: BeanieSessionStore, summary: SessionSummary, hit: SearchHit) -> None:
    summary.totals = None  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    summary.metadata = "u1"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    print(summary.expires_at.year)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    print(hit.parsed.subtype)  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    transcript = await store.transcript(session_key("-srv", "s1"))
    print(transcript.turns)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
