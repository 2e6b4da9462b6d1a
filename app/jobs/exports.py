"""Exporting sessions: as the agent's own files, as pages to read, or as traces."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Literal

from ..concurrency.workers import ENDS_A_RUN, checked_workers, in_parallel
from ..database.failures import require_asyncio
from ..errors import (
    SessionStoreError,
    TransferError,
    UnknownSessionError,
)
from ..files.archive import ENDINGS, ArchiveWriter
from ..files.paths import checked_path
from ..files.private_files import make_private_folder
from ..files.staging import StagedFiles
from ..queries.filters import require_subject
from ..reading.listings import SessionListing
from ..rendering.formats import page_of
from ..store import BeanieSessionStore
from ..text import shown
from .agent_files import write_agent_files
from .index_page import IndexedSession, index_page
from .page_export import write_page
from .report import OnProblem, OnProgress, Progress, TransferReport
from .trace_export import write_trace

# What the next session would meet as well.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

_Write = Callable[[BeanieSessionStore, SessionListing, StagedFiles, Progress], Awaitable[None]]
_Deliver = Callable[[Sequence[Path]], Awaitable[None]]


async def export_transcripts(
    store: BeanieSessionStore,
    target: Path | str,
    *,
    project_key: str | None = None,
    session_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    format: Literal["jsonl", "markdown", "html", "otlp"] = "jsonl",  # noqa: A002
    with_content: bool = False,
    archive: bool = False,
    overwrite: bool = False,
    workers: int = 4,
    on_progress: OnProgress | None = None,
    on_problem: OnProblem | None = None,
) -> TransferReport:
    """Write sessions to disk, each whole or not at all.

    As ``"jsonl"`` they are the files that the agent keeps, so that it can resume them from there.
    As ``"markdown"`` or ``"html"`` each is one page, on which all that a transcript says is
    escaped or sanitised. As ``"otlp"`` each is the spans of a trace, in lines of OpenTelemetry's
    JSON. A session whose names have no place on disk, or whose files are there already, is reported
    and left out.

    Args:
        store: where from; the sessions are those of its tenant.
        target: a folder of projects, such as ``~/.claude/projects``; made if it is not there.
        project_key: only the sessions of this project.
        session_id: only sessions of this id.
        metadata: only sessions whose metadata has these values, such as those of one user. Then
            ``index.html`` beside them says in words what there is.
        format: ``"jsonl"``, ``"otlp"``, or ``"markdown"`` or ``"html"`` (extra ``export``).
        with_content: have traces also say prompts, answers, arguments and results of tools.
        archive: make ``target`` a ``.tar.gz`` file of such a folder.
        overwrite: replace files that are there.
        workers: sessions to export at once.
        on_progress: called whenever a part of a session, or all of it, is written.
        on_problem: called with each session that was left out.

    Raises:
        UnknownSessionError: there is no session of what was asked for.
        InvalidQueryError: the metadata is of a wrong type, or names nobody: it is empty, or has a
            value that is ``None``.
        TransferError: the archive is there already, or an extra is not installed.
        OSError: the disk is full, or the target cannot be written.
        SessionStoreError: the server is away or refuses.
    """
    require_asyncio()
    checked_workers(workers)
    write: _Write = write_agent_files
    if format == "otlp":
        write = partial(write_trace, with_content=with_content)
    elif format != "jsonl":
        write = partial(write_page, page_of(format))
    target = checked_path(target)
    if archive and not target.name.endswith(ENDINGS):
        raise TransferError(
            f"{target} must end in .tar.gz, for an import to know the archive by it."
        )
    report = TransferReport()
    progress = Progress(report, on_progress, on_problem)
    if metadata is not None:
        require_subject(metadata, "written")
    wanted = partial(store.all_sessions, project_key, session_id, metadata=metadata)
    async for _ in wanted():
        report.listed += 1
    if not report.listed:
        of_project = "" if project_key is None else f" of project {project_key}"
        if metadata is not None:
            of_project += f" with the metadata {shown(dict(metadata))}"
        which = "sessions" if session_id is None else f"session {session_id}"
        raise UnknownSessionError(
            f"Tenant {store.tenant} has no {which}{of_project}; nothing was written."
        )
    place = _archive if archive else _folder
    async with place(target, overwrite) as (root, deliver):
        run = _Export(store, write, root, overwrite, deliver, progress)
        await in_parallel(wanted(), run.session, workers)
        if metadata is not None:
            await run.index(metadata)
    return report


@asynccontextmanager
async def _folder(target: Path, overwrite: bool) -> AsyncGenerator[tuple[Path, _Deliver]]:
    """The folder to write to; what is published there is delivered."""

    async def deliver(paths: Sequence[Path]) -> None:
        pass

    make_private_folder(target)
    yield target, deliver


@asynccontextmanager
async def _archive(target: Path, overwrite: bool) -> AsyncGenerator[tuple[Path, _Deliver]]:
    """A folder for what is on its way into the archive, which appears once it is whole."""
    make_private_folder(target.parent)
    with (
        StagedFiles(target.parent, overwrite=overwrite) as files,
        TemporaryDirectory(prefix=".session-store-", dir=target.parent) as folder,
    ):
        writer = ArchiveWriter(files.create(PurePosixPath(target.name)))
        one_at_a_time = asyncio.Lock()

        async def deliver(paths: Sequence[Path]) -> None:
            async with one_at_a_time:
                await asyncio.to_thread(writer.move, Path(folder), paths)

        try:
            yield Path(folder), deliver
        except Exception:
            # Else its end would be written when its file is closed already.
            with suppress(OSError):
                await asyncio.to_thread(writer.close)
            raise
        await asyncio.to_thread(writer.close)
        files.publish(None)


class _Export:
    """One run: what all of its sessions share."""

    def __init__(
        self,
        store: BeanieSessionStore,
        write: _Write,
        root: Path,
        overwrite: bool,
        deliver: _Deliver,
        progress: Progress,
    ) -> None:
        self._store = store
        self._write = write
        self._root = root
        self._overwrite = overwrite
        self._deliver = deliver
        self._progress = progress
        self._written: list[IndexedSession] = []

    async def index(self, subject: Mapping[str, Any]) -> None:
        """Write what there is for a person to read."""
        page = index_page(self._store.tenant, subject, self._written)
        with StagedFiles(self._root, overwrite=self._overwrite) as files:
            files.create(PurePosixPath("index.html")).write(page.encode())
            published = files.publish(None)
        await self._deliver(published)

    async def session(self, listing: SessionListing) -> None:
        """Export one session."""
        try:
            await self._store.recorded("export", listing.key())
            with StagedFiles(self._root, overwrite=self._overwrite) as files:
                await self._write(self._store, listing, files, self._progress)
                published = files.publish(listing.mtime)
            paths = [path.relative_to(self._root).as_posix() for path in published]
            await self._deliver(published)
        except ENDS_A_RUN:
            raise
        except SessionStoreError as error:
            self._progress.problem(str(listing), str(error))
            self._progress.finished("failed")
        except OSError as error:
            if error.errno in _OF_THE_DISK:
                raise
            self._progress.problem(str(listing), f"cannot be written: {error}")
            self._progress.finished("failed")
        else:
            # The last one is that of the session itself.
            self._written.append(IndexedSession(listing, tuple(reversed(paths))))
            self._progress.finished("changed")
