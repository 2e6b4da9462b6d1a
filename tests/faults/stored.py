"""What is in the database when all writers are done, read by the store and past it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pymongo import MongoClient

from beanie_session_store import (
    BeanieSessionStore,
    SessionSummary,
    UnknownSessionError,
    database_of,
    sweep_sessions,
)

from .checker import FINAL, SESSION_ORDER, Finding
from .history import OK, Key, Recorder
from .tokens import entry_of, token_of
from .worker import HUGE, PROJECT, TENANTS, digest, named

DATES = "entries that MongoDB may take before their session expires"
REMAINS = "remains that a sweep left"
ORPHANS = "entries without a summary"
SUMMARY = "a summary that is not what its entries say"
COUNTER = "entries beyond the session's counter"

_FILLED_AT_ONCE = 5_000


async def prepare(url: str, database: str) -> None:
    """Bring a new database to the store's schema."""
    async with BeanieSessionStore.connect(url, database=database):
        pass


async def fill(url: str, database: str, recorder: Recorder, entries: int) -> None:
    """Store the first tenant's huge sessions, of so many entries each, and record how."""
    async with BeanieSessionStore.connect(url, database=database, upgrade=False):
        store = BeanieSessionStore(tenant=TENANTS[0])
        for session in HUGE:
            key = (TENANTS[0], PROJECT, session, "")
            for first in range(0, entries, _FILLED_AT_ONCE):
                batch = f"fill-{session}-{first}"
                tokens = [f"{batch}.{n}u" for n in range(min(_FILLED_AT_ONCE, entries - first))]
                number = recorder.invoke("append", key, "fill", batch, tokens)
                await store.append(named(key), [entry_of(token) for token in tokens])
                recorder.complete(number, OK)


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


def check_documents(url: str, database: str, *, is_swept: bool = False) -> list[Finding]:
    """What the protocol does not show: dates of expiry, orphans, the counter and remains."""
    findings: list[Finding] = []
    with MongoClient(url) as client:
        summaries = {
            _key(row): row for row in client[database]["claude_transcript_summaries"].find()
        }
        last: dict[Key, int] = defaultdict(int)
        for name in ("claude_transcript_entries", "claude_transcript_chunks"):
            for row in client[database][name].find({}, {"entry": 0, "packed": 0, "data": 0}):
                key = _key(row)
                last[key] = max(last[key], row["seq"])
                summary = summaries.get(key)
                if summary is None:
                    continue
                if _is_remnant(row, summary):
                    if is_swept:
                        findings.append(Finding(REMAINS, key, f"seq {row['seq']}"))
                    continue
                date = summary.get("expires_at")
                if date and (row.get("expires_at") is None or row["expires_at"] < date):
                    what = f"{row['seq']}: {row.get('expires_at')}, session {date}"
                    findings.append(Finding(DATES, key, what))
    for key, seq in last.items():
        if key not in summaries:
            findings.append(Finding(ORPHANS, key, f"up to seq {seq}"))
        elif seq >= summaries[key]["next_seq"]:
            findings.append(Finding(COUNTER, key, f"{seq}, {summaries[key]['next_seq']}"))
    return findings


def _is_remnant(row: dict[str, Any], summary: dict[str, Any]) -> bool:
    """Whether a document is of a session that is gone, or of a deleted transcript."""
    if summary.get("expires_at") == 0:
        return True
    if row.get("collection") == "claude_transcript_summaries":
        return False
    before = [
        each["before"] for each in summary.get("removed", ()) if each["subpath"] == row["subpath"]
    ]
    return row["seq"] < max([summary.get("first_seq", 1), *before])


async def sweep(url: str, database: str) -> None:
    """Finish what killed processes left."""
    async with BeanieSessionStore.connect(url, database=database):
        await sweep_sessions(database_of(SessionSummary))


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
