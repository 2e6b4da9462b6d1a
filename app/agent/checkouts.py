"""A stored session in the host's own configuration folder, for one run, and out of it again.

The SDK lays a session that it resumes from a store into a new folder, where the host's commands,
agents and skills are not. Here it is laid where the agent works anyway, and the SDK is told that
there is nothing to load, so it goes on from that file and mirrors what is new.

Each session that is checked out has a mark beside the agent's files, locked for as long as its
process lives, which says what to remove. A mark whose lock is free is of a run that was killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from claude_agent_sdk import (
    ClaudeAgentOptions,
    SessionKey,
    SessionStore,
    SessionStoreEntry,
    project_key_for_directory,
)

from ..concurrency.cancellation import completed
from ..errors import InvalidOptionsError, SessionBusyError, TransferError, UnknownSessionError
from ..files.layout import PROJECTS, main_path
from ..text import shown
from ..transcript_key import TranscriptKey
from .run_folders import fcntl, locked
from .runs import CONFIG, OF_SESSIONS, Mirror, Resumed, is_uuid, lay_out, require_no_other_store

_MARKS = ".beanie-session-store"
_MARK = ".checkout"


def checked(
    options: object, store: SessionStore, key: TranscriptKey
) -> tuple[ClaudeAgentOptions, Path]:
    """The options that resume a session, and the configuration folder they run in.

    Raises:
        InvalidOptionsError: they name another session, store or directory.
        UnknownSessionError: no agent resumes a session of that id.
    """
    options = ClaudeAgentOptions() if options is None else options
    if not isinstance(options, ClaudeAgentOptions):
        raise InvalidOptionsError(
            f"options must be ClaudeAgentOptions, not {type(options).__name__}; nothing was "
            "checked out."
        )
    require_no_other_store(options, store)
    if key.subpath:
        raise InvalidOptionsError(
            "The key is of a subagent's transcript; nothing was checked out. Give that of the "
            "session, without a subpath: subagents come along."
        )
    if options.continue_conversation or options.resume not in (None, key.session_id):
        raise InvalidOptionsError(
            "The options resume another session than the one to check out; nothing was checked "
            "out. Leave out resume and continue_conversation."
        )
    if not is_uuid(key.session_id):
        raise UnknownSessionError(
            f"There is no session {shown(key.session_id)} that an agent resumes: their ids are "
            "UUIDs. Nothing was checked out."
        )
    directory = options.cwd or Path.cwd()
    if project_key_for_directory(options.cwd) != key.project_key:
        raise InvalidOptionsError(
            f"The session is of the project {shown(key.project_key)}, and the directory "
            f"{shown(str(directory))} is of another; nothing was checked out. The agent finds a "
            "session only from the directory in which it was begun: set cwd to it."
        )
    folder = options.env.get(CONFIG) or os.environ.get(CONFIG)
    config = Path(folder).expanduser() if folder else Path.home() / ".claude"
    return replace(options, resume=key.session_id), config


@asynccontextmanager
async def options_of_checkout(
    store: SessionStore, options: ClaudeAgentOptions, resumed: Resumed, config: Path
) -> AsyncGenerator[ClaudeAgentOptions]:
    """The options for a run in ``config``, of those that :func:`checked` let through.

    Raises:
        SessionBusyError: the session is checked out there already.
        InvalidOptionsError: the agent has a session of that id there.
    """
    checkout = await _begun(config, resumed)
    try:
        yield replace(
            options,
            session_store=_Noting(store, resumed.key, checkout),
        )
    finally:
        # In a thread, which goes on to its end when this task is cancelled.
        await asyncio.to_thread(checkout.remove)


async def _begun(config: Path, resumed: Resumed) -> _Checkout:
    making = asyncio.get_running_loop().run_in_executor(None, _Checkout, config, resumed)
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        # The thread goes on, and would leave the session there, and busy.
        await completed(_taken_out(making), "take out", resumed.key)
        raise


async def _taken_out(making: asyncio.Future[_Checkout]) -> None:
    # What could not be laid out is not there.
    with suppress(Exception):
        await asyncio.to_thread((await making).remove)


class _Checkout:
    """The files of one session in a configuration folder, and the mark that says so."""

    def __init__(self, config: Path, resumed: Resumed) -> None:
        key = resumed.key
        self._config = config
        self._project = key.project_key
        self._sessions = [key.session_id]
        marks = config / PROJECTS / _MARKS
        marks.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = hashlib.sha256(f"{key.project_key}/{key.session_id}".encode()).hexdigest()[:32]
        self._mark = marks / (name + _MARK)
        # Another's sweep may hold a new mark for a moment.
        for _ in range(3):
            _sweep(marks, config)
            lock = locked(self._mark)
            if lock is not None:
                break
        else:
            raise SessionBusyError(
                f"The session {key} is checked out in {config} already, by another run on this "
                "host; nothing was changed. Wait until that is over."
            )
        self._lock = lock
        try:
            # A link is there too, even one that leads to nothing.
            if any(map(os.path.lexists, _files(config, self._project, key.session_id))):
                raise InvalidOptionsError(
                    f"The agent has a session {key.session_id} in {config} already, which no "
                    "checkout made; nothing was changed. Import it if the store lacks something "
                    "of it (session-store import), then remove it there."
                )
            self._write()
        except BaseException:
            self._give_up()
            raise
        try:
            lay_out(config / PROJECTS, resumed)
        except TransferError as error:
            # No file of it has its name yet, so what is there is not of this run.
            _remove_empty(config, self._project, key.session_id)
            self._give_up()
            raise InvalidOptionsError(f"The session cannot be checked out: {error}") from error
        except BaseException:
            self.remove()
            raise

    def note(self, session_id: str) -> None:
        """Have another session removed too: a fork that the run makes has an id of its own."""
        if session_id not in self._sessions and is_uuid(session_id):
            self._sessions.append(session_id)
            self._write()

    def remove(self) -> None:
        """Take out of the folder what the run had there."""
        for session_id in self._sessions:
            _remove(self._config, self._project, session_id)
        self._give_up()

    def _write(self) -> None:
        said = json.dumps({"project": self._project, "sessions": self._sessions}).encode()
        # A shorter one is never written, so a kill leaves the one before or this one.
        os.pwrite(self._lock, said, 0)
        os.fsync(self._lock)

    def _give_up(self) -> None:
        with suppress(OSError):
            self._mark.unlink()
        os.close(self._lock)


def _sweep(marks: Path, config: Path) -> None:
    """Take out what runs left that were killed."""
    if fcntl is None:
        return
    for mark in marks.glob("*" + _MARK):
        lock = locked(mark, may_exist=True)
        if lock is None:
            continue
        with suppress(ValueError, LookupError, TypeError, OSError, TransferError):
            said = json.loads(mark.read_bytes())
            for session_id in said["sessions"]:
                _remove(config, said["project"], session_id)
        with suppress(OSError):
            mark.unlink()
        os.close(lock)


def _files(config: Path, project_key: str, session_id: str) -> tuple[Path, Path]:
    """The transcript of a session, and the folder of what is beside it."""
    path = config / PROJECTS / main_path(project_key, session_id)
    return path, path.with_suffix("")


def _remove(config: Path, project_key: str, session_id: str) -> None:
    """Remove what the agent keeps of a session: its files, and what it names after it elsewhere."""
    if not is_uuid(session_id):
        return
    transcript, beside = _files(config, project_key, session_id)
    with suppress(OSError):
        transcript.unlink()
    shutil.rmtree(beside, ignore_errors=True)
    with suppress(OSError):
        transcript.parent.rmdir()
    for kind in OF_SESSIONS - {PROJECTS}:
        for path in (config / kind).glob(f"{session_id}*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def _remove_empty(config: Path, project_key: str, session_id: str) -> None:
    """Remove the folders of a session in which there is nothing."""
    transcript, beside = _files(config, project_key, session_id)
    for folder in (*(path for path, *_ in os.walk(beside, topdown=False)), transcript.parent):
        with suppress(OSError):
            Path(folder).rmdir()


class _Noting(Mirror):
    """Mirrors a run, and notes which sessions it makes."""

    def __init__(self, store: SessionStore, resumed: TranscriptKey, checkout: _Checkout) -> None:
        super().__init__(store, resumed)
        self._checkout = checkout

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        self._checkout.note(key["session_id"])
        await super().append(key, entries)
