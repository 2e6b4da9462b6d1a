"""Transcript entries of the shapes and sizes that the agent writes.

``data/one_turn.jsonl`` is one turn of the real agent with one tool call: 24 entries of 80 B to
50 KB, 9 of them without uuid. Its long texts are filler of the same length, which compresses
about as well as prose does.
"""

from __future__ import annotations

import json
import random
import re
import uuid
from pathlib import Path
from typing import Any

from claude_agent_sdk import SessionKey

Entry = dict[str, Any]

_TURN = (Path(__file__).parent / "data" / "one_turn.jsonl").read_text()
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IDS = sorted(set(_UUID.findall(_TURN)))
_RESPONSE = re.compile(r"msg_[0-9]{8}")

TURN_ENTRIES = len(_TURN.splitlines())
# One content block of an answer: the entry that is streamed most often.
_SINGLE = next(
    index for index, line in enumerate(_TURN.splitlines()) if '"type": "assistant"' in line
)
# A long session has the listing of all tools once, not in every turn.
_LIGHT_BYTES = 5_000


class EntrySource:
    """Batches in which every uuid and every response is new, the same ones for the same seed."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._turns = 0

    def batch(self, size: int) -> list[Entry]:
        """``size`` entries: one answer block, or as many turns as it takes, cut to size."""
        if size == 1:
            return [self._turn()[_SINGLE]]
        entries: list[Entry] = []
        while len(entries) < size:
            entries.extend(self._turn())
        return entries[:size]

    def light(self, size: int) -> list[Entry]:
        """Like :meth:`batch`, without the few entries beyond 5 KB that begin a session."""
        entries: list[Entry] = []
        while len(entries) < size:
            turn = self._turn()
            entries.extend(entry for entry in turn if len(json.dumps(entry)) < _LIGHT_BYTES)
        return entries[:size]

    def _turn(self) -> list[Entry]:
        fresh = {old: self._uuid() for old in _IDS}
        text = _UUID.sub(lambda found: fresh[found[0]], _TURN)
        self._turns += 1
        text = _RESPONSE.sub(lambda found: f"{found[0][:-8]}{self._turns:06}{found[0][-2:]}", text)
        return [json.loads(line) for line in text.splitlines()]

    def session(self, project_key: str = "-srv-app") -> SessionKey:
        """The key of a session that nothing is stored of."""
        return {"project_key": project_key, "session_id": self._uuid()}

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))
