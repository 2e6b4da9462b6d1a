"""What a session did, counted as its entries are appended.

:class:`Tally` is a fold: entries are added one by one in the order of ``seq``, and whoever adds
all of them again gets the same. It looks at entries as the agent wrote them and refuses none;
what does not fit counts as nothing. What it remembers between two entries is bounded.

Each of its parts counts one thing, and says what of it is stored: tokens and cost by day and model,
the agent's accounts of cost, calls of tools, and the texts that tell what the session is about.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from typing import Any, cast

from bson.int64 import Int64

from ..views.moments import day_of
from ..views.prompts import blocks_of, prompt_of
from .assistant_entry import StoredEntry, call_id_of, calls_in, is_call, is_copied, written_in
from .cost_accounts import Account, CostAccounts, ForkPoint, fork_point_of, session_forked_from
from .marks import Mark, Wanted
from .one_response import CountedCall, Written, chain_of, failure_of
from .responses import Responses, StoredPart
from .session_texts import TEXT_RECORDS, SessionTexts
from .span import Span
from .tool_tally import ToolTally
from .usage_tally import UsageTally

MAX_TOTALS_BYTES = 256 * 1024
"""What totals take in a summary at most, whatever the entries are: the limits of the parts."""

UNDER_WAY = frozenset({"is_exact", "under_way", "open_calls"})
"""The parts of what is in flight that only spare looking it up."""

_COST_STATE = "cost-state"
_RECORDS = frozenset({*TEXT_RECORDS, _COST_STATE})


class Tally:
    """The totals of a session while they are counted; :meth:`document` is how they are stored.

    Args:
        is_complete: keep all responses and calls, to count a session from its start. Else it keeps
            what is under way, takes the rest for new, and says with :attr:`is_unsure` and
            :attr:`wanted` what has to be looked up.
    """

    __slots__ = (
        "_accounts",
        "_instants",
        "_is_complete",
        "_responses",
        "_span",
        "_texts",
        "_tools",
        "_usage",
        "copied_until",
        "entries",
        "forked_from",
        "is_exact",
        "turns",
    )

    def __init__(self, *, is_complete: bool = False) -> None:
        self._is_complete = is_complete
        self.is_exact = True
        """Whether all stored entries of the session carry their marks."""
        self.copied_until = 0
        """Up to which position the main transcript was copied from another session."""
        self.entries = 0
        self.turns = 0
        self.forked_from: str | None = None
        # Those that are under way, for each comes as several entries.
        self._responses = Responses(is_complete=is_complete)
        self._instants: dict[bytes, set[bytes]] = {}
        self._span = Span()
        self._usage = UsageTally()
        self._accounts = CostAccounts(self._usage)
        self._tools = ToolTally(is_complete=is_complete)
        self._texts = SessionTexts()

    @property
    def texts(self) -> dict[str, str | None]:
        """The values of the fields that :data:`TEXTS` names."""
        return self._texts.values

    @property
    def fork_point(self) -> ForkPoint | None:
        """Where the session was forked from another one, if it was."""
        return self._accounts.fork_point

    @property
    def size(self) -> int:
        """About how much memory it takes, in bytes."""
        parts = (self._usage, self._tools, self._responses, self._accounts, self._texts.summaries)
        return 200 * sum(map(len, parts))

    @property
    def wanted(self) -> Wanted:
        """What would be looked up of what was counted since it was settled."""
        return Wanted(self._instants, self._tools.failures, self._tools.missing)

    @property
    def is_unsure(self) -> bool:
        """Whether what was counted must be looked up before it is right."""
        return bool(self._tools.missing or self._responses.asked)

    def add(
        self, entries: Sequence[Mapping[str, Any]], subpath: str, first_seq: int, copied: int = 0
    ) -> dict[int, Mark]:
        """Count more entries of one transcript, and return what those at some positions carry.

        So many entries as ``copied`` says are the history of another session, which goes on from
        the start of the main transcript.
        """
        if copied and not subpath and (not self.entries or self.copied_until == first_seq - 1):
            self.copied_until = first_seq - 1 + copied
        self.entries += len(entries)
        span, texts, summaries = self._span, self._texts, self._texts.summaries
        summaries.begin()
        is_main = not subpath
        marks: dict[int, Mark] = {}
        times: list[str] = []
        for seq, entry in enumerate(entries, first_seq):
            kind = entry.get("type")
            written_at = entry.get("timestamp")
            if isinstance(written_at, str):
                times.append(written_at)
            if kind == "assistant":
                mark = self._add_response(entry, subpath, seq)
                if mark is not None:
                    marks[seq] = mark
            elif kind == "user":
                failures = self._tools.add_results(entry, subpath)
                if failures is None:
                    self._add_prompt(entry, subpath)
                elif failures:
                    marks[seq] = Mark(tuple(failures), None)
            elif is_main and isinstance(kind, str) and kind in _RECORDS:
                # An account of cost has no time of its own.
                span.add(times)
                times = []
                if kind == _COST_STATE:
                    self._accounts.add(entry, day_of(span.last_at))
                else:
                    texts.add_record(entry)
                continue
            if is_main and summaries.waiting:
                summaries.meet(entry.get("uuid"))
            if is_main and (
                entry.get("gitBranch") != texts.branch or texts.cwd is None or "forkedFrom" in entry
            ):
                self._add_place(entry)
        summaries.end(entries)
        texts.title_by_summary()
        if times:
            span.add(times)
        return marks

    def _add_response(self, entry: Mapping[str, Any], subpath: str, seq: int) -> Mark | None:
        message = entry.get("message")
        if not isinstance(message, dict):
            return None
        message = cast("dict[str, Any]", message)
        blocks = blocks_of(message.get("content"))
        calls = [block for block in blocks if is_call(block)]
        if self.is_copy(entry, subpath, seq):
            for block in calls:
                self._tools.pass_over(block, subpath)
            if not subpath:
                self._add_fork_point(entry)
            return None
        mark: Mark | None = None
        written = written_in(entry, subpath, message)
        if written.counts[0] or calls:
            placed = self._responses.place(written, seq)
            if not self._is_complete and written.identity is not None:
                self._want(written.identity, written.instant)
            now = placed.response.taken
            if not placed.before:
                self._usage.add(now, 1)
            elif placed.before != (now,):
                for taken in placed.before:
                    self._usage.add(taken, -1)
                self._usage.add(now, 1)
            if placed.absorbed is not None:
                self._tools.merge(placed.response, placed.absorbed)
            for block in calls:
                self._tools.add(block, placed, written, subpath, seq)
            if placed.digest:
                mark = Mark((placed.digest,), None if placed.first == seq else placed.first)
        failures: list[bytes] = []
        for block in blocks:
            if "tool_use_id" in block and not is_call(block):
                self._tools.add_result(block, subpath, failures)
        if not failures:
            return mark
        return Mark((*(mark.counted if mark else ()), *failures), mark.response if mark else None)

    def _want(self, identity: bytes, instant: bytes) -> None:
        instants = self._instants.get(identity)
        if instants is None:
            self._instants[identity] = {instant}
        else:
            instants.add(instant)

    def _add_fork_point(self, entry: Mapping[str, Any]) -> None:
        point = fork_point_of(entry)
        if point is not None:
            self._accounts.fork_point = point
            self.forked_from = point.session_id

    def _add_prompt(self, entry: Mapping[str, Any], subpath: str) -> None:
        text = prompt_of(entry)
        if text is None:
            return
        self._responses.prompted(chain_of(subpath, entry))
        if subpath or entry.get("isSidechain") is True:
            return
        self.turns += 1
        self._texts.add_prompt(text)

    def _add_place(self, entry: Mapping[str, Any]) -> None:
        # Older agents wrote what their subagents did into the main transcript.
        if entry.get("isSidechain") is True:
            return
        if self.forked_from is None:
            self.forked_from = session_forked_from(entry.get("forkedFrom"))
        self._texts.add_place(entry)

    @property
    def leaves_asked(self) -> list[str]:
        """The uuids that summaries just added name, and that may be stored already.

        Whichever are, in the main transcript and before what was added, :meth:`settle_leaves`
        must be told.
        """
        return self._texts.summaries.asked

    def settle_leaves(self, stored: Container[str]) -> None:
        """Take those for the session's own whose leaf is stored."""
        self._texts.settle_leaves(stored)

    @property
    def accounts_asked(self) -> list[float]:
        """The starts of accounts just added that are older than the fork that this session is.

        What each had come to by then, :meth:`settle_accounts` must be told.
        """
        return self._accounts.asked

    def settle_accounts(self, found: Mapping[float, Account | None]) -> None:
        """Take what accounts had come to when the session was forked for the other session's."""
        self._accounts.settle(found)

    def settle(self) -> None:
        """Keep only what is under way, once it is written down what was counted."""
        self._responses.settle()
        self._instants = {}
        self._tools.settle()

    def resumed(self) -> Tally:
        """The same, to count on with, which keeps only what is under way."""
        return Tally.of(self.document(0), self.texts)

    def document(self, next_seq: int) -> dict[str, Any]:
        """The form in which a summary keeps it: :class:`SessionTotals`, and what is in flight."""
        document: dict[str, Any] = {
            "next_seq": Int64(next_seq),
            "entries": self.entries,
            "turns": self.turns,
            "usage": self._usage.rows(self._accounts.logged_apart()),
            "tools": self._tools.rows(),
        }
        if self.copied_until:
            document["copied_until"] = Int64(self.copied_until)
        values = {
            "cost_usd": self._accounts.cost_usd,
            "forked_from": self.forked_from,
            "carried_usd": self._accounts.carried_usd,
            "first_at": self._span.first_at,
            "last_at": self._span.last_at,
        }
        for name, value in values.items():
            if value is not None:
                document[name] = value
        if self._accounts.has_source_cost:
            document["has_source_cost"] = True
        in_flight = self._in_flight()
        if in_flight:
            document["in_flight"] = in_flight
        return document

    def _in_flight(self) -> dict[str, Any]:
        in_flight: dict[str, Any] = {}
        if self.is_exact:
            in_flight["is_exact"] = True
        under_way = self._responses.document()
        if under_way:
            in_flight["under_way"] = under_way
        open_calls = self._tools.open_calls()
        if open_calls is not None:
            in_flight["open_calls"] = open_calls
        in_flight |= self._accounts.document()
        if self._texts.summaries:
            in_flight["summaries"] = list(map(list, self._texts.summaries.pending))
        if self._usage.logged:
            in_flight["logged"] = self._usage.logged_rows()
        return in_flight | self._texts.titles_document()

    @classmethod
    def of(cls, document: Mapping[str, Any], texts: Mapping[str, Any]) -> Tally:
        """The tally that :meth:`document` and :attr:`texts` were made from."""
        tally = cls()
        in_flight = document.get("in_flight", {})
        tally.is_exact = "is_exact" in in_flight
        tally.copied_until = document.get("copied_until", 0)
        tally.entries = document["entries"]
        tally.turns = document["turns"]
        tally._span = Span(document.get("first_at"), document.get("last_at"))
        tally.forked_from = document.get("forked_from")
        tally._usage = UsageTally.of(document["usage"], in_flight.get("logged", ()))
        tally._accounts = CostAccounts.of(in_flight, tally._usage)
        tally._responses = Responses.of(in_flight.get("under_way", ()))
        tally._tools = ToolTally.of(document["tools"], in_flight.get("open_calls", ()))
        tally._tools.join(tally._responses.all())
        tally._texts = SessionTexts.of(texts, in_flight)
        return tally

    def restore(self, stored: Sequence[StoredEntry], failures: Collection[bytes]) -> None:
        """Learn all there is of some responses, in place of what was known of them in part.

        Args:
            stored: all entries of some identities that carry marks, in the order of positions.
            failures: the digests of failed calls that stored entries carry, of those that
                :func:`failures_of` gives for ``stored``, and of those that are wanted.
        """
        found: dict[bytes, list[tuple[StoredEntry, Written]]] = {}
        for each in stored:
            written = written_in(each.entry, each.subpath)
            if written.identity is not None:
                found.setdefault(written.identity, []).append((each, written))
        self._responses.forget(found)
        for parts in found.values():
            restored = [
                StoredPart(w, e.seq if e.response is None else e.response, e.has_prompt_since)
                for e, w in parts
            ]
            responses = self._responses.restore(restored)
            for response, (each, written) in zip(responses, parts, strict=True):
                for block in calls_in(each.entry):
                    call_id = call_id_of(block)
                    if call_id is not None and call_id not in response.calls:
                        failure = failure_of(written.instant, call_id)
                        response.calls[call_id] = self._tools.call_of(
                            block, failure, has_failed=failure in failures
                        )
            self._tools.join(responses)
        self._tools.restore_failures(failures)

    def restore_call(self, subpath: str, call: str, found: StoredEntry | None) -> None:
        """Learn that an entry, whose response is restored, makes a call that was asked for."""
        known: CountedCall | None = None
        if found is not None and not self.is_copy(found.entry, found.subpath, found.seq):
            written = written_in(found.entry, found.subpath)
            response = self._responses.of_instant(written)
            if response is not None:
                known = response.calls.get(call)
            else:
                for block in calls_in(found.entry):
                    if call_id_of(block) == call:
                        failure = failure_of(found.seq.to_bytes(8, "big"), call)
                        known = self._tools.call_of(block, failure)
        self._tools.restore((subpath, call), known)

    def is_copy(self, entry: Mapping[str, Any], subpath: str, seq: int) -> bool:
        """Whether the response of an entry at a position is another session's."""
        return (seq <= self.copied_until and not subpath) or is_copied(entry)
