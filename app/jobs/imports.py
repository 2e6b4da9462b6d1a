"""Importing what the agent wrote to disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..concurrency.workers import ENDS_A_RUN, checked_workers, in_parallel
from ..database.failures import require_asyncio
from ..errors import (
    InvalidKeyError,
    SessionStoreError,
)
from ..files.archive import ENDINGS, unpacked
from ..files.jsonl import BATCH_BYTES, Batch, BrokenLine, batches, read_sidecar
from ..files.layout import (
    OnUnreadable,
    SessionFiles,
    TranscriptFiles,
    default_projects,
    find_sessions,
)
from ..files.older_layouts import others_named
from ..files.paths import checked_path
from ..store import BeanieSessionStore
from ..writing.new_sessions import NewSession
from ..writing.session_replay import SessionReplay
from .report import OnProblem, OnProgress, Progress, TransferReport
from .resumed_copies import Family, History, families

# What is stored in one transaction with others, and how many of them.
_SMALL_BYTES = 64 * 1024
_TOGETHER = 100


async def import_transcripts(
    store: BeanieSessionStore,
    *paths: Path | str,
    workers: int = 4,
    on_progress: OnProgress | None = None,
    on_problem: OnProblem | None = None,
) -> TransferReport:
    """Store the sessions that the agent wrote to disk, with subagents and their metadata.

    It may be run again, also after it was killed: what is stored already is recognised, and only
    what is new is added. A session's time is that of its file. A line that is no entry is reported
    and skipped.

    Args:
        store: where to; its metadata is put on each session that is made.
        paths: folders of projects, project folders, JSONL files, or archives (``.tar.gz``) that
            were exported; without any, the agent's own projects, ``~/.claude/projects``.
        workers: sessions to import at once.
        on_progress: called whenever a batch or a session is done.
        on_problem: called with each line, file or session that was left out.

    Raises:
        TransferError: there is nothing to import at a path.
        OSError: a folder cannot be read.
        SessionStoreError: the server is away or refuses; run it again.
    """
    require_asyncio()
    checked_workers(workers)
    named = [checked_path(path) for path in paths] or [default_projects()]
    with ExitStack() as stack:
        places = {await asyncio.to_thread(_unpacked, stack, path): path for path in named}
        unreadable: list[OSError] = []
        found = await asyncio.to_thread(_found, list(places), unreadable.append)
        sessions = [session for part in found for session in part]
        report = TransferReport(len(sessions), sum(session.size for session in sessions))
        run = _Import(store, Progress(report, on_progress, on_problem), places)
        for error in unreadable:
            run.unreadable(error)
        for part in found:
            alike = await asyncio.to_thread(families, part)
            await in_parallel(_groups(alike), run.sessions, workers)
    return report


def _unpacked(stack: ExitStack, path: Path) -> Path:
    is_archive = path.name.endswith(ENDINGS) and path.is_file()
    return stack.enter_context(unpacked(path)) if is_archive else path


def _found(paths: Sequence[Path], on_unreadable: OnUnreadable) -> list[list[SessionFiles]]:
    """The sessions, in parts that are imported one after the other.

    A session that is found in two places, say on two hosts, comes in two of them: at once, what
    has no uuid would be stored twice.
    """
    found: dict[tuple[str, str], list[SessionFiles]] = {}
    for session in (each for path in paths for each in find_sessions(path, on_unreadable)):
        places = found.setdefault((session.project_key, session.session_id), [])
        # Of one that is named twice, once by a file of it, all of it.
        if not any(session.is_part_of(other) for other in places):
            places[:] = [other for other in places if not other.is_part_of(session)]
            places.append(session)
    parts = zip_longest(*found.values())
    # The newest last, for times that are equal are told apart by the order of import.
    return [sorted(filter(None, part), key=lambda session: session.mtime or 0) for part in parts]


@dataclass(slots=True)
class _Group:
    """Sessions that one worker imports."""

    sessions: list[SessionFiles]
    are_alike: bool = False
    """Whether they may be copies of each other, and not just small."""


async def _groups(alike: Sequence[Family]) -> AsyncIterator[_Group]:
    """The sessions in their order, those that are small together, and families of them."""
    small: list[SessionFiles] = []
    size = 0
    for family in alike:
        session = family[0]
        is_small = session.size <= _SMALL_BYTES and len(family) == 1
        if small and (not is_small or len(small) >= _TOGETHER or size >= BATCH_BYTES):
            yield _Group(small)
            small, size = [], 0
        if is_small:
            small.append(session)
            size += session.size
        else:
            yield _Group(list(family), len(family) > 1)
    if small:
        yield _Group(small)


@dataclass(slots=True)
class _Read:
    """A small session in memory, and the lines of it that are broken."""

    session: NewSession
    broken: list[BrokenLine]


def _read(files: SessionFiles) -> _Read | None:
    """A whole session; ``None`` of one that cannot be read."""
    broken: list[BrokenLine] = []
    transcripts: dict[str, list[dict[str, Any]]] = {}
    try:
        for each in files.transcripts:
            entries = transcripts.setdefault(each.subpath, [])
            if each.lines is not None:
                for batch in batches(each.lines, broken.append):
                    entries += batch.entries
            if each.sidecar is not None:
                metadata = read_sidecar(each.sidecar, broken.append)
                if metadata is not None:
                    entries.append({**metadata, "type": "agent_metadata"})
    except OSError:
        return None
    session = NewSession(files.project_key, files.session_id, files.mtime, transcripts)
    return _Read(session, broken)


class _Import:
    """One run: what all of its sessions share."""

    def __init__(
        self, store: BeanieSessionStore, progress: Progress, places: Mapping[Path, Path]
    ) -> None:
        """``places`` says as what the caller named each folder that is imported."""
        self._store = store
        self._progress = progress
        self._places = places

    async def sessions(self, group: _Group) -> None:
        """Import some sessions: those that are small and new together, the others one by one."""
        if group.are_alike:
            history = History()
            for session in group.sessions:
                history.begin()
                await self._session(session, history)
            return
        sessions = group.sessions
        for session in await self._together(sessions) if len(sessions) > 1 else sessions:
            await self._session(session, None)

    async def _together(self, group: Sequence[SessionFiles]) -> Sequence[SessionFiles]:
        """Import what can be stored at once, and return the others."""
        read = await asyncio.to_thread(lambda: [(files, _read(files)) for files in group])
        whole = [(files, found) for files, found in read if found is not None]
        try:
            stored = await self._store.insert_sessions([found.session for _, found in whole])
        except ENDS_A_RUN:
            raise
        except SessionStoreError:
            # Which of them it is shows when each is tried alone.
            return group
        left = [files for files, found in read if found is None]
        for (files, found), count in zip(whole, stored, strict=True):
            if count is None:
                left.append(files)
                continue
            for line in found.broken:
                self._broken(line)
            self._alone(files)
            for each in files.beside:
                entries = found.session.transcripts[each.subpath]
                self._named(files, each, others_named(entries, files.session_id))
            self._progress.moved(files.size, count)
            self._progress.finished("changed" if count else "unchanged")
        return left

    def unreadable(self, error: OSError) -> None:
        """Report a folder, whose sessions nobody can count, as one that failed."""
        self._progress.report.listed += 1
        where = str(self._as_named(Path(error.filename)))
        self._progress.problem(where, f"cannot be read: {error.strerror}")
        self._progress.finished("failed")

    async def _session(self, session: SessionFiles, history: History | None) -> None:
        is_whole = True
        added = 0
        where = f"session {session.session_id} of project {session.project_key}"
        try:
            replay = await self._store.replay(
                {"project_key": session.project_key, "session_id": session.session_id},
                mtime=session.mtime,
            )
            self._alone(session)
            for files in session.transcripts:
                is_whole = await self._transcript(replay, files, session, history) and is_whole
            added = replay.added
        except ENDS_A_RUN:
            raise
        except SessionStoreError as error:
            is_whole = False
            self._progress.problem(where, str(error))
        if not is_whole:
            self._progress.finished("failed")
        else:
            self._progress.finished("changed" if added else "unchanged")

    async def _transcript(
        self,
        replay: SessionReplay,
        files: TranscriptFiles,
        session: SessionFiles,
        history: History | None,
    ) -> bool:
        """Import one transcript, and return whether all of its files could be read."""
        try:
            if files.lines is not None:
                known = None if files.subpath else history
                named = await self._lines(
                    replay, files.lines, files.subpath, session.session_id, known
                )
                if files in session.beside:
                    self._named(session, files, named)
            if files.sidecar is not None:
                await self._sidecar(replay, files.sidecar, files.subpath)
        except InvalidKeyError as error:
            # The others have names of their own.
            self._progress.problem(str(self._as_named(files.path)), str(error))
            return False
        except OSError as error:
            if isinstance(error, SessionStoreError):
                raise
            path = Path(error.filename or files.path)
            where = str(self._as_named(path))
            self._progress.problem(where, f"cannot be read: {error.strerror or error}")
            return False
        return True

    async def _lines(
        self,
        replay: SessionReplay,
        path: Path,
        subpath: str,
        session_id: str,
        history: History | None,
    ) -> set[str]:
        """Import the lines of a file, and return the other sessions that they name."""
        named: set[str] = set()
        remaining = batches(path, self._broken)
        try:
            while batch := await _next(remaining):
                copied = history.copied(batch.entries) if history is not None else 0
                added = await replay.add(batch.entries, subpath, copied=copied)
                if history is not None:
                    history.add(batch.entries)
                self._progress.moved(batch.size, added)
                named |= others_named(batch.entries, session_id)
        finally:
            await asyncio.to_thread(remaining.close)
        return named

    async def _sidecar(self, replay: SessionReplay, path: Path, subpath: str) -> None:
        metadata = await asyncio.to_thread(read_sidecar, path, self._broken)
        if metadata is not None:
            self._progress.moved(entries=await replay.add_metadata(metadata, subpath))

    def _alone(self, session: SessionFiles) -> None:
        """Say of which files the session is told by their entries alone."""
        if session.mtime is None and (beside := session.beside):
            path = beside[0].lines or Path()
            if not path.with_name(session.session_id + path.suffix).exists():
                reason = f"the file of session {session.session_id}, which it names, is not there"
                self._progress.problem(str(self._as_named(path)), f"{reason}; stored without it")

    def _named(self, session: SessionFiles, files: TranscriptFiles, others: set[str]) -> None:
        """Say that entries of a subagent beside the session's file name other sessions too."""
        if others and files.lines is not None:
            self._progress.problem(
                str(self._as_named(files.lines)),
                f"some of its entries name session {min(others)!r:.80}; all were stored as a "
                f"subagent's of session {session.session_id}, which comes first",
            )

    def _broken(self, line: BrokenLine) -> None:
        self._progress.report.skipped_lines += 1
        where = replace(line, path=self._as_named(line.path)).where
        read = {0: "skipped", 1: "1 whole record of the line was read"}
        left = read.get(line.records, f"{line.records} whole records of the line were read")
        self._progress.problem(where, f"{line.reason}; {left}")

    def _as_named(self, path: Path) -> Path:
        """The path of a file in an archive, and not of where that is unpacked for a moment."""
        for folder, named in self._places.items():
            if folder != named and path.is_relative_to(folder):
                return named / path.relative_to(folder)
        return path


async def _next(remaining: Iterator[Batch]) -> Batch | None:
    reading = asyncio.ensure_future(asyncio.to_thread(next, remaining, None))
    try:
        return await asyncio.shield(reading)
    finally:
        # Its thread goes on when this is cancelled, and what it reads cannot be closed meanwhile.
        await asyncio.wait([reading])
