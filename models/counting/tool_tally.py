"""Calls of tools and their failures, while they are counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from ..views.prompts import blocks_of
from .assistant_entry import call_id_of, tool_name_of
from .bounded import OTHER, bounded_name, bytes_of
from .one_response import CountedCall, Response, Written, failure_of
from .responses import Placed

_MAX_TOOLS_BYTES = 32 * 1024
# Of a row in BSON, without the name.
_TOOL_BYTES = 55
_MAX_CALLS = 64
_MAX_CALLS_BYTES = 12 * 1024
_CALL_BYTES = 70
# However long their names are.
_CALLS_THAT_FIT = 8

CallKey = tuple[str, str]
"""The subpath, and the id of a call."""

# What comes back to a call that was not counted is none of its failures.
_UNCOUNTED = CountedCall("", b"", has_failed=True)


class ToolTally:
    """Calls and failures by tool, and the calls that may yet fail.

    Args:
        is_complete: remember all calls. Else only the latest ones, and :attr:`missing` says which
            others a failure came back to.
    """

    __slots__ = ("_answered", "_calls", "_is_complete", "_tools", "failures", "missing")

    def __init__(self, *, is_complete: bool) -> None:
        self._is_complete = is_complete
        self._tools: dict[str, tuple[int, int]] = {}
        self._calls: OrderedDict[CallKey, CountedCall] = OrderedDict()
        # Those of them that have a result.
        self._answered: set[CallKey] = set()
        self.failures: set[bytes] = set()
        """The digests of the failures that were counted since it was settled."""
        self.missing: set[CallKey] = set()
        """Failed calls that are not known."""

    def __len__(self) -> int:
        return len(self._tools) + len(self._calls)

    def add(
        self, block: Mapping[str, Any], placed: Placed, written: Written, subpath: str, seq: int
    ) -> None:
        """Count the call of a block, unless it was there before."""
        call_id = call_id_of(block)
        known = None if call_id is None else placed.response.calls.get(call_id)
        if known is None and not (call_id is None and placed.is_copy):
            name = self._tool(tool_name_of(block))
            self._count(name, 1, 0)
            if call_id is not None:
                failure = failure_of(written.instant or seq.to_bytes(8, "big"), call_id)
                known = placed.response.calls[call_id] = CountedCall(name, failure)
        if call_id is not None and known is not None:
            self._open(subpath, call_id, known)

    def pass_over(self, block: Mapping[str, Any], subpath: str) -> None:
        """Count nothing of the call of a block, nor of what comes back to it."""
        call_id = call_id_of(block)
        if call_id is not None:
            self._open(subpath, call_id, _UNCOUNTED)

    def _open(self, subpath: str, call_id: str, call: CountedCall) -> None:
        self._calls[subpath, call_id] = call
        self._calls.move_to_end((subpath, call_id))
        if not self._is_complete and len(self._calls) > _MAX_CALLS:
            self._calls.popitem(last=False)

    def merge(self, kept: Response, absorbed: Response) -> None:
        """Take the calls of two responses for those of one."""
        for call_id, call in absorbed.calls.items():
            same = kept.calls.setdefault(call_id, call)
            if same is not call:
                is_double = same.has_failed and call.has_failed
                same.has_failed = same.has_failed or call.has_failed
                self._count(call.name, -1, -1 if is_double else 0)
                for key, each in self._calls.items():
                    if each is call:
                        self._calls[key] = same

    def add_results(self, entry: Mapping[str, Any], subpath: str) -> list[bytes] | None:
        """Count what failed by the results in an entry; ``None`` where it has no results."""
        failures: list[bytes] | None = None
        message = entry.get("message")
        if isinstance(message, dict):
            for block in blocks_of(cast("dict[str, Any]", message).get("content")):
                if block.get("type") == "tool_result":
                    if failures is None:
                        failures = []
                    if "forkedFrom" not in entry:
                        self.add_result(block, subpath, failures)
        return failures

    def add_result(self, block: Mapping[str, Any], subpath: str, failures: list[bytes]) -> None:
        """Count a result if it says that a call has failed, and add its digest to ``failures``."""
        call_id = block.get("tool_use_id")
        if not isinstance(call_id, str):
            return
        key = (subpath, bounded_name(call_id))
        call = self._calls.get(key)
        if call is not None and not self._is_complete:
            self._answered.add(key)
        if block.get("is_error") is not True:
            return
        if call is None:
            if not self._is_complete:
                self.missing.add(key)
        elif not call.has_failed:
            call.has_failed = True
            self._count(call.name, 0, 1)
            self.failures.add(call.failure)
            failures.append(call.failure)

    def call_of(
        self, block: Mapping[str, Any], failure: bytes, *, has_failed: bool = False
    ) -> CountedCall:
        """The call of a block that was counted before."""
        return CountedCall(self._tool(tool_name_of(block)), failure, has_failed)

    def restore(self, key: CallKey, call: CountedCall | None) -> None:
        """Learn which call it is that was missing, ``None`` for none that was counted."""
        self._calls[key] = call or _UNCOUNTED

    def restore_failures(self, failures: Collection[bytes]) -> None:
        """Learn which of the calls have failed, by their digests."""
        for call in self._calls.values():
            call.has_failed = call.has_failed or call.failure in failures

    def join(self, responses: Sequence[Response]) -> None:
        """Let open calls be those of the responses that are known."""
        if self._calls:
            known = {c.failure: c for response in responses for c in response.calls.values()}
            for key, call in self._calls.items():
                self._calls[key] = known.get(call.failure, call)

    def settle(self) -> None:
        """Forget what is answered, and begin anew with what would be looked up."""
        self.failures = set()
        self.missing = set()
        for key in self._answered:
            self._calls.pop(key, None)
        self._answered.clear()

    def _tool(self, name: str) -> str:
        if name in self._tools:
            return name
        size = sum(_TOOL_BYTES + bytes_of(known) for known in (*self._tools, name))
        return OTHER if size > _MAX_TOOLS_BYTES else name

    def _count(self, name: str, calls: int, errors: int) -> None:
        known = self._tools.get(name, (0, 0))
        self._tools[name] = (known[0] + calls, known[1] + errors)

    def rows(self) -> list[dict[str, Any]]:
        """The form in which totals keep it."""
        return [
            {"name": name, "calls": calls, "errors": errors}
            for name, (calls, errors) in self._tools.items()
        ]

    def open_calls(self) -> list[list[Any]] | None:
        """The latest calls without a result, in order, as far as there is room.

        ``None`` where no call may yet fail, or all are remembered.
        """
        if not self._calls or self._is_complete:
            return None
        waiting = [each for each in self._calls.items() if each[0] not in self._answered]
        if len(waiting) > _CALLS_THAT_FIT:
            room = _MAX_CALLS_BYTES
            for index, ((subpath, call), known) in enumerate(reversed(waiting)):
                room -= _CALL_BYTES + bytes_of(subpath + call + known.name)
                if room < 0:
                    waiting = waiting[-index:]
                    break
        return [
            [subpath, call, known.name, known.failure, known.has_failed]
            for (subpath, call), known in waiting
        ]

    @classmethod
    def of(
        cls, rows: Iterable[Mapping[str, Any]], open_calls: Iterable[Sequence[Any]]
    ) -> ToolTally:
        """The tally that :meth:`rows` and :meth:`open_calls` were made from."""
        tools = cls(is_complete=False)
        tools._tools = {row["name"]: (row["calls"], row["errors"]) for row in rows}
        for subpath, call, *known in open_calls:
            tools._calls[subpath, call] = CountedCall(*known)
        return tools
