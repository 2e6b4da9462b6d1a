"""A session in outline: its turns, compactions, branches and subagents, by position.

It is made of a few fields of each entry, one after the other, so that a session of any length can
be outlined in little room, and goes on with what is written later. A transcript of objects
(:mod:`.transcript`) knows more, and holds all entries for it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from itertools import pairwise
from typing import Any, cast

from ...models.counting.assistant_entry import counts_in
from ...models.views.messages import SYNTHETIC_MODEL
from ...models.views.moments import moment
from ...models.views.parsing import KNOWN_KINDS
from ...models.views.prompts import prompt_of
from .tokens import Tokens
from .workflows import is_journal, run_begun, run_of

_SHOWN_CHARACTERS = 240
_TALK = frozenset({"user", "assistant", "system", "attachment", "progress"})
_ABOUT = (KNOWN_KINDS - _TALK) | {"progress"}


@dataclass(slots=True)
class OutlinedTurn:
    """A prompt of a person and what followed it, until the next one."""

    number: int
    """From 1; 0 for what comes before the first prompt."""
    first: int
    last: int
    text: str = ""
    at: datetime | None = None
    ended_at: datetime | None = None
    calls: int = 0
    failures: int = 0
    taken: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """:data:`Counts` by model."""
    context: int = 0
    """Tokens that the last response was given."""
    parent: int | None = None
    """The place of the turn that it goes on from."""
    parent_seq: int = 0
    """The entry in it behind which it goes on."""


@dataclass(slots=True)
class OutlinedCompaction:
    """Where the conversation was summed up."""

    seq: int
    before: int | None
    after: int | None


@dataclass(slots=True)
class OutlinedSubagent:
    """A subagent's transcript."""

    subpath: str
    first: int
    last: int = 0
    entries: int = 0
    kind: str = ""
    task: str = ""
    model: str = ""
    call: str = ""
    """The id of the call that started it, as its own transcript says."""
    calls: int = 0
    failures: int = 0
    taken: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """As of a turn."""
    at: datetime | None = None
    ended_at: datetime | None = None


_Measured = OutlinedTurn | OutlinedSubagent


def used(measured: _Measured) -> dict[str, Tokens]:
    """What the models took in it."""
    return {model: Tokens.of(counts) for model, counts in measured.taken.items()}


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """A stretch of the main transcript that the conversation does not go on from."""

    first: int
    last: int
    until: int
    """The position from which on the conversation goes on elsewhere."""
    turns: int
    messages: int


@dataclass(slots=True)
class Outline:
    """All of it. Give it every entry in the order of its transcript."""

    until: int = 0
    """The last position that it knows."""
    turns: list[OutlinedTurn] = field(default_factory=list[OutlinedTurn])
    compactions: list[OutlinedCompaction] = field(default_factory=list[OutlinedCompaction])
    subagents: dict[str, OutlinedSubagent] = field(default_factory=dict[str, OutlinedSubagent])
    about: Counter[str] = field(default_factory=Counter[str])
    """How many entries there are of each kind that is about the session itself."""
    entries: int = 0
    first_failure: int | None = None
    _places: dict[int, int] = field(default_factory=dict[int, int])
    _messages: list[int] = field(default_factory=list[int])
    _responses: dict[tuple[str, str], list[int]] = field(
        default_factory=dict[tuple[str, str], list[int]]
    )
    _by_call: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    _told: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    _runs: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    _left: list[LeftBehind] | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in the :data:`OUTLINE_FIELDS` of one more entry."""
        self._left = None
        seq: int = row["seq"]
        subpath: str = row.get("subpath") or ""
        self.until = max(self.until, seq)
        self.entries += 1
        kind = row.get("type")
        if subpath:
            if not is_journal(subpath):
                self._add_to_subagent(row, seq, subpath)
            return
        # A kind that is not known is shown, for nobody knows what it says.
        if isinstance(kind, str) and kind in _ABOUT:
            self.about[kind] += 1
        if kind not in _TALK:
            if not self.turns:
                self.turns.append(OutlinedTurn(0, seq, seq))
            self.turns[-1].last = seq
            return
        is_aside = row.get("aside") is True
        prompt = None if is_aside or kind != "user" else _prompt_of(row)
        if prompt is not None:
            self._begin_turn(row, seq, prompt)
        elif not self.turns:
            self.turns.append(OutlinedTurn(0, seq, seq))
        turn = self.turns[-1]
        turn.last = seq
        if isinstance(uuid := row.get("uuid"), str) and not is_aside:
            self._places[_digest(uuid)] = seq
            if kind in ("user", "assistant") and row.get("meta") is not True:
                self._messages.append(seq)
        if row.get("subtype") == "compact_boundary":
            told = row.get("compacted")
            told = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
            self.compactions.append(
                OutlinedCompaction(seq, _count(told, "preTokens"), _count(told, "postTokens"))
            )
        self._measure(turn, row, seq, "")

    def caller_of(self, subpath: str) -> tuple[int, str] | None:
        """The position and transcript of the entry with the call that started a subagent."""
        agent = self.subagents.get(subpath)
        found = self._by_call.get(agent.call) if agent is not None and agent.call else None
        found = found or self._told.get(subpath.rpartition("/")[2].removeprefix("agent-"))
        found = found or self._runs.get(run_of(subpath) or "")
        return None if found is None or found[1] == subpath else found

    def starts(self) -> dict[tuple[int, str], list[str]]:
        """The subagents by position and transcript of the entry whose calls started them."""
        found: dict[tuple[int, str], list[str]] = {}
        for subpath in self.subagents:
            if (caller := self.caller_of(subpath)) is not None:
                found.setdefault(caller, []).append(subpath)
        return found

    def above(self, subpath: str) -> int | None:
        """The position in the main transcript of the call that all of it goes back to."""
        seen: set[str] = set()
        while subpath not in seen:
            seen.add(subpath)
            found = self.caller_of(subpath)
            if found is None:
                return None
            if not found[1]:
                return found[0]
            subpath = found[1]
        return None

    def turn_at(self, seq: int) -> OutlinedTurn | None:
        """The turn that a position of the main transcript is in."""
        place = self._turn_place(seq)
        return None if place is None else self.turns[place]

    def turn_numbered(self, number: int) -> OutlinedTurn | None:
        """A turn by its number."""
        place = number if self.turns and self.turns[0].number == 0 else number - 1
        return self.turns[place] if 0 <= place < len(self.turns) else None

    def left_behind(self) -> list[LeftBehind]:
        """What the conversation does not go on from, in order and without overlaps.

        It goes back from the last turn, from each to the one that it went on from.
        """
        left = self._left
        if left is None:
            # It may grow while another thread asks.
            left = self._left = self._found_left_behind() if self.turns else []
        return left

    def left_at(self, seq: int) -> LeftBehind | None:
        """What is left behind that a position of the main transcript is in."""
        left = self.left_behind()
        place = bisect_right(left, seq, key=lambda each: each.first) - 1
        return left[place] if place >= 0 and seq < left[place].until else None

    def _found_left_behind(self) -> list[LeftBehind]:
        kept: list[tuple[int, int]] = []
        turn, until = self.turns[-1], self.turns[-1].last
        kept.append((turn.first, until))
        while turn.parent is not None:
            until = turn.parent_seq
            turn = self.turns[turn.parent]
            kept.append((turn.first, until))
        # Before the first of them lies what it does not say how it hangs together with.
        kept.reverse()
        found: list[LeftBehind] = []
        for (_, end), (begin, _) in pairwise(kept):
            gap = self._messages_between(end, begin)
            if gap is not None:
                until = bisect_left(self.turns, begin, key=lambda turn: turn.first)
                turns = until - 1 - (self._turn_place(end) or 0)
                found.append(LeftBehind(gap[0], gap[1], begin, turns, gap[2]))
        return found

    def agents_of(self, turn: OutlinedTurn) -> Iterator[OutlinedSubagent]:
        """The subagents that were started in a turn, by its calls or by one another."""
        for subpath, agent in self.subagents.items():
            above = self.above(subpath)
            if above is not None and turn.first <= above <= turn.last:
                yield agent

    def _begin_turn(self, row: Mapping[str, Any], seq: int, prompt: str) -> None:
        parent_seq = self._places.get(_digest(row["parent"])) if _is_text(row, "parent") else None
        parent = None if parent_seq is None else self._turn_place(parent_seq)
        if parent is None and self.turns:
            # After a compaction, or where the entry before is lost.
            parent, parent_seq = len(self.turns) - 1, self.turns[-1].last
        numbered = self.turns[-1].number if self.turns else 0
        text = " ".join(prompt[: 4 * _SHOWN_CHARACTERS].split())[:_SHOWN_CHARACTERS]
        at = moment(row.get("at"))
        turn = OutlinedTurn(numbered + 1, seq, seq, text, at, at)
        turn.parent, turn.parent_seq = parent, parent_seq or 0
        self.turns.append(turn)

    def _add_to_subagent(self, row: Mapping[str, Any], seq: int, subpath: str) -> None:
        agent = self.subagents.get(subpath)
        if agent is None:
            agent = self.subagents[subpath] = OutlinedSubagent(subpath, seq)
        agent.last = seq
        if row.get("type") == "agent_metadata":
            for name in ("kind", "task", "call"):
                if _is_text(row, name):
                    setattr(agent, name, row[name][:_SHOWN_CHARACTERS])
            return
        agent.entries += 1
        if _is_text(row, "model") and row["model"] != SYNTHETIC_MODEL:
            agent.model = row["model"][:_SHOWN_CHARACTERS]
        agent.at = agent.at or moment(row.get("at"))
        self._measure(agent, row, seq, subpath)

    def _measure(self, measured: _Measured, row: Mapping[str, Any], seq: int, subpath: str) -> None:
        kind = row.get("type")
        if kind in ("user", "assistant"):
            measured.ended_at = moment(row.get("at")) or measured.ended_at
        if kind == "user":
            failures = sum(each is True for each in _many(row, "errors"))
            measured.failures += failures
            if failures and self.first_failure is None:
                self.first_failure = seq
            self._note_origins(row, seq, subpath)
        if kind != "assistant":
            return
        names = _many(row, "names")
        measured.calls += len(names)
        for call in _many(row, "calls"):
            if isinstance(call, str):
                self._by_call[call] = (seq, subpath)
        usage = row.get("usage")
        if not isinstance(usage, dict) or row.get("model") == SYNTHETIC_MODEL:
            return
        said = cast("dict[str, Any]", usage)
        may_be_made_up = "block" in row and "details" not in row
        counts = [*counts_in(said, row.get("stopped", ""), may_be_made_up)]
        # Each entry of a response says what all of it took.
        response = (subpath, str(row.get("response") or seq))
        known = self._responses.get(response)
        if known != counts:
            self._responses[response] = counts
            if len(self._responses) > _MANY_RESPONSES:
                del self._responses[next(iter(self._responses))]
            model = str(row.get("model"))[:_SHOWN_CHARACTERS]
            taken = measured.taken.setdefault(model, [0] * len(counts))
            for place, count in enumerate(counts):
                before = known[place] if known is not None else 0
                taken[place] += max(0, count - before)
                counts[place] = max(count, before)
        if isinstance(measured, OutlinedTurn):
            measured.context = counts[1] + counts[3] + counts[4]

    def _note_origins(self, row: Mapping[str, Any], seq: int, subpath: str) -> None:
        """Which subagents a result names; they are of the call that it answers."""
        calls = [each for each in _many(row, "results") if isinstance(each, str)]
        caller = next((self._by_call[each] for each in calls if each in self._by_call), None)
        if caller is None:
            return
        if _is_text(row, "agent"):
            self._told.setdefault(row["agent"], caller)
        run = run_begun({"runId": row.get("run"), "transcriptDir": row.get("folder")})
        if run is not None:
            self._runs.setdefault(run, caller)

    def _turn_place(self, seq: int) -> int | None:
        place = bisect_right(self.turns, seq, key=lambda turn: turn.first) - 1
        return place if place >= 0 else None

    def _messages_between(self, after: int, before: int) -> tuple[int, int, int] | None:
        """The first and last message between two positions, and how many; ``None`` for none."""
        start = bisect_right(self._messages, after)
        end = bisect_right(self._messages, before - 1)
        if start >= end:
            return None
        return self._messages[start], self._messages[end - 1], end - start


# Entries of one response stand close to one another.
_MANY_RESPONSES = 1_000


def _prompt_of(row: Mapping[str, Any]) -> str | None:
    if "said" not in row:
        return None
    return prompt_of(
        {
            "isMeta": row.get("meta"),
            "isCompactSummary": row.get("sums_up"),
            "isVisibleInTranscriptOnly": row.get("hidden"),
            "origin": row.get("origin"),
            "promptSource": row.get("source"),
            "message": {"content": row["said"]},
        }
    )


def _is_text(row: Mapping[str, Any], name: str) -> bool:
    return isinstance(row.get(name), str)


def _many(row: Mapping[str, Any], name: str) -> list[Any]:
    found = row.get(name)
    return cast("list[Any]", found) if isinstance(found, list) else []


def _count(told: Mapping[str, Any], name: str) -> int | None:
    found = told.get(name)
    return found if type(found) is int else None


def _digest(uuid: str) -> int:
    data = uuid.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
