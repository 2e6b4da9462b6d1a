"""Calls of a stretch of a transcript, each with its answer where that was read as well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from ...models.views.base import EntryView
from ...models.views.blocks import DocumentBlock, ImageBlock, ToolResultBlock
from ...models.views.messages import AssistantEntry, UserEntry
from ..reading.glimpses import Glimpse
from ..transcripts.tool_calls import CallBlock, ResultBlock
from .call_pieces import AnsweredCall, result_pictures

Seen = tuple[Glimpse, EntryView]


class JoinedAnswers:
    """Which answer is to which call.

    Args:
        before: entries before the stretch, in which calls may stand that it answers.
        shown: the stretch.
        behind: entries behind it, which may answer its calls.
        goes_on: whether a call without an answer may still have one, which is when the session
            is at work and nothing comes behind.
        now: the time, for how long such a call has been running.
    """

    def __init__(
        self,
        before: Iterable[Seen],
        shown: Iterable[Seen],
        behind: Iterable[Seen],
        *,
        goes_on: bool = False,
        now: datetime | None = None,
    ) -> None:
        self._calls: dict[int, AnsweredCall] = {}
        self._by_seq: dict[int, list[AnsweredCall]] = {}
        self._open: dict[str, list[int]] = {}
        self._answered_by: dict[int, int] = {}
        self._shown: set[int] = set()
        self._lists: list[int] = []
        self._last_lists: set[int] = set()
        for seen in before:
            self._add(*seen)
        stretch = list(shown)
        for seen in stretch:
            self._shown.add(seen[0].seq)
            self._add(*seen)
        self._end_turn()
        for seen in behind:
            self._add_answers(*seen)
        if goes_on:
            for place, call in self._calls.items():
                if call.result is None:
                    begun = call.entry.timestamp
                    waited = (now - begun).total_seconds() if now and begun else None
                    self._calls[place] = replace(call, goes_on=True, waits_seconds=waited)

    def call(self, seq: int, block: CallBlock) -> AnsweredCall | None:
        """A call of an entry, with its answer."""
        return self._calls.get(id(block))

    def calls(self) -> list[AnsweredCall]:
        """All calls of the stretch, in their order."""
        return [call for call in self._calls.values() if call.seq in self._shown]

    def call_answered_by(self, seq: int, block: ResultBlock) -> int | None:
        """The position of the call that a result is the answer to."""
        return self._answered_by.get(id(block))

    def is_shown(self, seq: int) -> bool:
        """Whether a position is in the stretch."""
        return seq in self._shown

    def is_last_list(self, seq: int) -> bool:
        """Whether an entry has the last to-do list of its turn."""
        return seq in self._last_lists

    def _add(self, glimpse: Glimpse, view: EntryView) -> None:
        self._add_calls(glimpse, view)
        self._add_answers(glimpse, view)

    def _add_calls(self, glimpse: Glimpse, view: EntryView) -> None:
        if isinstance(view, UserEntry) and view.is_prompt:
            self._end_turn()
        if not isinstance(view, AssistantEntry):
            return
        for part, block in enumerate(view.blocks):
            if isinstance(block, CallBlock):
                call = AnsweredCall(glimpse.seq, part, block, view, glimpse.is_whole)
                self._calls[id(block)] = call
                if block.id is not None:
                    self._open.setdefault(block.id, []).append(id(block))
                if block.name == "TodoWrite":
                    self._lists.append(glimpse.seq)

    def _add_answers(self, glimpse: Glimpse, view: EntryView) -> None:
        if not isinstance(view, UserEntry | AssistantEntry):
            return
        pictures = 0
        for block in view.blocks:
            if isinstance(block, ImageBlock | DocumentBlock):
                pictures += 1
            if not isinstance(block, ResultBlock):
                continue
            waiting = self._open.get(block.tool_use_id or "")
            if waiting:
                place = waiting.pop(0)
                call = self._calls[place]
                self._answered_by[id(block)] = call.seq
                self._calls[place] = replace(
                    call,
                    result=block,
                    result_entry=view,
                    result_seq=glimpse.seq,
                    result_is_whole=glimpse.is_whole,
                    result_size=glimpse.size,
                    pictures_before=pictures,
                )
            if isinstance(block, ToolResultBlock):
                pictures += sum(1 for _ in result_pictures(block))

    def _end_turn(self) -> None:
        if self._lists:
            self._last_lists.add(self._lists[-1])
            self._lists.clear()
