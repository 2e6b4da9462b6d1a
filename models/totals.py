"""What a session did, counted as its entries are appended.

:class:`Tally` is a fold: entries are added one by one in the order of ``seq``, and whoever adds
all of them again gets the same. It looks at entries as the agent wrote them and refuses none;
what does not fit counts as nothing. What it remembers between two entries is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from bson.int64 import Int64
from pydantic import BaseModel, Field

from .messages import SYNTHETIC_MODEL
from .moments import moment
from .own_summaries import OwnSummaries
from .prompts import blocks_of, is_housekeeping, prompt_of

MAX_TEXT = 200
"""Longest title, prompt, branch, directory or tag on a summary, in characters."""

_MAX_NAME = 128
_MAX_ROWS = 1000
_MAX_TOOLS = 500
_OTHER = "(other)"
"""Stands for the models and tools beyond those limits."""
# A response is several entries, with others of parallel subagents in between.
_MAX_RESPONSES = 16
_MAX_CALLS = 64
_MAX_ACCOUNTS = 16
# Sums of what lies below stay in what BSON holds.
_MAX_COUNT = 2**36
_MAX_NUMBER = 1e15

_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_TITLES = {"custom-title": "customTitle", "ai-title": "aiTitle"}
_BY_RANK = (*_TITLES, "summary")

TEXTS = ("title", "first_prompt", "branch", "cwd", "tag")
"""The fields of a summary that say what the session is about."""


class UsageRow(BaseModel):
    """What one model took on one day, in tokens and US dollars."""

    day: str = Field(description='UTC, such as "2026-11-25"; "" where no entry tells the time.')
    model: str
    responses: int = Field(default=0, description="Responses of the API.")
    input: int = 0
    output: int = 0
    cache_creation: int = 0
    cache_read: int = 0
    cost_usd: float = Field(
        default=0.0,
        description="By the agent's own account, on the day on which the agent wrote it.",
    )


class ToolRow(BaseModel):
    """How often a tool was called, and how often it failed."""

    name: str
    calls: int = 0
    errors: int = 0


class SessionTotals(BaseModel):
    """What a session did so far, its subagents included.

    What a fork has copied from the session that it was forked from counts as entries and turns,
    but not as usage or calls of tools.
    """

    next_seq: int = Field(
        description="The summary's next_seq when they were counted. Where it differs, an older "
        "release has written since; the next append or a repair counts anew."
    )
    entries: int = 0
    turns: int = Field(default=0, description="Prompts of a person.")
    usage: list[UsageRow] = []
    tools: list[ToolRow] = []
    cost_usd: float | None = Field(
        default=None,
        description="US dollars by the agent's own account, which a fork takes over from the "
        "session it was forked from; absent until the agent writes it.",
    )
    first_at: datetime | None = Field(default=None, description="Earliest entry, by its own time.")
    last_at: datetime | None = Field(default=None, description="Latest entry, by its own time.")

    @property
    def by_model(self) -> dict[str, UsageRow]:
        """The usage of all days together, by model; ``day`` is empty."""
        found: dict[str, UsageRow] = {}
        for row in self.usage:
            known = found.setdefault(row.model, UsageRow(day="", model=row.model))
            for name in ("responses", "input", "output", "cache_creation", "cache_read"):
                setattr(known, name, getattr(known, name) + getattr(row, name))
            known.cost_usd += row.cost_usd
        return found

    @property
    def tool_calls(self) -> dict[str, int]:
        """Calls by name of the tool."""
        return {row.name: row.calls for row in self.tools}


_Counts = tuple[int, int, int, int, int]
_Response = tuple[str, str, _Counts]
_NOTHING: _Counts = (0, 0, 0, 0, 0)


class Tally:
    """The totals of a session while they are counted; :meth:`document` is how they are stored."""

    __slots__ = (
        "accounts",
        "branch",
        "calls",
        "costs",
        "cwd",
        "entries",
        "first_at",
        "first_prompt",
        "last_at",
        "responses",
        "settled_usd",
        "summaries",
        "tag",
        "titles",
        "tools",
        "turns",
        "usage",
    )

    def __init__(self) -> None:
        self.entries = 0
        self.turns = 0
        self.usage: dict[tuple[str, str], _Counts] = {}
        self.costs: dict[tuple[str, str], float] = {}
        self.tools: dict[str, tuple[int, int]] = {}
        self.first_at: datetime | None = None
        self.last_at: datetime | None = None
        self.titles: dict[str, str] = {}
        self.first_prompt: str | None = None
        self.branch: str | None = None
        self.cwd: str | None = None
        self.tag: str | None = None
        self.responses: dict[str, _Response] = {}
        """The latest responses by ``message.id``, for each comes as several entries."""
        self.calls: dict[str, str] = {}
        """The tools of calls without a result yet, by the id of the call."""
        self.accounts: dict[float | None, tuple[float, dict[str, float]]] = {}
        """The agent's accounts of cost by their start: in all, and by model."""
        self.settled_usd: float | None = None
        """The cost on accounts too old to be remembered one by one."""
        self.summaries = OwnSummaries()
        """Which of older agents' summaries titles the session."""

    @property
    def title(self) -> str | None:
        """The title that a person gave, or else the model; older agents gave a summary."""
        return next((self.titles[kind] for kind in _BY_RANK if self.titles.get(kind)), None)

    @property
    def cost_usd(self) -> float | None:
        """US dollars by the agent's own account, ``None`` without one."""
        if not self.accounts and self.settled_usd is None:
            return None
        return sum((total for total, _ in self.accounts.values()), self.settled_usd or 0.0)

    @property
    def texts(self) -> dict[str, str | None]:
        """The values of the fields that :data:`TEXTS` names."""
        return {name: getattr(self, name) for name in TEXTS}

    @property
    def size(self) -> int:
        """About how much memory it takes, in bytes."""
        parts = (self.usage, self.costs, self.tools, self.responses, self.calls, self.accounts)
        return 200 * (sum(map(len, parts)) + len(self.summaries))

    def add(self, entries: Sequence[Mapping[str, Any]], is_main: bool) -> None:
        """Count more entries, of the main transcript or of one subagent's."""
        self.entries += len(entries)
        self.summaries.begin()
        for entry in entries:
            kind = entry.get("type")
            at = _time(entry.get("timestamp"))
            if at is not None:
                if self.last_at is None or at > self.last_at:
                    self.last_at = at
                if self.first_at is None or at < self.first_at:
                    self.first_at = at
            if kind == "assistant":
                self._add_response(entry, at)
            elif kind == "user":
                self._add_results(entry)
                if is_main and entry.get("isSidechain") is not True:
                    self._add_prompt(entry)
            elif is_main and isinstance(kind, str) and kind in _RECORDS:
                _RECORDS[kind](self, entry)
                continue
            if is_main and self.summaries.waiting:
                self.summaries.meet(entry.get("uuid"))
            # Older agents wrote what their subagents did into the main transcript.
            if is_main and entry.get("isSidechain") is not True:
                branch = entry.get("gitBranch")
                if branch != self.branch and isinstance(branch, str) and branch:
                    self.branch = _text(branch)
                if self.cwd is None:
                    cwd = entry.get("cwd")
                    if isinstance(cwd, str) and cwd:
                        self.cwd = _text(cwd)
        self.summaries.end(entries)
        self._title_by_summary()

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

    def document(self, next_seq: int) -> dict[str, Any]:
        """The form in which a summary keeps it: :class:`SessionTotals`, and what is in flight."""
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
                    "cost_usd": self.costs.get((day, model), 0.0),
                }
                for (day, model), counts in self.usage.items()
            ],
            "tools": [
                {"name": name, "calls": calls, "errors": errors}
                for name, (calls, errors) in self.tools.items()
            ],
        }
        for name in ("cost_usd", "first_at", "last_at"):
            value = getattr(self, name)
            if value is not None:
                document[name] = value
        in_flight: dict[str, Any] = {}
        if self.responses:
            in_flight["responses"] = [
                [name, day, model, *counts] for name, (day, model, counts) in self.responses.items()
            ]
        if self.calls:
            in_flight["calls"] = [[call, tool] for call, tool in self.calls.items()]
        if self.accounts:
            in_flight["accounts"] = [
                [start, total, [[model, cost] for model, cost in costs.items()]]
                for start, (total, costs) in self.accounts.items()
            ]
        if self.summaries:
            in_flight["summaries"] = list(map(list, self.summaries.pending))
        if self.settled_usd is not None:
            in_flight["settled_usd"] = self.settled_usd
        # Which of the titles shows is known; the others are needed when it is taken away.
        if len(self.titles) > 1 or (self.titles and self.title is None):
            kinds = filter(self.titles.__contains__, _BY_RANK)
            in_flight["titles"] = [[kind, self.titles[kind]] for kind in kinds]
        elif self.titles:
            in_flight["titled_by"] = next(iter(self.titles))
        if in_flight:
            document["in_flight"] = in_flight
        return document

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
        tally.first_at = document.get("first_at")
        tally.last_at = document.get("last_at")
        for name in ("first_prompt", "branch", "cwd", "tag"):
            setattr(tally, name, texts.get(name))
        in_flight = document.get("in_flight", {})
        for name, day, model, *counts in in_flight.get("responses", ()):
            tally.responses[name] = (day, model, cast("_Counts", tuple(counts)))
        tally.calls = dict(in_flight.get("calls", ()))
        for start, total, costs in in_flight.get("accounts", ()):
            tally.accounts[start] = (total, dict(costs))
        tally.summaries = OwnSummaries(in_flight.get("summaries", ()))
        tally.settled_usd = in_flight.get("settled_usd")
        tally.titles = dict(in_flight.get("titles", ()))
        if "titled_by" in in_flight:
            tally.titles[in_flight["titled_by"]] = texts["title"]
        return tally

    def _add_response(self, entry: Mapping[str, Any], at: datetime | None) -> None:
        message = entry.get("message")
        if not isinstance(message, dict) or _is_copied(entry):
            return
        message = cast("dict[str, Any]", message)
        model = message.get("model")
        usage = message.get("usage")
        if isinstance(model, str) and model != SYNTHETIC_MODEL and isinstance(usage, dict):
            self._add_usage(message.get("id"), model, cast("dict[str, Any]", usage), at)
        for block in blocks_of(message.get("content")):
            if block.get("type") in _CALLS:
                self._add_call(block)
            elif "tool_use_id" in block:
                self._add_result(block)

    def _add_usage(
        self, response: object, model: str, usage: Mapping[str, Any], at: datetime | None
    ) -> None:
        counts = (
            1,
            _count(usage.get("input_tokens")),
            _count(usage.get("output_tokens")),
            _count(usage.get("cache_creation_input_tokens")),
            _count(usage.get("cache_read_input_tokens")),
        )
        day, model = self._row(_day(at or self.last_at), _name(model))
        if isinstance(response, str):
            response = _name(response)
            # Every entry of a response repeats its usage; the last one has all of it.
            earlier = self.responses.pop(response, None)
            if earlier is not None:
                self._add_counts(earlier[0], earlier[1], earlier[2], -1)
            self.responses[response] = (day, model, counts)
            if len(self.responses) > _MAX_RESPONSES:
                del self.responses[next(iter(self.responses))]
        self._add_counts(day, model, counts, 1)

    def _add_counts(self, day: str, model: str, counts: _Counts, sign: int) -> None:
        known = self.usage.get((day, model), _NOTHING)
        self.usage[day, model] = (
            known[0] + sign * counts[0],
            known[1] + sign * counts[1],
            known[2] + sign * counts[2],
            known[3] + sign * counts[3],
            known[4] + sign * counts[4],
        )

    def _row(self, day: str, model: str) -> tuple[str, str]:
        is_full = len(self.usage) >= _MAX_ROWS and (day, model) not in self.usage
        return ("", _OTHER) if is_full else (day, model)

    def _add_call(self, block: Mapping[str, Any]) -> None:
        name = block.get("name")
        name = _name(name) if isinstance(name, str) else ""
        if name not in self.tools and len(self.tools) >= _MAX_TOOLS:
            name = _OTHER
        calls, errors = self.tools.get(name, (0, 0))
        self.tools[name] = (calls + 1, errors)
        call = block.get("id")
        if isinstance(call, str):
            self.calls[_name(call)] = name
            if len(self.calls) > _MAX_CALLS:
                del self.calls[next(iter(self.calls))]

    def _add_results(self, entry: Mapping[str, Any]) -> None:
        message = entry.get("message")
        if self.calls and isinstance(message, dict):
            for block in blocks_of(cast("dict[str, Any]", message).get("content")):
                if block.get("type") == "tool_result":
                    self._add_result(block)

    def _add_result(self, block: Mapping[str, Any]) -> None:
        call = block.get("tool_use_id")
        name = self.calls.pop(_name(call), None) if isinstance(call, str) else None
        if name is not None and block.get("is_error") is True:
            calls, errors = self.tools[name]
            self.tools[name] = (calls, errors + 1)

    def _add_prompt(self, entry: Mapping[str, Any]) -> None:
        text = prompt_of(entry)
        if text is None:
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
        _, before = self.accounts.pop(start, (0.0, {}))
        costs = dict(_model_costs(entry.get("modelUsage")))
        day = _day(self.last_at)
        for model, cost in costs.items():
            at = self._row(day, model)
            self.usage.setdefault(at, _NOTHING)
            self.costs[at] = self.costs.get(at, 0.0) + cost - before.get(model, 0.0)
        # The account goes on over resumes; an agent that begins a new one starts anew.
        self.accounts[start] = (total, costs)
        if len(self.accounts) > _MAX_ACCOUNTS:
            oldest, _ = self.accounts.pop(next(iter(self.accounts)))
            self.settled_usd = (self.settled_usd or 0.0) + oldest


_RECORDS: dict[str, Callable[[Tally, Mapping[str, Any]], None]] = {
    **dict.fromkeys(_TITLES, Tally._add_title),  # pyright: ignore[reportPrivateUsage]
    "summary": Tally._add_summary,  # pyright: ignore[reportPrivateUsage]
    "tag": Tally._add_tag,  # pyright: ignore[reportPrivateUsage]
    "cost-state": Tally._add_cost,  # pyright: ignore[reportPrivateUsage]
}


def _is_copied(entry: Mapping[str, Any]) -> bool:
    """Whether a fork took the response over from another session."""
    source = entry.get("requestSessionId")
    is_of_another = isinstance(source, str) and source != entry.get("sessionId")
    return is_of_another or isinstance(entry.get("forkedFrom"), dict)


def _model_costs(usage: object) -> Iterator[tuple[str, float]]:
    if isinstance(usage, dict):
        for model, spent in list(cast("dict[str, Any]", usage).items())[:_MAX_TOOLS]:
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


def _day(at: datetime | None) -> str:
    return "" if at is None else at.date().isoformat()


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < _MAX_COUNT else 0


def _number(value: object) -> float | None:
    is_number = type(value) is float or type(value) is int
    # Comparing first: an integer may be too large for a float, and NaN is below nothing.
    return float(value) if is_number and abs(value) < _MAX_NUMBER else None  # type: ignore[arg-type]


def _name(value: str) -> str:
    return _storable(value[:_MAX_NAME])


def _text(value: str) -> str:
    return _storable(value[:MAX_TEXT])


def _storable(value: str) -> str:
    # BSON has no lone surrogates.
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
