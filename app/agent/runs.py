"""What one run of the agent needs to see the store's sessions, and to leave nothing on the host.

The agent also writes every session to its configuration folder, whoever's it is, and the SDK falls
through to that file where the store has no session of the id. So on one host tenants, deletion and
retention are apart only where each run has a configuration folder of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from claude_agent_sdk import (
    ClaudeAgentOptions,
    SessionKey,
    SessionStore,
    SessionStoreEntry,
    project_key_for_directory,
)
from claude_agent_sdk.types import (
    SessionListSubkeysKey,
    SessionStoreListEntry,
    SessionSummaryEntry,
)

from ..errors import InvalidOptionsError, TransferError, UnknownSessionError
from ..files.layout import PROJECTS, transcript_path
from ..files.staging import StagedFiles
from ..files.transcript_writer import TranscriptWriter
from ..reading.listings import sessions
from ..reading.load import load_session
from ..storage.connection import Connection
from ..text import shown
from ..transcript_key import TranscriptKey
from .run_folders import RunFolder

logger = logging.getLogger("beanie_session_store.agent")

_FOLDERS = "beanie-session-store"
CONFIG = "CLAUDE_CONFIG_DIR"
# What the agent keeps of sessions in a configuration folder, and what only one host may renew.
OF_SESSIONS = frozenset(
    {
        PROJECTS,
        "backups",
        "debug",
        "file-history",
        "history.jsonl",
        "paste-cache",
        "plans",
        "session-env",
        "sessions",
        "shell-snapshots",
        "statsig",
        "tasks",
        "todos",
    }
)
_CREDENTIALS = ".credentials.json"


@dataclass(frozen=True, slots=True)
class Resumed:
    """A session that a run goes on with, as it is stored."""

    key: TranscriptKey
    transcripts: dict[str, list[dict[str, Any]]]
    """The entries by subpath; ``""`` is the main transcript, which has some."""


async def resumed(
    connection: Connection, tenant: str, options: ClaudeAgentOptions
) -> Resumed | None:
    """The session that the options resume, ``None`` for a new one.

    Raises:
        UnknownSessionError: there is no session of the id that they name.
    """
    project_key = project_key_for_directory(options.cwd)
    if options.resume is None:
        return (
            await _latest(connection, tenant, project_key)
            if options.continue_conversation
            else None
        )
    key = TranscriptKey(tenant, project_key, options.resume)
    transcripts = (await load_session(connection, key)).transcripts
    if not transcripts.get(""):
        raise UnknownSessionError(
            f"There is no {key} in the project of {options.cwd or 'this directory'}; the agent was "
            "not started. A session is found from the directory (cwd) in which it was begun; it "
            "may also have been deleted or have expired."
        )
    return Resumed(key, transcripts)


@asynccontextmanager
async def options_of_run(
    store: SessionStore,
    options: ClaudeAgentOptions,
    resumed: Resumed | None,
    config: Path | None,
) -> AsyncGenerator[ClaudeAgentOptions]:
    """The options for a run in a folder of its own, of those that :func:`checked` let through."""
    folder = await asyncio.to_thread(RunFolder, _FOLDERS)
    try:
        await asyncio.to_thread(_prepare, folder.path, config, resumed)
        key = resumed.key if resumed else None
        yield replace(
            options,
            session_store=Mirror(store, key),
            env={**options.env, CONFIG: str(folder.path)},
            resume=key.session_id if key else None,
            continue_conversation=False,
        )
    finally:
        # In a thread, which goes on to its end when this task is cancelled.
        await asyncio.to_thread(folder.remove)


def checked(options: object, store: SessionStore, config: object) -> Path | None:
    """Refuse options that cannot hold for a run of its own; the folder to begin from, if any.

    Raises:
        InvalidOptionsError: they are none, name another store or configuration folder, or a
            session that the agent cannot resume.
    """
    if not isinstance(options, ClaudeAgentOptions):
        raise InvalidOptionsError(
            f"options must be ClaudeAgentOptions, not {type(options).__name__}; the agent was not "
            "started."
        )
    require_no_other_store(options, store)
    if CONFIG in options.env:
        raise InvalidOptionsError(
            f"The options set {CONFIG}, and each run gets a folder of its own; the agent was not "
            "started. Pass config=... to begin from what is in a folder."
        )
    if options.resume is not None and not is_uuid(options.resume):
        raise UnknownSessionError(
            f"There is no session {shown(options.resume)}: the agent resumes a session by its "
            "whole id, a UUID. It was not started."
        )
    if config is None:
        return None
    if not isinstance(config, str | Path) or not Path(config).expanduser().is_dir():
        raise InvalidOptionsError(
            f"config must be a folder that is there, not {shown(config, 200)}; the agent was not "
            "started."
        )
    return Path(config).expanduser()


def require_no_other_store(options: ClaudeAgentOptions, store: SessionStore) -> None:
    """Refuse options that name a store, if that is another one.

    Raises:
        InvalidOptionsError: it is.
    """
    if options.session_store is not None and options.session_store is not store:
        raise InvalidOptionsError(
            "The options have another session_store; the agent was not started. Leave it out: the "
            "store that makes the options is the one they get."
        )


def is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value.lower()
    except ValueError:
        return False


async def _latest(connection: Connection, tenant: str, project_key: str) -> Resumed | None:
    """The session that ``continue_conversation`` means: the latest one of a person's."""
    listed = await sessions(connection, tenant, project_key)
    for each in sorted(listed, key=lambda one: one["mtime"], reverse=True):
        if is_uuid(each["session_id"]):
            key = TranscriptKey(tenant, project_key, each["session_id"])
            transcripts = (await load_session(connection, key)).transcripts
            main = transcripts.get("")
            if main and main[0].get("isSidechain") is not True:
                return Resumed(key, transcripts)
    return None


def _prepare(folder: Path, config: Path | None, resumed: Resumed | None) -> None:
    """Put into a new configuration folder what the agent begins from."""
    if config is not None:
        _copy_config(config, folder)
    projects = folder / PROJECTS
    projects.mkdir(mode=0o700)
    if resumed is not None:
        lay_out(projects, resumed)


def lay_out(projects: Path, resumed: Resumed) -> None:
    """Write the files of a session where the agent looks for them.

    Raises:
        TransferError: such files are there already.
        OSError: they cannot be written.
    """
    key = resumed.key
    with StagedFiles(projects, overwrite=False) as files:
        for subpath, entries in resumed.transcripts.items():
            try:
                path = transcript_path(key.project_key, key.session_id, subpath)
            except TransferError as error:
                # As the SDK does: the conversation itself can go on without it.
                logger.warning("A transcript of %s is not resumed: %s", key, error)
                continue
            transcript = TranscriptWriter(files, path, subpath)
            for entry in entries:
                transcript.add(entry)
            transcript.finish()
        files.publish(None)


def _copy_config(config: Path, folder: Path) -> None:
    def passed_over(path: str, names: list[str]) -> set[str]:
        return set(names) & OF_SESSIONS if Path(path) == config else set()

    shutil.copytree(
        config, folder, ignore=passed_over, dirs_exist_ok=True, ignore_dangling_symlinks=True
    )
    folder.chmod(0o700)
    credentials = folder / _CREDENTIALS
    if credentials.is_file():
        credentials.write_bytes(_without_renewal(credentials.read_bytes()))
        credentials.chmod(0o600)


def _without_renewal(credentials: bytes) -> bytes:
    """Credentials that cannot be renewed: that works once, and the host's own would be void."""
    with suppress(ValueError, LookupError, TypeError, AttributeError):
        value = cast("dict[str, Any]", json.loads(credentials))
        value["claudeAiOauth"].pop("refreshToken")
        return json.dumps(value).encode()
    return credentials


class Mirror(SessionStore):
    """A store for a run whose session is on its disk already.

    The SDK would else write it a second time, to a folder that stays behind when it is killed.
    """

    def __init__(self, store: SessionStore, resumed: TranscriptKey | None) -> None:
        self._store = store
        self._resumed = resumed

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        await self._store.append(key, entries)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        resumed = self._resumed
        if resumed and key == {
            "project_key": resumed.project_key,
            "session_id": resumed.session_id,
        }:
            return None
        return await self._store.load(key)

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        return await self._store.list_sessions(project_key)

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        return await self._store.list_session_summaries(project_key)

    async def delete(self, key: SessionKey) -> None:
        await self._store.delete(key)

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        return await self._store.list_subkeys(key)
