"""Sessions whose history was copied whole from another one, told by the uuids of the entries.

Older agents wrote all of a conversation into a new file at ``--resume``, under a new session id,
with the uuids that the entries had, and without a mark of where they came from. A file that is
looked at by itself does not tell; files beside each other do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from ...models.counting.assistant_entry import is_copied
from ..files.jsonl import parse_object
from ..files.layout import SessionFiles
from ..files.lines import lines

# What comes before the first response is a prompt with its surroundings, a few entries.
_HEAD_BYTES = 4 * 1024 * 1024
_HINT = b'"assistant"'

Family = Sequence[SessionFiles]
"""Sessions of one project that begin with the same response, in their order."""


def families(sessions: Iterable[SessionFiles]) -> list[Family]:
    """The sessions in their order, those that may be copies of each other together.

    A family stands where its first session does; most are of one session. What cannot be read is
    one of its own.
    """
    found: dict[object, list[SessionFiles]] = {}
    for session in sessions:
        begins = _first_response(session)
        alike = object() if begins is None else (session.project_key, begins)
        found.setdefault(alike, []).append(session)
    return list(found.values())


class History:
    """The responses in the main transcripts of a family, as its sessions are gone through in turn.

    It remembers 8 bytes per entry of a response.
    """

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._added: set[bytes] = set()
        self._is_copying = False

    def begin(self) -> None:
        """Go on to the next session."""
        self._known |= self._added
        self._added = set()
        self._is_copying = bool(self._known)

    def copied(self, entries: Sequence[Mapping[str, Any]]) -> int:
        """How many of the next entries belong to the history that another session has too.

        It ends before the first response that none of the earlier sessions has.
        """
        if not self._is_copying:
            return 0
        for index, entry in enumerate(entries):
            if entry.get("type") == "assistant" and _digest(entry) not in self._known:
                self._is_copying = False
                return index
        return len(entries)

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Note what is stored of the session now."""
        for entry in entries:
            # What a fork has copied is counted where it comes from.
            if entry.get("type") == "assistant" and not is_copied(entry):
                digest = _digest(entry)
                if digest is not None:
                    self._added.add(digest)


def _digest(entry: Mapping[str, Any]) -> bytes | None:
    uuid = entry.get("uuid")
    if not isinstance(uuid, str) or not uuid:
        return None
    message = entry.get("message")
    response = cast("dict[str, Any]", message).get("id") if isinstance(message, dict) else None
    text = f"{uuid}\0{response if isinstance(response, str) else ''}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _first_response(session: SessionFiles) -> bytes | None:
    main = next((each.lines for each in session.transcripts if not each.subpath), None)
    try:
        return None if main is None else _first_response_in(main)
    except OSError:
        return None


def _first_response_in(path: Path) -> bytes | None:
    read = 0
    with path.open("rb") as file:
        for length, line in lines(file):
            read += length
            if line is not None and _HINT in line:
                try:
                    entry = parse_object(line)
                except ValueError:
                    entry = {}
                if entry.get("type") == "assistant" and (digest := _digest(entry)) is not None:
                    return digest
            if read > _HEAD_BYTES:
                return None
    return None
