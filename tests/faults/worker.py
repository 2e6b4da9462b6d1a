"""One process of a team: appends, loads, lists, deletes and forks until its time is over."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pymongo import monitoring

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.errors import SessionStoreError
from beanie_session_store.app.queries import search
from beanie_session_store.app.reading import load
from beanie_session_store.app.retention import holds
from beanie_session_store.app.writing import dating, deletion, remains, shared_commits

from .crash import CrashPoint
from .history import FAIL, OK, UNKNOWN, Key, Recorder
from .tokens import entry_of, has_uuid, new_batch, token_of

PROJECT = "project"
TENANTS = ("one", "two")
# As the SDK tries a batch.
_PAUSES = (0.2, 0.8)
_EPOCH_SECONDS = 12.0
_SESSIONS = 3
_SUBPATH = "subagents/agent-a"
HUGE = ("kept-huge", "deleted-huge")
"""Sessions that some rounds begin with, one of them never deleted."""
_HUGE_SHARE = 0.15
_MOST_FORKED = 300
_NOTHING_STORED = ("nothing was changed", "nothing of the batch was stored")

_OPERATIONS = {
    "append": 60,
    "load": 14,
    "list_sessions": 4,
    "list_session_summaries": 4,
    "list_subkeys": 3,
    "delete": 3,
    "fork": 2,
    "reimport": 3,
    "hold": 2,
    "release": 2,
}


# What takes all of a huge session is rare, that there be time for the rest.
_OF_HUGE_ONES = {
    "load": (*("hold", "release", "append") * 5, "load"),
    "fork": ("hold", "release"),
    "reimport": ("hold", "release"),
}


class Worker:
    """The tasks of one process, which share one store per tenant."""

    def __init__(self, job: dict[str, Any], stores: dict[str, BeanieSessionStore]) -> None:
        self._job = job
        self._stores = stores
        self._recorder = Recorder(Path(job["record"] + ".jsonl"))
        self._batches = 0

    async def run(self, task: int) -> None:
        name = f"{self._job['name']}.{task}"
        rng = random.Random(f"{self._job['seed']}/{name}")
        while time.monotonic() < self._job["stop_at"]:
            (kind,) = rng.choices(list(_OPERATIONS), list(_OPERATIONS.values()))
            key = self._key(rng)
            if key[2] in HUGE and kind in _OF_HUGE_ONES:
                kind = rng.choice(_OF_HUGE_ONES[kind])
            await self._one(kind, key, rng, name)
            await asyncio.sleep(rng.uniform(0, 2 * self._job["pause"]))

    def _key(self, rng: random.Random) -> Key:
        """A transcript that all processes use about now; some sessions are never deleted."""
        epoch = int((time.monotonic() - self._job["start_at"]) / _EPOCH_SECONDS)
        if rng.random() < 0.15:
            epoch = max(epoch - 1, 0)
        if self._job["huge"] and rng.random() < _HUGE_SHARE:
            return (TENANTS[0], PROJECT, rng.choice(HUGE), "")
        kept = rng.choice(("kept", "deleted"))
        session = f"{kept}-{epoch}-{rng.randrange(_SESSIONS)}"
        subpath = f"{_SUBPATH}{rng.randrange(2)}" if rng.random() < 0.25 else ""
        return (rng.choice(TENANTS), PROJECT, session, subpath)

    async def _one(self, kind: str, key: Key, rng: random.Random, process: str) -> None:
        store = self._stores[key[0]]
        if kind == "append":
            self._batches += 1
            batch = f"{self._job['name']}-{self._batches}"
            await self._append("append", key, batch, new_batch(batch, rng), rng, process)
        elif kind == "load":
            await self._load(key, process)
        elif kind == "list_sessions":
            await self._list(kind, key, store.list_sessions(PROJECT), process)
        elif kind == "list_session_summaries":
            await self._list(kind, key, store.list_session_summaries(PROJECT), process)
        elif kind == "list_subkeys":
            number = self._recorder.invoke(kind, (*key[:3], ""), process, "", [])
            found = await self._reading(number, store.list_subkeys(named(key, subpath="")))
            if found is not None:
                self._recorder.complete(number, OK, rows=[[subpath] for subpath in found])
        elif kind in ("hold", "release"):
            number = self._recorder.invoke(kind, (*key[:3], ""), process, "", [])
            await self._writing(number, getattr(store, kind)(named(key, subpath="")))
        elif kind == "delete":
            if key[2].startswith("deleted"):
                number = self._recorder.invoke(kind, key, process, "", [])
                await self._writing(number, store.delete(named(key)))
        else:
            await self._copy(kind, key, rng, process)

    async def _copy(self, kind: str, key: Key, rng: random.Random, process: str) -> None:
        """Append what is loaded once more: to a new session, as a fork, or to the same one."""
        tokens = await self._load(key, process)
        if not tokens or len(tokens) > _MOST_FORKED or not any(map(has_uuid, tokens)):
            return
        if kind == "fork":
            self._batches += 1
            batch = f"{self._job['name']}-{self._batches}"
            fork: Key = (key[0], PROJECT, f"fork-{batch}", "")
            await self._append("append", fork, batch, tokens, rng, process)
        else:
            await self._append("reimport", key, "", tokens, rng, process)

    async def _append(
        self,
        kind: str,
        key: Key,
        batch: str,
        tokens: list[str],
        rng: random.Random,
        process: str,
    ) -> None:
        entries = [entry_of(token) for token in tokens]
        for pause in (*_PAUSES, None):
            number = self._recorder.invoke(kind, key, process, batch, tokens)
            append = self._stores[key[0]].append(named(key), entries)
            if await self._writing(number, append) or pause is None:
                return
            await asyncio.sleep(pause)

    async def _load(self, key: Key, process: str) -> list[str] | None:
        number = self._recorder.invoke("load", key, process, "", [])
        found = await self._reading(number, self._stores[key[0]].load(named(key)), or_else=[])
        if found is None:
            return None
        tokens = [token_of(entry) for entry in found]
        self._recorder.complete(number, OK, tokens=tokens)
        return tokens

    async def _list(self, kind: str, key: Key, listing: Any, process: str) -> None:
        number = self._recorder.invoke(kind, (key[0], PROJECT, "", ""), process, "", [])
        found = await self._reading(number, listing)
        if found is not None:
            rows = [
                [row["session_id"], row["mtime"], digest(row["data"]) if "data" in row else None]
                for row in found
            ]
            self._recorder.complete(number, OK, rows=rows)

    async def _reading(self, number: int, call: Any, or_else: Any = None) -> Any:
        try:
            return await call or or_else or []
        except SessionStoreError as error:
            self._recorder.complete(number, FAIL, error=f"{type(error).__name__}: {error}")
            return None

    async def _writing(self, number: int, call: Any) -> bool:
        try:
            await call
        except SessionStoreError as error:
            certain = any(words in str(error) for words in _NOTHING_STORED)
            self._recorder.complete(
                number, FAIL if certain else UNKNOWN, error=f"{type(error).__name__}: {error}"
            )
            return False
        self._recorder.complete(number, OK)
        return True


def digest(data: dict[str, Any]) -> str:
    """A short name for a fold."""
    return hashlib.sha1(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def named(key: Key, subpath: str | None = None) -> Any:
    path = key[3] if subpath is None else subpath
    named = {"project_key": key[1], "session_id": key[2]}
    return {**named, "subpath": path} if path else named


def shift_clock(seconds: float) -> None:
    """Make this process believe that it is another time, as a host with a wrong clock does."""
    right = time.time
    right_ns = time.time_ns
    time.time = lambda: right() + seconds
    time.time_ns = lambda: right_ns() + int(seconds * 1e9)


async def main(job: dict[str, Any]) -> None:
    while time.monotonic() < job["stop_at"]:
        try:
            async with BeanieSessionStore.connect(
                job["url"], database=job["database"], upgrade=False
            ):
                stores = {tenant: BeanieSessionStore(tenant=tenant) for tenant in TENANTS}
                worker = Worker(job, stores)
                await asyncio.gather(*(worker.run(task) for task in range(job["tasks"])))
        except SessionStoreError:
            # There is no primary to begin with.
            await asyncio.sleep(0.5)


_SMALL_STEPS: list[tuple[Any, str, int]] = [
    *((module, "MARKED", 20) for module in (deletion, load, search)),
    (deletion, "AT_ONCE", 40),
    (remains, "_BATCH", 10),
    (dating, "_BATCH", 10),
    (holds, "_FEW_ENTRIES", 40),
    # So that the few tasks of a process go together.
    (shared_commits, "_AT_ONCE", 1),
]


def take_small_steps() -> None:
    """Let what goes by thousands go by handfuls, so that every session is a large one."""
    for module, name, few in _SMALL_STEPS:
        assert hasattr(module, name)
        setattr(module, name, few)


@contextmanager
def small_steps() -> Iterator[None]:
    """The same for a while: who reads must go by the positions that who deletes goes by."""
    usual = [getattr(module, name) for module, name, _ in _SMALL_STEPS]
    take_small_steps()
    try:
        yield
    finally:
        for (module, name, _), value in zip(_SMALL_STEPS, usual, strict=True):
            setattr(module, name, value)


def start(job: dict[str, Any]) -> None:
    """Do a job in this process, which is forked for it."""
    if not job["huge"]:
        take_small_steps()
    log = os.open(job["record"] + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    shift_clock(job["clock_skew"])
    if job["crash"]:
        monitoring.register(CrashPoint(*job["crash"]))
    asyncio.run(main(job))
