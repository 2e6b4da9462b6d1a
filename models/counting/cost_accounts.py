"""The agent's own accounts of cost, and what of them was spent in another session.

An account goes on over resumes, and an agent writes its state now and then: in all and by model.
An agent that forks a session goes on with the account of the session that it forks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple, cast

from ..views.moments import day_of, moment
from .bounded import OTHER, bounded_name, bounded_number, bounded_text
from .usage_tally import Row, UsageTally

_MAX_ACCOUNTS = 16
_MAX_MODELS_PER_ACCOUNT = 32
_MAX_MODELS_OF_ACCOUNTS = 128
# A fork has one, unless others write accounts of cost.
_MAX_CARRIED = 2


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


class CostAccounts:
    """The accounts of a session, whose costs are added to ``usage`` as they are written."""

    __slots__ = ("_accounts", "_asked", "_settled_usd", "_usage", "carried", "fork_point")

    def __init__(self, usage: UsageTally) -> None:
        self._usage = usage
        self._accounts: dict[float | None, tuple[float, dict[str, float]]] = {}
        # Of accounts too old to be remembered one by one.
        self._settled_usd: float | None = None
        self.fork_point: ForkPoint | None = None
        self.carried: dict[float, Account | None] = {}
        """What accounts, by their start, had come to when the session was forked, if that can be
        told."""
        self._asked: dict[float, str] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    @property
    def cost_usd(self) -> float | None:
        """US dollars by the agent's own account, ``None`` without one."""
        logged = self.logged_apart() if self._usage.logged else {}
        if not self._accounts and self._settled_usd is None and not logged:
            return None
        accounts = sum((total for total, _ in self._accounts.values()), self._settled_usd or 0.0)
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

    def logged_apart(self) -> dict[Row, float]:
        """The logged costs that no account holds."""
        if self._settled_usd is not None:
            return {}
        return costs_apart(self._usage.logged, self._accounts)

    def add(self, entry: Mapping[str, Any], day: str) -> None:
        """Take the state of an account that was written on a day."""
        total = bounded_number(entry.get("totalCostUSD"))
        if total is None:
            return
        start = bounded_number(entry.get("startTime"))
        if start not in self._accounts and start is not None and self._may_be_carried(start):
            self._asked[start] = day
        _, before = self._accounts.pop(start, (0.0, {}))
        costs = _costs_by_model(entry.get("modelUsage"), before)
        for model, cost in costs.items():
            self._usage.add_cost(day, model, cost, before.get(model, 0.0))
        # The account goes on over resumes; an agent that begins a new one starts anew.
        self._accounts[start] = (total, {**before, **costs})
        if len(self._accounts) > _MAX_ACCOUNTS:
            oldest, _ = self._accounts.pop(next(iter(self._accounts)))
            self._settled_usd = (self._settled_usd or 0.0) + oldest
        self._merge_models()

    def _may_be_carried(self, start: float) -> bool:
        return (
            self.fork_point is not None
            and start <= self.fork_point.at
            and start not in self.carried
            and len(self.carried) + len(self._asked) < _MAX_CARRIED
        )

    def _merge_models(self) -> None:
        """Forget how the oldest accounts fell to models, where all of them take too much room.

        What they grow by is counted as of another model from then on.
        """
        excess = sum(len(c) for _, c in self._accounts.values()) - _MAX_MODELS_OF_ACCOUNTS
        for start, (total, costs) in self._accounts.items():
            if excess <= 0:
                break
            if costs:
                self._accounts[start] = (total, {OTHER: sum(costs.values())})
                excess -= len(costs) - 1

    @property
    def asked(self) -> list[float]:
        """The starts of accounts just added that are older than the fork that this session is."""
        return list(self._asked)

    def settle(self, found: Mapping[float, Account | None]) -> None:
        """Take what accounts had come to when the session was forked for the other session's."""
        for start, day in self._asked.items():
            account = found.get(start)
            # It never goes down, so that is another one.
            if account is not None and account.total > self._accounts.get(start, (0.0, {}))[0]:
                account = None
            self.carried[start] = account
            for model, cost in account.by_model.items() if account else ():
                self._usage.add_cost(day, model, -cost)
        self._asked = {}

    def document(self) -> dict[str, Any]:
        """What is to be known of them to count on, as totals keep it in flight."""
        document: dict[str, Any] = {}
        if self._accounts:
            document["accounts"] = [
                [start, total, [[model, cost] for model, cost in costs.items()]]
                for start, (total, costs) in self._accounts.items()
            ]
        if self.fork_point is not None:
            document["fork_point"] = list(self.fork_point)
        if self.carried:
            document["carried"] = [
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
        if self._settled_usd is not None:
            document["settled_usd"] = self._settled_usd
        return document

    @classmethod
    def of(cls, in_flight: Mapping[str, Any], usage: UsageTally) -> CostAccounts:
        """The accounts that :meth:`document` was made from."""
        accounts = cls(usage)
        for start, total, costs in in_flight.get("accounts", ()):
            accounts._accounts[start] = (total, dict(costs))
        if "fork_point" in in_flight:
            accounts.fork_point = ForkPoint(*in_flight["fork_point"])
        accounts.carried = _carried(in_flight)
        accounts._settled_usd = in_flight.get("settled_usd")
        return accounts


def account_in(entry: Mapping[str, Any]) -> Account | None:
    """What an entry with the state of an account says of it."""
    total = bounded_number(entry.get("totalCostUSD"))
    return None if total is None else Account(total, _costs_by_model(entry.get("modelUsage"), {}))


def carried_in(totals: Mapping[str, Any]) -> dict[float, Account | None]:
    """:attr:`CostAccounts.carried` of the totals that a summary keeps."""
    return _carried(totals.get("in_flight", {}))


def _carried(in_flight: Mapping[str, Any]) -> dict[float, Account | None]:
    return {
        start: Account(known[0], dict(known[1])) if known else None
        for start, *known in in_flight.get("carried", ())
    }


def fork_point_of(entry: Mapping[str, Any]) -> ForkPoint | None:
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
    return ForkPoint(bounded_text(session), bounded_text(uuid), at.timestamp() * 1000)


def session_forked_from(forked_from: object) -> str | None:
    """The session that an entry was copied from into a fork, by its ``forkedFrom``."""
    if not isinstance(forked_from, dict):
        return None
    session = cast("dict[str, Any]", forked_from).get("sessionId")
    return bounded_text(session) if isinstance(session, str) else None


def costs_apart(logged: Mapping[Row, float], starts: Collection[float | None]) -> dict[Row, float]:
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
        return day_of(datetime.fromtimestamp((start or 0.0) / 1000, timezone.utc))
    except (ValueError, OverflowError, OSError):
        return ""


def _costs_by_model(usage: object, before: Mapping[str, float]) -> dict[str, float]:
    """What a state of an account says of models, under names that later states have as well.

    ``before`` is what was said so far. Beyond a number of models, the rest are one; an account
    that has this one takes up no other.
    """
    room = 0 if OTHER in before else _MAX_MODELS_PER_ACCOUNT - len(before)
    costs: dict[str, float] = {}
    for model, cost in _model_costs(usage):
        if model not in before and model not in costs:
            if room <= 0:
                model = OTHER
            else:
                room -= 1
        costs[model] = costs.get(model, 0.0) + cost
    return costs


def _model_costs(usage: object) -> Iterator[tuple[str, float]]:
    if isinstance(usage, dict):
        for model, spent in cast("dict[str, Any]", usage).items():
            if isinstance(spent, dict):
                cost = bounded_number(cast("dict[str, Any]", spent).get("costUSD"))
                if cost is not None:
                    yield bounded_name(model), cost
