"""What a session did, counted as its entries are appended.

:class:`Tally` is a fold: entries are added one by one in the order of ``seq``, and whoever adds
all of them again gets the same. It looks at entries as the agent wrote them and refuses none;
what does not fit counts as nothing. What it remembers between two entries is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, cast

from bson.int64 import Int64

from .messages import SYNTHETIC_MODEL
from .moments import moment
from .one_response import (
    NOTHING,
    Call,
    Counts,
    Response,
    Taken,
    Written,
    chain_of,
    failure_of,
    written_by,
)
from .own_summaries import OwnSummaries
from .prompts import blocks_of, is_housekeeping, prompt_of
from .responses import Placed, Responses, Stored, bytes_of
from .totals import TEXTS

MAX_TEXT = 200
"""Longest title, prompt, branch, directory or tag on a summary, in characters."""

MAX_TOTALS_BYTES = 256 * 1024
"""What totals take in a summary at most, whatever the entries are: the limits below together."""

_MAX_NAME = 128
"""Bytes of UTF-8."""
_MAX_ROWS_BYTES = 64 * 1024
_MAX_TOOLS_BYTES = 32 * 1024
# Of a row in BSON, without the name; that of usage with a share of its logged cost.
_ROW_BYTES = 190
_TOOL_BYTES = 55
_OTHER = "(other)"
"""Stands for the models and tools beyond those limits."""
_MAX_CALLS = 64
_MAX_CALLS_BYTES = 12 * 1024
_CALL_BYTES = 70
# However long their names are.
_CALLS_THAT_FIT = 8
_MAX_ACCOUNTS = 16
_MAX_MODELS_PER_ACCOUNT = 32
_MAX_MODELS_OF_ACCOUNTS = 128
# A fork has one, unless others write accounts of cost.
_MAX_CARRIED = 2
# Sums of what lies below stay in what BSON holds.
_MAX_COUNT = 2**36
_MAX_NUMBER = 1e15

_USUAL_LENGTH = len("2026-11-25T09:30:00.123Z")

_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_TITLES = {"custom-title": "customTitle", "ai-title": "aiTitle"}
_BY_RANK = (*_TITLES, "summary")


UNDER_WAY = frozenset({"is_exact", "under_way", "open_calls"})
"""The parts of what is in flight that only spare looking it up."""


class Mark(NamedTuple):
    """What a stored entry carries besides, so that its copies are told from new ones."""

    counted: tuple[bytes, ...]
    """Digests of what was counted with it, each of which only one entry of a session has."""
    response: int | None
    """The position of the entry that began its response, ``None`` if that is itself."""


class Wanted(NamedTuple):
    """What must be looked up where it turns out that not all that was counted is new."""

    instants: dict[bytes, set[bytes]]
    """The entries of responses that were counted, by the identity of each."""
    failures: set[bytes]
    """The digests of the failures that were counted."""
    calls: set[tuple[str, str]]
    """Failed calls that are not known, by subpath and id."""


class Account(NamedTuple):
    """A state of an agent's account of cost, in US dollars."""

    total: float
    by_model: dict[str, float]


class ForkPoint(NamedTuple):
    """Where a session was forked from another one, as far as a response was copied."""

    session_id: str
    """Of the other session."""
    uuid: str
    """Of the last entry of a response that was copied, as it is there."""
    at: float
    """When that was written, epoch milliseconds."""


class StoredEntry(NamedTuple):
    """An entry of a response that is stored."""

    subpath: str
    seq: int
    response: int | None
    """As in its :class:`Mark`."""
    entry: Mapping[str, Any]
    has_prompt_since: bool
    """Whether a person's prompt has come in its chain behind it."""


_CallKey = tuple[str, str]
"""The subpath, and the id of a call."""

# What comes back to a call that was not counted is none of its failures.
_UNCOUNTED = Call("", b"", has_failed=True)


class Tally:
    """The totals of a session while they are counted; :meth:`document` is how they are stored.

    Args:
        is_complete: keep all responses and calls, to count a session from its start. Else it keeps
            what is under way, takes the rest for new, and says with :attr:`is_unsure` and
            :attr:`wanted` what has to be looked up.
    """

    __slots__ = (
        "_asked",
        "accounts",
        "answered",
        "branch",
        "calls",
        "carried",
        "copied_until",
        "costs",
        "cwd",
        "entries",
        "first_at",
        "first_prompt",
        "fork_point",
        "forked_from",
        "is_complete",
        "is_exact",
        "last_at",
        "logged",
        "responses",
        "settled_usd",
        "summaries",
        "tag",
        "titles",
        "tools",
        "turns",
        "usage",
        "wanted",
    )

    def __init__(self, *, is_complete: bool = False) -> None:
        self.is_complete = is_complete
        self.is_exact = True
        """Whether all stored entries of the session carry their marks."""
        self.copied_until = 0
        """Up to which position the main transcript was copied from another session."""
        self.entries = 0
        self.turns = 0
        self.usage: dict[tuple[str, str], Counts] = {}
        self.costs: dict[tuple[str, str], float] = {}
        self.tools: dict[str, tuple[int, int]] = {}
        self.first_at: datetime | None = None
        self.last_at: datetime | None = None
        self.titles: dict[str, str] = {}
        self.first_prompt: str | None = None
        self.forked_from: str | None = None
        self.branch: str | None = None
        self.cwd: str | None = None
        self.tag: str | None = None
        self.responses = Responses(is_complete=is_complete)
        """The responses that are under way, for each comes as several entries."""
        self.calls: OrderedDict[_CallKey, Call] = OrderedDict()
        """Calls that may yet fail."""
        self.answered: set[_CallKey] = set()
        """Those of them that have a result."""
        self.wanted = Wanted({}, set(), set())
        """What would be looked up of what was counted since it was settled."""
        self.accounts: dict[float | None, tuple[float, dict[str, float]]] = {}
        """The agent's accounts of cost by their start: in all, and by model."""
        self.logged: dict[tuple[str, str], float] = {}
        """The costs that entries of old agents say, see :attr:`Response.cost`."""
        self.settled_usd: float | None = None
        """The cost on accounts too old to be remembered one by one."""
        self.fork_point: ForkPoint | None = None
        self.carried: dict[float, Account | None] = {}
        """What accounts, by their start, had come to when the session was forked, if that can be
        told: an agent that forks goes on with the account of the session that it forks."""
        self._asked: dict[float, str] = {}
        self.summaries = OwnSummaries()
        """Which of older agents' summaries titles the session."""

    @property
    def title(self) -> str | None:
        """The title that a person gave, or else the model; older agents gave a summary."""
        return next((self.titles[kind] for kind in _BY_RANK if self.titles.get(kind)), None)

    @property
    def cost_usd(self) -> float | None:
        """US dollars by the agent's own account, ``None`` without one."""
        logged = self._logged_apart() if self.logged else {}
        if not self.accounts and self.settled_usd is None and not logged:
            return None
        accounts = sum((total for total, _ in self.accounts.values()), self.settled_usd or 0.0)
        return accounts - (self.carried_usd or 0.0) + sum(logged.values())

    @property
    def carried_usd(self) -> float | None:
        """What of the accounts was spent before the session was forked, ``None`` if nothing."""
        known = [account.total for account in self.carried.values() if account is not None]
        return sum(known) if known else None

    @property
    def has_source_cost(self) -> bool:
        """Whether the cost has what was spent before the fork, for it could not be told."""
        return None in self.carried.values()

    def _logged_apart(self) -> dict[tuple[str, str], float]:
        if self.settled_usd is not None:
            return {}
        return costs_apart(self.logged, self.accounts)

    @property
    def texts(self) -> dict[str, str | None]:
        """The values of the fields that :data:`TEXTS` names."""
        return {name: getattr(self, name) for name in TEXTS}

    @property
    def size(self) -> int:
        """About how much memory it takes, in bytes."""
        parts = (
            self.usage,
            self.costs,
            self.tools,
            self.responses,
            self.calls,
            self.accounts,
            self.logged,
        )
        return 200 * (sum(map(len, parts)) + len(self.summaries))

    @property
    def is_unsure(self) -> bool:
        """Whether what was counted must be looked up before it is right."""
        return bool(self.wanted.calls or self.responses.asked)

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
        self.summaries.begin()
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
                failures = self._add_results(entry, subpath)
                if failures is None:
                    self._add_prompt(entry, subpath)
                elif failures:
                    marks[seq] = Mark(tuple(failures), None)
            elif is_main and isinstance(kind, str) and kind in _RECORDS:
                # An account of cost has no time of its own.
                self._add_times(times)
                times = []
                _RECORDS[kind](self, entry)
                continue
            if is_main and self.summaries.waiting:
                self.summaries.meet(entry.get("uuid"))
            if is_main and (
                entry.get("gitBranch") != self.branch or self.cwd is None or "forkedFrom" in entry
            ):
                self._add_place(entry)
        self.summaries.end(entries)
        self._title_by_summary()
        if times:
            self._add_times(times)
        return marks

    def _add_place(self, entry: Mapping[str, Any]) -> None:
        # Older agents wrote what their subagents did into the main transcript.
        if entry.get("isSidechain") is True:
            return
        if self.forked_from is None:
            self.forked_from = _session_of(entry.get("forkedFrom"))
        branch = entry.get("gitBranch")
        if branch != self.branch and isinstance(branch, str) and branch:
            self.branch = _text(branch)
        if self.cwd is None:
            cwd = entry.get("cwd")
            if isinstance(cwd, str) and cwd:
                self.cwd = _text(cwd)

    @property
    def leaves_asked(self) -> list[str]:
        """The uuids that summaries just added name, and that may be stored already.

        Whichever are, in the main transcript and before what was added, :meth:`settle_leaves`
        must be told.
        """
        return self.summaries.asked

    def settle_leaves(self, stored: Container[str]) -> None:
        """Take those for the session's own whose leaf is stored."""
        self.summaries.settle(stored)
        self._title_by_summary()

    @property
    def accounts_asked(self) -> list[float]:
        """The starts of accounts just added that are older than the fork that this session is.

        What each had come to by then, :meth:`settle_accounts` must be told.
        """
        return list(self._asked)

    def settle_accounts(self, found: Mapping[float, Account | None]) -> None:
        """Take what accounts had come to when the session was forked for the other session's."""
        for start, day in self._asked.items():
            account = found.get(start)
            # It never goes down, so that is another one.
            if account is not None and account.total > self.accounts.get(start, (0.0, {}))[0]:
                account = None
            self.carried[start] = account
            for model, cost in account.by_model.items() if account else ():
                at = self._row(day, model)
                self.usage.setdefault(at, NOTHING)
                self.costs[at] = self.costs.get(at, 0.0) - cost
        self._asked = {}

    def resumed(self) -> Tally:
        """The same, to count on with, which keeps only what is under way."""
        return Tally.of(self.document(0), self.texts)

    def settle(self) -> None:
        """Keep only what is under way, once it is written down what was counted."""
        self.responses.settle()
        self.wanted = Wanted({}, set(), set())
        for key in self.answered:
            self.calls.pop(key, None)
        self.answered.clear()

    def document(self, next_seq: int) -> dict[str, Any]:
        """The form in which a summary keeps it: :class:`SessionTotals`, and what is in flight."""
        logged = self._logged_apart()
        document: dict[str, Any] = {
            "next_seq": Int64(next_seq),
            "entries": self.entries,
            "turns": self.turns,
            "usage": [
                {
                    "day": day,
                    "model": model,
                    "responses": counts[0],
                    "input": counts[1],
                    "output": counts[2],
                    "cache_creation": counts[3],
                    "cache_read": counts[4],
                    "cost_usd": self.costs.get((day, model), 0.0) + logged.get((day, model), 0.0),
                }
                for (day, model), counts in self.usage.items()
            ],
            "tools": [
                {"name": name, "calls": calls, "errors": errors}
                for name, (calls, errors) in self.tools.items()
            ],
        }
        if self.copied_until:
            document["copied_until"] = Int64(self.copied_until)
        for name in ("cost_usd", "forked_from", "carried_usd", "first_at", "last_at"):
            value = getattr(self, name)
            if value is not None:
                document[name] = value
        if self.has_source_cost:
            document["has_source_cost"] = True
        in_flight: dict[str, Any] = {}
        if self.is_exact:
            in_flight["is_exact"] = True
        under_way = self.responses.document()
        if under_way:
            in_flight["under_way"] = under_way
        if self.calls and not self.is_complete:
            in_flight["open_calls"] = self._open_calls()
        if self.accounts:
            in_flight["accounts"] = [
                [start, total, [[model, cost] for model, cost in costs.items()]]
                for start, (total, costs) in self.accounts.items()
            ]
        if self.fork_point is not None:
            in_flight["fork_point"] = list(self.fork_point)
        if self.carried:
            in_flight["carried"] = [
                [
                    start,
                    *(
                        [account.total, list(map(list, account.by_model.items()))]
                        if account
                        else ()
                    ),
                ]
                for start, account in self.carried.items()
            ]
        if self.summaries:
            in_flight["summaries"] = list(map(list, self.summaries.pending))
        if self.settled_usd is not None:
            in_flight["settled_usd"] = self.settled_usd
        if self.logged:
            in_flight["logged"] = [
                [*at, cost, self.costs.get(at, 0.0)] for at, cost in self.logged.items()
            ]
        # Which of the titles shows is known; the others are needed when it is taken away.
        if len(self.titles) > 1 or (self.titles and self.title is None):
            kinds = filter(self.titles.__contains__, _BY_RANK)
            in_flight["titles"] = [[kind, self.titles[kind]] for kind in kinds]
        elif self.titles:
            in_flight["titled_by"] = next(iter(self.titles))
        if in_flight:
            document["in_flight"] = in_flight
        return document

    def _open_calls(self) -> list[list[Any]]:
        """The latest calls without a result, in order, as far as there is room."""
        waiting = [each for each in self.calls.items() if each[0] not in self.answered]
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
    def of(cls, document: Mapping[str, Any], texts: Mapping[str, Any]) -> Tally:
        """The tally that :meth:`document` and :attr:`texts` were made from."""
        tally = cls()
        tally.entries = document["entries"]
        tally.turns = document["turns"]
        for row in document["usage"]:
            at = (row["day"], row["model"])
            tally.usage[at] = (
                row["responses"],
                row["input"],
                row["output"],
                row["cache_creation"],
                row["cache_read"],
            )
            if row["cost_usd"]:
                tally.costs[at] = row["cost_usd"]
        tally.tools = {row["name"]: (row["calls"], row["errors"]) for row in document["tools"]}
        tally.forked_from = document.get("forked_from")
        tally.copied_until = document.get("copied_until", 0)
        tally.first_at = document.get("first_at")
        tally.last_at = document.get("last_at")
        for name in ("first_prompt", "branch", "cwd", "tag"):
            setattr(tally, name, texts.get(name))
        in_flight = document.get("in_flight", {})
        tally.is_exact = "is_exact" in in_flight
        tally.responses = Responses.of(in_flight.get("under_way", ()))
        for subpath, call, *known in in_flight.get("open_calls", ()):
            tally.calls[subpath, call] = Call(*known)
        tally._join_calls(tally.responses.all())
        for start, total, costs in in_flight.get("accounts", ()):
            tally.accounts[start] = (total, dict(costs))
        if "fork_point" in in_flight:
            tally.fork_point = ForkPoint(*in_flight["fork_point"])
        tally.carried = carried_in(document)
        tally.summaries = OwnSummaries(in_flight.get("summaries", ()))
        tally.settled_usd = in_flight.get("settled_usd")
        for day, model, cost, accounted in in_flight.get("logged", ()):
            tally.logged[day, model] = cost
            tally.costs[day, model] = accounted
        tally.titles = dict(in_flight.get("titles", ()))
        if "titled_by" in in_flight:
            tally.titles[in_flight["titled_by"]] = texts["title"]
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
        self.responses.forget(found)
        for parts in found.values():
            restored = [
                Stored(w, e.seq if e.response is None else e.response, e.has_prompt_since)
                for e, w in parts
            ]
            responses = self.responses.restore(restored)
            for response, (each, written) in zip(responses, parts, strict=True):
                for block in _calls_in(each.entry):
                    call_id = _call_id(block)
                    if call_id is not None and call_id not in response.calls:
                        failure = failure_of(written.instant, call_id)
                        name = self._tool(_tool_name(block))
                        response.calls[call_id] = Call(name, failure, failure in failures)
            self._join_calls(responses)
        for call in self.calls.values():
            call.has_failed = call.has_failed or call.failure in failures

    def restore_call(self, subpath: str, call: str, found: StoredEntry | None) -> None:
        """Learn that an entry, whose response is restored, makes a call that was asked for."""
        known: Call | None = None
        if found is not None and not self.is_copy(found.entry, found.subpath, found.seq):
            written = written_in(found.entry, found.subpath)
            response = self.responses.of_instant(written)
            if response is not None:
                known = response.calls.get(call)
            else:
                for block in _calls_in(found.entry):
                    if _call_id(block) == call:
                        failure = failure_of(found.seq.to_bytes(8, "big"), call)
                        known = Call(self._tool(_tool_name(block)), failure)
        # What comes back to no call is none of its failures.
        self.calls[subpath, call] = known or _UNCOUNTED

    def is_copy(self, entry: Mapping[str, Any], subpath: str, seq: int) -> bool:
        """Whether the response of an entry at a position is another session's."""
        return (seq <= self.copied_until and not subpath) or is_copied(entry)

    def _join_calls(self, responses: Sequence[Response]) -> None:
        """Let open calls be those of the responses that are known."""
        if self.calls:
            known = {c.failure: c for response in responses for c in response.calls.values()}
            for key, call in self.calls.items():
                self.calls[key] = known.get(call.failure, call)

    def _add_times(self, times: Sequence[str]) -> None:
        if len(times) > 2 and _are_ordered_as_texts(times):
            earliest, latest = _time(min(times)), _time(max(times))
            if earliest is not None and latest is not None:
                return self._add_span(earliest, latest)
        for at in map(_time, times):
            if at is not None:
                self._add_span(at, at)

    def _add_span(self, earliest: datetime, latest: datetime) -> None:
        if self.last_at is None or latest > self.last_at:
            self.last_at = latest
        if self.first_at is None or earliest < self.first_at:
            self.first_at = earliest

    def _add_response(self, entry: Mapping[str, Any], subpath: str, seq: int) -> Mark | None:
        message = entry.get("message")
        if not isinstance(message, dict):
            return None
        message = cast("dict[str, Any]", message)
        blocks = blocks_of(message.get("content"))
        calls = [block for block in blocks if _is_call(block)]
        if self.is_copy(entry, subpath, seq):
            for block in calls:
                call_id = _call_id(block)
                if call_id is not None:
                    self._open(subpath, call_id, _UNCOUNTED)
            if not subpath:
                self._add_fork_point(entry)
            return None
        mark: Mark | None = None
        written = written_in(entry, subpath, message)
        if written.counts[0] or calls:
            placed = self.responses.place(written, seq)
            if not self.is_complete and written.identity is not None:
                self._want(written.identity, written.instant)
            now = placed.response.taken
            if not placed.before:
                self._add_taken(now, 1)
            elif placed.before != (now,):
                for taken in placed.before:
                    self._add_taken(taken, -1)
                self._add_taken(now, 1)
            if placed.absorbed is not None:
                self._merge_calls(placed.response, placed.absorbed)
            for block in calls:
                self._add_call(block, placed, written, subpath, seq)
            if placed.digest:
                mark = Mark((placed.digest,), None if placed.first == seq else placed.first)
        failures: list[bytes] = []
        for block in blocks:
            if "tool_use_id" in block and not _is_call(block):
                self._add_result(block, subpath, failures)
        if not failures:
            return mark
        return Mark((*(mark.counted if mark else ()), *failures), mark.response if mark else None)

    def _add_fork_point(self, entry: Mapping[str, Any]) -> None:
        point = _fork_point(entry)
        if point is not None:
            self.fork_point = point
            self.forked_from = point.session_id

    def _want(self, identity: bytes, instant: bytes) -> None:
        instants = self.wanted.instants.get(identity)
        if instants is None:
            self.wanted.instants[identity] = {instant}
        else:
            instants.add(instant)

    def _add_taken(self, taken: Taken, sign: int) -> None:
        at = self._row(taken.day, taken.model)
        if taken.cost:
            self.logged[at] = self.logged.get(at, 0.0) + sign * taken.cost
            self.usage.setdefault(at, NOTHING)
        if not taken.counts[0]:
            return
        known = self.usage.get(at, NOTHING)
        counts = taken.counts
        self.usage[at] = (
            known[0] + sign * counts[0],
            known[1] + sign * counts[1],
            known[2] + sign * counts[2],
            known[3] + sign * counts[3],
            known[4] + sign * counts[4],
        )

    def _row(self, day: str, model: str) -> tuple[str, str]:
        if (day, model) in self.usage:
            return day, model
        size = sum(_ROW_BYTES + bytes_of(name) for _, name in (*self.usage, (day, model)))
        return ("", _OTHER) if size > _MAX_ROWS_BYTES else (day, model)

    def _tool(self, name: str) -> str:
        if name in self.tools:
            return name
        size = sum(_TOOL_BYTES + bytes_of(known) for known in (*self.tools, name))
        return _OTHER if size > _MAX_TOOLS_BYTES else name

    def _add_call(
        self,
        block: Mapping[str, Any],
        placed: Placed,
        written: Written,
        subpath: str,
        seq: int,
    ) -> None:
        call_id = _call_id(block)
        known = None if call_id is None else placed.response.calls.get(call_id)
        if known is None and not (call_id is None and placed.is_copy):
            name = self._tool(_tool_name(block))
            self._add_to_tool(name, 1, 0)
            if call_id is not None:
                failure = failure_of(written.instant or seq.to_bytes(8, "big"), call_id)
                known = placed.response.calls[call_id] = Call(name, failure)
        if call_id is not None and known is not None:
            self._open(subpath, call_id, known)

    def _add_to_tool(self, name: str, calls: int, errors: int) -> None:
        known = self.tools.get(name, (0, 0))
        self.tools[name] = (known[0] + calls, known[1] + errors)

    def _merge_calls(self, kept: Response, absorbed: Response) -> None:
        for call_id, call in absorbed.calls.items():
            same = kept.calls.setdefault(call_id, call)
            if same is not call:
                is_double = same.has_failed and call.has_failed
                same.has_failed = same.has_failed or call.has_failed
                self._add_to_tool(call.name, -1, -1 if is_double else 0)
                for key, each in self.calls.items():
                    if each is call:
                        self.calls[key] = same

    def _open(self, subpath: str, call_id: str, call: Call) -> None:
        self.calls[subpath, call_id] = call
        self.calls.move_to_end((subpath, call_id))
        if not self.is_complete and len(self.calls) > _MAX_CALLS:
            self.calls.popitem(last=False)

    def _add_results(self, entry: Mapping[str, Any], subpath: str) -> list[bytes] | None:
        """Count what failed by the results in an entry; ``None`` where it has no results."""
        failures: list[bytes] | None = None
        message = entry.get("message")
        if isinstance(message, dict):
            for block in blocks_of(cast("dict[str, Any]", message).get("content")):
                if block.get("type") == "tool_result":
                    if failures is None:
                        failures = []
                    if "forkedFrom" not in entry:
                        self._add_result(block, subpath, failures)
        return failures

    def _add_result(self, block: Mapping[str, Any], subpath: str, failures: list[bytes]) -> None:
        call_id = block.get("tool_use_id")
        if not isinstance(call_id, str):
            return
        key = (subpath, _name(call_id))
        call = self.calls.get(key)
        if call is not None and not self.is_complete:
            self.answered.add(key)
        if block.get("is_error") is not True:
            return
        if call is None:
            if not self.is_complete:
                self.wanted.calls.add(key)
        elif not call.has_failed:
            call.has_failed = True
            self._add_to_tool(call.name, 0, 1)
            self.wanted.failures.add(call.failure)
            failures.append(call.failure)

    def _add_prompt(self, entry: Mapping[str, Any], subpath: str) -> None:
        text = prompt_of(entry)
        if text is None:
            return
        self.responses.prompted(chain_of(subpath, entry))
        if subpath or entry.get("isSidechain") is True:
            return
        self.turns += 1
        # A command like /clear stands for the session only until something is asked.
        if self.first_prompt is None or is_housekeeping(self.first_prompt):
            first = _text(" ".join(text.lstrip()[: 2 * MAX_TEXT].split()))
            if first and (self.first_prompt is None or not is_housekeeping(first)):
                self.first_prompt = first

    def _add_title(self, entry: Mapping[str, Any]) -> None:
        kind: str = entry["type"]
        title = entry.get(_TITLES[kind])
        if isinstance(title, str):
            self.titles[kind] = _text(title)

    def _add_summary(self, entry: Mapping[str, Any]) -> None:
        if isinstance(text := entry.get("summary"), str):
            self.summaries.add(entry, entry.get("leafUuid"), _text(text))

    def _title_by_summary(self) -> None:
        if self.summaries.found is not None:
            self.titles["summary"] = self.summaries.found

    def _add_tag(self, entry: Mapping[str, Any]) -> None:
        tag = entry.get("tag")
        if isinstance(tag, str):
            self.tag = _text(tag) or None

    def _add_cost(self, entry: Mapping[str, Any]) -> None:
        total = _number(entry.get("totalCostUSD"))
        if total is None:
            return
        start = _number(entry.get("startTime"))
        day = _day(self.last_at)
        if start not in self.accounts and start is not None and self._may_be_carried(start):
            self._asked[start] = day
        _, before = self.accounts.pop(start, (0.0, {}))
        costs = _costs_by_model(entry.get("modelUsage"), before)
        for model, cost in costs.items():
            at = self._row(day, model)
            self.usage.setdefault(at, NOTHING)
            self.costs[at] = self.costs.get(at, 0.0) + cost - before.get(model, 0.0)
        # The account goes on over resumes; an agent that begins a new one starts anew.
        self.accounts[start] = (total, {**before, **costs})
        if len(self.accounts) > _MAX_ACCOUNTS:
            oldest, _ = self.accounts.pop(next(iter(self.accounts)))
            self.settled_usd = (self.settled_usd or 0.0) + oldest
        self._merge_models_of_accounts()

    def _may_be_carried(self, start: float) -> bool:
        return (
            self.fork_point is not None
            and start <= self.fork_point.at
            and start not in self.carried
            and len(self.carried) + len(self._asked) < _MAX_CARRIED
        )

    def _merge_models_of_accounts(self) -> None:
        """Forget how the oldest accounts fell to models, where all of them take too much room.

        What they grow by is counted as of another model from then on.
        """
        excess = sum(len(c) for _, c in self.accounts.values()) - _MAX_MODELS_OF_ACCOUNTS
        for start, (total, costs) in self.accounts.items():
            if excess <= 0:
                break
            if costs:
                self.accounts[start] = (total, {_OTHER: sum(costs.values())})
                excess -= len(costs) - 1


_RECORDS: dict[str, Callable[[Tally, Mapping[str, Any]], None]] = {
    **dict.fromkeys(_TITLES, Tally._add_title),  # pyright: ignore[reportPrivateUsage]
    "summary": Tally._add_summary,  # pyright: ignore[reportPrivateUsage]
    "tag": Tally._add_tag,  # pyright: ignore[reportPrivateUsage]
    "cost-state": Tally._add_cost,  # pyright: ignore[reportPrivateUsage]
}


def failures_of(stored: Sequence[StoredEntry]) -> set[bytes]:
    """The digests that entries would carry, had the calls in stored entries failed."""
    found: set[bytes] = set()
    for each in stored:
        instant = written_in(each.entry, each.subpath).instant
        for block in _calls_in(each.entry):
            call_id = _call_id(block)
            if call_id is not None:
                found.add(failure_of(instant, call_id))
    return found


def written_in(
    entry: Mapping[str, Any],
    subpath: str,
    message: Mapping[str, Any] | None = None,
) -> Written:
    """What an assistant entry says of the response that it is of."""
    if message is None:
        found = entry.get("message")
        message = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    at = _time(entry.get("timestamp"))
    model = message.get("model")
    usage = message.get("usage")
    counts = NOTHING
    name = ""
    if isinstance(model, str) and model != SYNTHETIC_MODEL and isinstance(usage, dict):
        usage = cast("dict[str, Any]", usage)
        name = _name(model)
        counts = (
            1,
            _count(usage.get("input_tokens")),
            _count(usage.get("output_tokens")),
            _count(usage.get("cache_creation_input_tokens")),
            _count(usage.get("cache_read_input_tokens")),
        )
    cost = max(_number(entry["costUSD"]) or 0.0, 0.0) if "costUSD" in entry else 0.0
    return written_by(entry, message, chain_of(subpath, entry), at, name, counts, cost)


def _calls_in(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    message = entry.get("message")
    content = cast("dict[str, Any]", message).get("content") if isinstance(message, dict) else None
    return [block for block in blocks_of(content) if _is_call(block)]


def _is_call(block: Mapping[str, Any]) -> bool:
    kind = block.get("type")
    return isinstance(kind, str) and kind in _CALLS


def _call_id(block: Mapping[str, Any]) -> str | None:
    found = block.get("id")
    return _name(found) if isinstance(found, str) and found else None


def _tool_name(block: Mapping[str, Any]) -> str:
    name = block.get("name")
    return _name(name) if isinstance(name, str) else ""


def _session_of(forked_from: object) -> str | None:
    if not isinstance(forked_from, dict):
        return None
    session = cast("dict[str, Any]", forked_from).get("sessionId")
    return _text(session) if isinstance(session, str) else None


def _fork_point(entry: Mapping[str, Any]) -> ForkPoint | None:
    """Where a response that a fork copied is in the other session."""
    source: object = entry.get("forkedFrom")
    if isinstance(source, dict):
        source = cast("dict[str, Any]", source)
        session, uuid = source.get("sessionId"), source.get("messageUuid")
    else:
        session, uuid = entry.get("requestSessionId"), entry.get("uuid")
    at = moment(entry.get("timestamp"))
    if not (isinstance(session, str) and isinstance(uuid, str)) or at is None:
        return None
    return ForkPoint(_text(session), _text(uuid), at.timestamp() * 1000)


def account_in(entry: Mapping[str, Any]) -> Account | None:
    """What an entry with the state of an account says of it."""
    total = _number(entry.get("totalCostUSD"))
    return None if total is None else Account(total, _costs_by_model(entry.get("modelUsage"), {}))


def carried_in(totals: Mapping[str, Any]) -> dict[float, Account | None]:
    """:attr:`Tally.carried` of the totals that a summary keeps."""
    return {
        start: Account(known[0], dict(known[1])) if known else None
        for start, *known in totals.get("in_flight", {}).get("carried", ())
    }


def is_copied(entry: Mapping[str, Any]) -> bool:
    """Whether a fork took the response over from another session."""
    source = entry.get("requestSessionId")
    is_of_another = isinstance(source, str) and source != entry.get("sessionId")
    return is_of_another or isinstance(entry.get("forkedFrom"), dict)


def _costs_by_model(usage: object, before: Mapping[str, float]) -> dict[str, float]:
    """What a state of an account says of models, under names that later states have as well.

    ``before`` is what was said so far. Beyond a number of models, the rest are one; an account
    that has this one takes up no other.
    """
    room = 0 if _OTHER in before else _MAX_MODELS_PER_ACCOUNT - len(before)
    costs: dict[str, float] = {}
    for model, cost in _model_costs(usage):
        if model not in before and model not in costs:
            if room <= 0:
                model = _OTHER
            else:
                room -= 1
        costs[model] = costs.get(model, 0.0) + cost
    return costs


def _model_costs(usage: object) -> Iterator[tuple[str, float]]:
    if isinstance(usage, dict):
        for model, spent in cast("dict[str, Any]", usage).items():
            if isinstance(spent, dict):
                cost = _number(cast("dict[str, Any]", spent).get("costUSD"))
                if cost is not None:
                    yield _name(model), cost


def _time(written: object) -> datetime | None:
    at = moment(written)
    if at is None:
        return None
    # As BSON keeps it.
    excess = at.microsecond % 1000
    return at - timedelta(microseconds=excess) if excess else at


def _are_ordered_as_texts(times: Sequence[str]) -> bool:
    """Whether the first and the last of times are the first and the last of the texts.

    What of this length has a ``T`` there and is a time has no offset.
    """
    is_usual = {_USUAL_LENGTH}.issuperset(map(len, times))
    return is_usual and "".join(times)[10::_USUAL_LENGTH] == "T" * len(times)


def _day(at: datetime | None) -> str:
    return "" if at is None else at.date().isoformat()


def costs_apart(
    logged: Mapping[tuple[str, str], float], starts: Collection[float | None]
) -> dict[tuple[str, str], float]:
    """Of the costs that entries say, by day and model, those that no account of cost holds.

    An account holds what was spent from the day on which it began, in epoch milliseconds.
    """
    if not logged:
        return {}
    begun = min(map(_day_of_start, starts), default=None)
    return {at: cost for at, cost in logged.items() if begun is None or at[0] < begun}


def _day_of_start(start: float | None) -> str:
    """The day on which an account began, by its start in epoch milliseconds."""
    try:
        return _day(datetime.fromtimestamp((start or 0.0) / 1000, timezone.utc))
    except (ValueError, OverflowError, OSError):
        return ""


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < _MAX_COUNT else 0


def _number(value: object) -> float | None:
    is_number = type(value) is float or type(value) is int
    # Comparing first: an integer may be too large for a float, and NaN is below nothing.
    return float(value) if is_number and abs(value) < _MAX_NUMBER else None  # pyright: ignore[reportArgumentType]


def _name(value: str) -> str:
    if value.isascii():
        return value[:_MAX_NAME]
    return _storable(value[:_MAX_NAME]).encode()[:_MAX_NAME].decode(errors="ignore")


def _text(value: str) -> str:
    return _storable(value[:MAX_TEXT])


def _storable(value: str) -> str:
    # BSON has no lone surrogates.
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
