"""What is in the database when all writers are done, read by the store and past it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pymongo import MongoClient

from beanie_session_store import BeanieSessionStore, UnknownSessionError

from .checker import FINAL, SESSION_ORDER, Finding
from .history import OK, Key, Recorder
from .tokens import token_of
from .worker import PROJECT, TENANTS, digest, named

DATES = "documents of a session have different dates"
ORPHANS = "entries without a summary"
SUMMARY = "a summary that is not what its entries say"
COUNTER = "entries beyond the session's counter"


async def prepare(url: str, database: str) -> None:
    """Bring a new database to the store's schema."""
    async with BeanieSessionStore.connect(url, database=database):
        pass


async def read_all(url: str, database: str, keys: Iterable[Key], recorder: Recorder) -> None:
    """Record a load of every transcript and every listing, as the store gives them."""
    async with BeanieSessionStore.connect(url, database=database) as store:
        stores = {tenant: BeanieSessionStore(tenant=tenant) for tenant in TENANTS}
        for key in sorted(keys):
            number = recorder.invoke("load", key, FINAL, "", [])
            loaded = await stores[key[0]].load(named(key)) or []
            recorder.complete(number, OK, tokens=[token_of(entry) for entry in loaded])
        for session in sorted({(*key[:3], "") for key in keys}):
            await _read_order(stores[session[0]], session, recorder)
        for tenant, store in stores.items():
            for kind in ("list_sessions", "list_session_summaries"):
                number = recorder.invoke(kind, (tenant, PROJECT, "", ""), FINAL, "", [])
                rows = await getattr(store, kind)(PROJECT)
                folds = [digest(row["data"]) if "data" in row else None for row in rows]
                listed = [
                    [row["session_id"], row["mtime"], fold]
                    for row, fold in zip(rows, folds, strict=True)
                ]
                recorder.complete(number, OK, rows=listed)


async def _read_order(store: BeanieSessionStore, session: Key, recorder: Recorder) -> None:
    number = recorder.invoke("list_subkeys", session, FINAL, "", [])
    subpaths = await store.list_subkeys(named(session))
    recorder.complete(number, OK, rows=[[subpath] for subpath in subpaths])
    number = recorder.invoke(SESSION_ORDER, session, FINAL, "", [])
    entries = [
        (entry.seq, token_of(entry))
        for subpath in ("", *subpaths)
        async for entry in store.stream(named((*session[:3], subpath)))
    ]
    recorder.complete(number, OK, tokens=[token for _, token in sorted(entries)])


def check_documents(url: str, database: str) -> list[Finding]:
    """What the protocol does not show: dates of expiry, orphans and the counter."""
    with MongoClient(url) as client:
        sessions: dict[Key, dict[str, Any]] = defaultdict(lambda: {"dates": set(), "last": 0})
        for row in client[database]["claude_transcript_summaries"].find():
            session = sessions[_key(row)]
            session["next"] = row["next_seq"]
            session["dates"].add(row.get("expires_at"))
        for name in ("claude_transcript_entries", "claude_transcript_chunks"):
            for row in client[database][name].find():
                session = sessions[_key(row)]
                session["last"] = max(session["last"], row["seq"])
                session["dates"].add(row.get("expires_at"))
    findings: list[Finding] = []
    for key, session in sessions.items():
        if "next" not in session:
            findings.append(Finding(ORPHANS, key, f"up to seq {session['last']}"))
        elif session["last"] >= session["next"]:
            findings.append(Finding(COUNTER, key, f"{session['last']}, {session['next']}"))
        if len(session["dates"]) > 1:
            findings.append(Finding(DATES, key, str(sorted(map(str, session["dates"])))))
    return findings


async def check_summaries(url: str, database: str, keys: Iterable[Key]) -> list[Finding]:
    """Summaries that do not say what is stored: the fold, the totals, the texts."""
    findings: list[Finding] = []
    async with BeanieSessionStore.connect(url, database=database):
        for session in sorted({(*key[:3], "") for key in keys}):
            try:
                found = await BeanieSessionStore(tenant=session[0]).verify(named(session))
            except UnknownSessionError:
                continue
            findings += [Finding(SUMMARY, session, str(each)) for each in found.differences]
    return findings


def _key(row: dict[str, Any]) -> Key:
    return (row["tenant"], row["project_key"], row["session_id"], "")
