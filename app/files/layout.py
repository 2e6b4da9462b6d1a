"""Where the agent keeps transcripts on disk, and which key stands for which file.

    <projects>/<project key>/<session id>.jsonl                          the main transcript
    <projects>/<project key>/<session id>/subagents/agent-a1.jsonl       subpath subagents/agent-a1
    <projects>/<project key>/<session id>/subagents/agent-a1.meta.json   its agent_metadata
    <projects>/<project key>/agent-a1.jsonl     of older agents, subpath subagents/agent-a1

But for the last this is the mapping of the SDK, so that an imported session and a mirrored one
agree. Names of stored sessions are anybody's texts: none becomes a path before it was checked here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import TransferError
from .older_layouts import AGENT, owner_of

LINES = ".jsonl"
SIDECAR = ".meta.json"
PROJECTS = "projects"
_SUBAGENTS = "subagents"
# What file systems take, with room for the longest ending and the mark of an unfinished file.
_MAX_NAME_BYTES = 255 - len(".meta.json.partial")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]')
# Windows gives these to devices, whatever ending follows.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\.|$)", re.I)


@dataclass(frozen=True, slots=True)
class TranscriptFiles:
    """The files of one transcript: its lines, and what the agent keeps beside them."""

    subpath: str
    lines: Path | None
    sidecar: Path | None

    @property
    def path(self) -> Path:
        """The file to name when something is wrong with the transcript."""
        found = self.lines or self.sidecar
        assert found is not None
        return found


@dataclass(frozen=True, slots=True)
class SessionFiles:
    """A session as it lies on disk."""

    project_key: str
    session_id: str
    transcripts: tuple[TranscriptFiles, ...]
    """The main one first, if there is one."""
    size: int
    """Bytes of all files."""
    mtime: int | None
    """When the main transcript was changed last, epoch milliseconds."""

    @property
    def beside(self) -> tuple[TranscriptFiles, ...]:
        """The transcripts of subagents that lie beside the session's file."""
        return tuple(
            each
            for each in self.transcripts
            if each.subpath and each.lines and each.lines.parent.name == self.project_key
        )

    def is_part_of(self, other: SessionFiles) -> bool:
        """Whether the other one has all of its files."""
        return set(self.transcripts) <= set(other.transcripts)


def default_projects() -> Path:
    """The agent's own projects on this machine."""
    config = os.environ.get("CLAUDE_CONFIG_DIR")
    return (Path(config) if config else Path.home() / ".claude") / PROJECTS


OnUnreadable = Callable[[OSError], None]
"""Told of each folder that cannot be read; its ``filename`` says which."""


def find_sessions(path: Path, on_unreadable: OnUnreadable) -> Iterator[SessionFiles]:
    """The sessions of a folder of projects, of one project, or of one JSONL file.

    A file of a subagent is that transcript alone; any other one is a session, with its
    subagents. A session of which a subagent has two files comes twice. A folder in it that cannot
    be read costs no other one. What is no file (a pipe, a socket, a device) is passed over, for
    there is no end of it; a link that leads nowhere or to itself is kept, and reported when it is
    read.

    Raises:
        TransferError: there is nothing at that path, or nothing that the agent writes.
        OSError: it cannot be read.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - keeps the name of a link, as the SDK does
    if not path.exists():
        raise TransferError(f"There is no {path}. Name a folder of projects, or a JSONL file.")
    if path.is_file():
        if path.suffix != LINES:
            raise TransferError(f"{path} is no {LINES} file, which is what the agent writes.")
        yield from _sessions_of_file(path)
        return
    count = 0
    unreadable: list[OSError] = []
    # What is named itself must be readable.
    os.listdir(path)  # noqa: PTH208
    for project in _projects(path, unreadable.append):
        ids = _session_ids(project, unreadable.append)
        beside = _beside(project, unreadable.append)
        own = ids - {file.stem for files in beside.values() for file in files}
        for session_id in sorted(own | beside.keys()):
            yield from _session(project, session_id, beside.get(session_id, ()))
            count += 1
    for error in {each.filename: each for each in unreadable}.values():
        on_unreadable(error)
    if not count and not unreadable:
        raise TransferError(
            f"{path} holds no transcripts: neither *{LINES} files nor folders with them. Name a "
            "folder such as ~/.claude/projects."
        )


def main_path(project_key: str, session_id: str, ending: str = LINES) -> PurePosixPath:
    """Where the main transcript of a session lies below the folder of projects.

    Raises:
        TransferError: a name has no place on disk, or would lead out of the folder.
    """
    project = _component("project key", project_key)
    return PurePosixPath(project, _component("session id", session_id) + ending)


def transcript_path(project_key: str, session_id: str, subpath: str) -> PurePosixPath:
    """Where the lines of a transcript lie below the folder of projects.

    Raises:
        TransferError: a name has no place on disk, or would lead out of the folder.
    """
    main = main_path(project_key, session_id)
    if not subpath:
        return main
    parts = [_component("subpath", part) for part in subpath.split("/")]
    return main.with_name(session_id).joinpath(*parts[:-1], parts[-1] + LINES)


def sidecar_of(lines: PurePosixPath) -> PurePosixPath:
    """Where the agent keeps what it knows of a subagent."""
    return lines.with_name(lines.name.removesuffix(LINES) + SIDECAR)


def file_key(path: PurePosixPath) -> tuple[str, str, str] | None:
    """Project key, session id and subpath of a file below the folder of projects.

    ``None`` for a file that is no part of a transcript.
    """
    parts = list(path.parts)
    ending = SIDECAR if path.name.endswith(SIDECAR) else LINES
    if not path.name.endswith(ending) or len(parts) < 2:
        return None
    parts[-1] = parts[-1].removesuffix(ending)
    if len(parts) == 2:
        return (parts[0], parts[1], "") if ending == LINES else None
    if len(parts) < 4 or parts[2] != _SUBAGENTS:
        return None
    return parts[0], parts[1], "/".join(parts[2:])


def _component(what: str, name: str) -> str:
    shown = repr(name if len(name) <= 80 else name[:80] + "...")
    if name in ("", ".", "..") or _UNSAFE.search(name) or name[-1] in ". ":
        raise TransferError(
            f"its {what} has the part {shown}, which is no plain name of a file; not written"
        )
    if _DEVICE.match(name):
        raise TransferError(
            f"its {what} has the part {shown}, which some systems reserve for a device; not written"
        )
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise TransferError(
            f"its {what} has the part {shown}, longer than {_MAX_NAME_BYTES} bytes; not written"
        )
    return name


def _projects(path: Path, on_unreadable: OnUnreadable) -> list[Path]:
    # The configuration folder keeps JSONL files of other kinds beside this one.
    for root in (path / PROJECTS, path):
        if root.name == PROJECTS and _is_folder(root):
            found = _folders(root, on_unreadable)
            if any(_session_ids(each, on_unreadable) for each in found):
                return found
    return [path] if _session_ids(path, on_unreadable) else _folders(path, on_unreadable)


def _folders(path: Path, on_unreadable: OnUnreadable) -> list[Path]:
    return sorted(each for each in _children(path, on_unreadable) if _is_folder(each))


def _session_ids(project: Path, on_unreadable: OnUnreadable) -> set[str]:
    found: set[str] = set()
    for child in _children(project, on_unreadable):
        if child.name.endswith(LINES) and child.name != LINES:
            if _is_to_read(child):
                found.add(child.name.removesuffix(LINES))
        elif _is_folder(child / _SUBAGENTS):
            found.add(child.name)
    return found


def _children(folder: Path, on_unreadable: OnUnreadable) -> list[Path]:
    try:
        with os.scandir(folder) as children:
            return [folder / child.name for child in children]
    except FileNotFoundError:
        # It has gone since it was seen.
        return []
    except OSError as error:
        on_unreadable(error)
        return []


def _is_folder(path: Path) -> bool:
    """Whether it is one, or one that cannot be looked into, which shows when it is."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except PermissionError:
        return path.name == _SUBAGENTS
    except OSError:
        # Not there, or a link to itself.
        return False


def _is_own_folder(path: Path, on_unreadable: OnUnreadable) -> bool:
    """Whether it is a folder, and no link to one, which might lead round in a circle."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False
    except OSError as error:
        on_unreadable(error)
        return False


def _is_to_read(path: Path) -> bool:
    """Whether it is a file, or something else whose reading says what is wrong with it."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        # A link to nothing, or gone since it was seen.
        return path.is_symlink()
    except OSError:
        return True


def _beside(project: Path, on_unreadable: OnUnreadable) -> dict[str, list[Path]]:
    """The files of subagents in the folder of a project itself, by session."""
    found: dict[str, list[Path]] = {}
    for path in sorted(_children(project, on_unreadable)):
        if not (path.name.startswith(AGENT) and path.name.endswith(LINES)):
            continue
        # What has subagents of its own is a session.
        if _is_to_read(path) and not _is_folder(project / path.stem / _SUBAGENTS):
            owner = owner_of(path)
            if owner is not None:
                found.setdefault(owner, []).append(path)
    return found


def _sessions_of_file(path: Path) -> Iterator[SessionFiles]:
    parts = path.parts
    if _SUBAGENTS in parts[:-1]:
        at = parts.index(_SUBAGENTS)
        if at < 2:
            raise TransferError(f"{path} is in no folder of a project, so its key is not known.")
        files = _transcript("/".join(parts[at:]).removesuffix(LINES), path)
        yield SessionFiles(parts[at - 2], parts[at - 1], (files,), _size(files), None)
        return
    # Of the file that was named, the reading says what is wrong.
    beside = _beside(path.parent, lambda _: None)
    owner = next((owner for owner, files in beside.items() if path in files), None)
    if owner is None:
        yield from _session(path.parent, path.stem, beside.get(path.stem, ()))
        return
    files = _transcript(f"{_SUBAGENTS}/{path.stem}", path)
    yield SessionFiles(path.parent.name, owner, (files,), _size(files), None)


def _transcript(subpath: str, lines: Path) -> TranscriptFiles:
    sidecar = lines.with_name(lines.name.removesuffix(LINES) + SIDECAR)
    return TranscriptFiles(subpath, lines, sidecar if sidecar.is_file() else None)


def _session(project: Path, session_id: str, beside: Sequence[Path]) -> Iterator[SessionFiles]:
    main = project / (session_id + LINES)
    found: list[TranscriptFiles] = []
    mtime = None
    if main not in beside and _is_to_read(main):
        found.append(TranscriptFiles("", main, None))
        with suppress(OSError):
            mtime = main.stat().st_mtime_ns // 1_000_000
    found += _subagents(project / session_id)
    taken = {files.subpath for files in found}
    again: list[TranscriptFiles] = []
    for path in beside:
        files = _transcript(f"{_SUBAGENTS}/{path.stem}", path)
        (again if files.subpath in taken else found).append(files)
    if found:
        size = sum(map(_size, found))
        yield SessionFiles(project.name, session_id, tuple(found), size, mtime)
    if again:
        size = sum(map(_size, again))
        yield SessionFiles(project.name, session_id, tuple(again), size, None)


def _subagents(session: Path) -> list[TranscriptFiles]:
    files: dict[str, dict[str, Path]] = {}

    def unreadable(error: OSError) -> None:
        # In place of what is in it, so that the import comes to say that it is not whole.
        path = Path(error.filename)
        files[path.relative_to(session).as_posix()] = {LINES: path}

    # No recursion, for a tree may be deeper than the stack.
    folders = [session / _SUBAGENTS]
    while folders:
        for path in _children(folders.pop(), unreadable):
            ending = next((each for each in (LINES, SIDECAR) if path.name.endswith(each)), None)
            if _is_own_folder(path, unreadable):
                folders.append(path)
            elif ending is not None and _is_to_read(path):
                subpath = path.relative_to(session).as_posix().removesuffix(ending)
                files.setdefault(subpath, {})[ending] = path
    return [
        TranscriptFiles(subpath, found.get(LINES), found.get(SIDECAR))
        for subpath, found in sorted(files.items())
    ]


def _size(files: TranscriptFiles) -> int:
    size = 0
    for path in (files.lines, files.sidecar):
        # What is not there is reported when it is read.
        with suppress(OSError):
            size += 0 if path is None else path.stat().st_size
    return size
