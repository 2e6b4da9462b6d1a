"""Copying sessions from another store: of ours, or any that the SDK can use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast

from ..concurrency.workers import ENDS_A_RUN, checked_workers, in_parallel
from ..database.failures import require_asyncio
from ..errors import (
    SessionStoreError,
    TransferError,
    UnknownSessionError,
)
from ..files.jsonl import BATCH_BYTES, BATCH_ENTRIES, json_line
from ..reading.listings import SessionListing
from ..sdk import SessionKey, SessionStore
from ..store import BeanieSessionStore
from ..stored_times import whole_ms
from ..text import shown
from ..transcript_key import checked_name
from .report import OnProblem, OnProgress, Progress, TransferReport


async def copy_sessions(
    source: SessionStore,
    target: BeanieSessionStore,
    *,
    projects: Sequence[str] | None = None,
    session_id: str | None = None,
    workers: int = 4,
    on_progress: OnProgress | None = None,
    on_problem: OnProblem | None = None,
) -> TransferReport:
    """Store the sessions of another store, with order, uuids, times and subagents.

    It may be run again, also after it was killed, and then adds only what is new. A source of
    ours is read in constant memory, and its sessions keep their metadata and the order among
    their transcripts; another one gives each transcript whole, as the SDK's protocol has it.

    Args:
        source: any store that the SDK can use; it is only read.
        target: where to; its metadata, if it has any, goes before that of the source.
        projects: only the sessions of these project keys. A source that is not ours needs them,
            for the SDK's protocol cannot list them.
        session_id: only sessions of this id.
        workers: sessions to copy at once.
        on_progress: called whenever a batch or a session is done.
        on_problem: called with each session that was not copied, or not whole.

    Raises:
        TransferError: the source cannot be listed, or ``projects`` are none.
        UnknownSessionError: the source has no session of what was asked for.
        SessionStoreError: a server is away or refuses; run it again.
    """
    require_asyncio()
    checked_workers(workers)
    if projects is not None:
        names = [projects] if isinstance(projects, str) else projects
        if not isinstance(cast("object", names), Collection):
            raise TransferError(
                f"projects must be a list of project keys, not {shown(names, 40)}; nothing was "
                'written. Pass ["-srv", ...].'
            )
        # One that is named twice would be copied twice at once.
        projects = list(dict.fromkeys(checked_name("project_key", name) for name in names))
    progress = Progress(TransferReport(), on_progress, on_problem)
    reader: _SessionSource
    if isinstance(source, BeanieSessionStore):
        reader = _OurSource(cast("BeanieSessionStore", source))
    else:
        reader = _OtherSource(source, progress)
    async for _ in reader.sessions(projects, session_id):
        progress.report.listed += 1
    if not progress.report.listed:
        which = "sessions" if session_id is None else f"session {session_id}"
        raise UnknownSessionError(f"The source has no {which} to copy; nothing was written.")

    async def copy(listing: SessionListing) -> None:
        await _copy(reader, target, listing, progress)

    await in_parallel(reader.sessions(projects, session_id), copy, workers)
    return progress.report


class _SessionSource(Protocol):
    """What sessions are read from."""

    def sessions(
        self, projects: Sequence[str] | None, session_id: str | None
    ) -> AsyncIterator[SessionListing]:
        """The sessions that are asked for."""
        ...

    def entries(self, listing: SessionListing) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """The entries of a session, each with the subpath of its transcript."""
        ...


async def _copy(
    source: _SessionSource, target: BeanieSessionStore, listing: SessionListing, progress: Progress
) -> None:
    try:
        replay = await target.replay(
            listing.key(), mtime=listing.mtime, metadata=target.metadata or listing.metadata
        )
        async for batch in _batches(source.entries(listing)):
            added = await replay.add(batch.entries, batch.subpath)
            progress.moved(batch.size, added)
    except ENDS_A_RUN:
        raise
    # What another store raises can be anything.
    except Exception as error:
        reason = str(error) or "no reason given"
        if not isinstance(error, SessionStoreError):
            reason = f"{type(error).__name__}: {reason}"
        progress.problem(str(listing), reason)
        progress.finished("failed")
    else:
        progress.finished("changed" if replay.added else "unchanged")


@dataclass(slots=True)
class _CopiedBatch:
    subpath: str
    entries: list[Mapping[str, Any]]
    size: int


async def _batches(
    entries: AsyncIterator[tuple[str, Mapping[str, Any]]],
) -> AsyncIterator[_CopiedBatch]:
    """Entries that follow one another in one transcript, about as many as the SDK sends at once."""
    batch = _CopiedBatch("", [], 0)
    async for subpath, entry in entries:
        is_full = len(batch.entries) >= BATCH_ENTRIES or batch.size >= BATCH_BYTES
        if batch.entries and (subpath != batch.subpath or is_full):
            yield batch
            batch = _CopiedBatch(subpath, [], 0)
        batch.subpath = subpath
        batch.entries.append(entry)
        batch.size += len(json_line(entry))
    if batch.entries:
        yield batch


class _OurSource:
    """A store of ours."""

    def __init__(self, store: BeanieSessionStore) -> None:
        self._store = store

    async def sessions(
        self, projects: Sequence[str] | None, session_id: str | None
    ) -> AsyncIterator[SessionListing]:
        for project in [None] if projects is None else projects:
            async for listing in self._store.all_sessions(project, session_id):
                yield listing

    async def entries(
        self, listing: SessionListing
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        await self._store.recorded("copy", listing.key())
        # As they were written: what a subagent says stands between the lines of the main one. One
        # transcript alone is in the order of an index, and need not be sorted.
        with_subagents = bool(await self._store.list_subkeys(listing.subkeys_key))
        async for entry in self._store.stream(listing.key(), with_subagents=with_subagents):
            yield entry.subpath, entry


class _OtherSource:
    """Any store that the SDK can use."""

    def __init__(self, store: SessionStore, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._lists_subagents = True

    async def sessions(
        self, projects: Sequence[str] | None, session_id: str | None
    ) -> AsyncIterator[SessionListing]:
        if projects is None:
            raise TransferError(
                "The SDK's stores cannot list their projects: name those to copy (--project, or "
                "projects=...). project_key_for_directory of claude_agent_sdk has the key of a "
                "directory."
            )
        for project in projects:
            try:
                listed = await self._listed(project)
            except SessionStoreError:
                raise
            except Exception as error:
                raise TransferError(
                    f"The source could not list the sessions of project {project}: "
                    f"{type(error).__name__}: {error}"
                ) from error
            if listed is None:
                if session_id is None:
                    raise TransferError(
                        "The source cannot list its sessions: name the one to copy (--session, or "
                        "session_id=...)."
                    )
                listed = {session_id: None}
            for each, mtime in listed.items():
                if session_id in (None, each):
                    yield SessionListing(project, each, mtime)

    async def _listed(self, project: str) -> dict[str, int | None] | None:
        """The sessions of a project with their times; ``None`` of a store that lists none."""
        # The SDK lets a store leave the method out.
        if not hasattr(self._store, "list_sessions"):
            return None
        try:
            listed = await self._store.list_sessions(project)
        except NotImplementedError:
            return None
        return {each["session_id"]: whole_ms(each.get("mtime")) for each in listed}

    async def entries(
        self, listing: SessionListing
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        for subpath in ["", *dict.fromkeys(await self._subpaths(listing))]:
            key: SessionKey = listing.key(subpath)
            for entry in await self._store.load(key) or ():
                yield subpath, entry

    async def _subpaths(self, listing: SessionListing) -> list[str]:
        with suppress(NotImplementedError):
            if hasattr(self._store, "list_subkeys"):
                return await self._store.list_subkeys(listing.subkeys_key)
        if self._lists_subagents:
            self._lists_subagents = False
            reason = "cannot list subagents; main transcripts alone are copied"
            self._progress.problem("the source", reason)
        return []
