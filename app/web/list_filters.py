"""Which sessions the list shows: an address read, checked, and written again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, timezone
from http import HTTPStatus
from typing import Any, ClassVar

from .refusals import Refused
from .viewer import Viewer

LIVE_SECONDS = 60
"""A session is live whose last entry is no older."""

PERIODS = {"24h": "24 hours", "7d": "7 days", "30d": "30 days"}
"""The usual ones, as an address and as people say them."""

_PERIOD = re.compile(r"([1-9][0-9]{0,3})([hd])")
_UNITS = {"h": "hour", "d": "day"}
_TAKEN = frozenset({"q", "in", "project", "branch", "tag", "since", "until", "live", "after"})


def who_parameter(who: str) -> str:
    """What the chosen field of metadata is called in an address."""
    return f"metadata.{who}" if who in _TAKEN | {"measure"} else who


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition, as a person reads it."""

    name: str
    words: str


@dataclass(frozen=True, slots=True)
class ListFilters:
    """What the address of a list asks for; empty is everything."""

    TEXTS: ClassVar[tuple[str, ...]] = ("q", "branch", "tag")
    """Those that say something about what was said."""

    who: str | None = None
    """The field of metadata that ``whose`` is a value of."""
    q: str = ""
    said: bool = False
    """Whether ``q`` is looked for in everything said."""
    project: str = ""
    branch: str = ""
    tag: str = ""
    whose: str = ""
    since: str = ""
    until: str = ""
    live: bool = False
    after: str = ""

    @classmethod
    def of(cls, viewer: Viewer) -> ListFilters:
        """Those that the address of a request asks for.

        Raises:
            Refused: one of them is none, or looks into what the viewer may not read.
        """
        given = viewer.request.query_params
        found = cls(
            who=viewer.who,
            whose="" if viewer.who is None else given.get(who_parameter(viewer.who), "").strip(),
            said=given.get("in") == "said" and bool(given.get("q", "").strip()),
            live=given.get("live") == "1",
            **{
                name: given.get(name, "").strip()
                for name in ("q", "project", "branch", "tag", "since", "until", "after")
            },
        )
        for name in ("since", "until"):
            value = getattr(found, name)
            if value and not (_PERIOD.fullmatch(value) or _day(value)):
                raise Refused(
                    HTTPStatus.BAD_REQUEST,
                    "This cannot be looked for",
                    f"{name} must be 24h or 7d (ago), or a day such as 2026-11-25.",
                )
        if not viewer.access.contents and any(getattr(found, name) for name in cls.TEXTS):
            raise viewer.figures_only()
        return found

    @property
    def query(self) -> list[tuple[str, object]]:
        """The address again: equal lists have equal addresses."""
        named = [
            ("q", self.q),
            ("in", "said" if self.said else ""),
            ("project", self.project),
            ("branch", self.branch),
            ("tag", self.tag),
            (who_parameter(self.who or ""), self.whose),
            ("since", self.since),
            ("until", self.until),
            ("live", "1" if self.live else ""),
            ("after", self.after),
        ]
        return [(name, value) for name, value in named if value]

    @property
    def in_use(self) -> Sequence[Filter]:
        """The conditions, each in words."""
        words = {
            "q": f"“{self.q}” {'in everything said' if self.said else 'in title or first prompt'}",
            "project": f"project {self.project}",
            "branch": f"branch {self.branch}",
            "tag": f"tag {self.tag}",
            "whose": f"{self.who} {self.whose}",
            "since": self._since_in_words,
            "until": f"not active since {self._moment_in_words(self.until)}",
            "live": "live only",
        }
        return [Filter(name, said) for name, said in words.items() if getattr(self, name)]

    def without(self, *names: str) -> ListFilters:
        """The same but for some conditions, from the first page on."""
        empty = ListFilters()
        return replace(self, **{name: getattr(empty, name) for name in ("after", *names)})

    def criteria(self) -> list[dict[str, Any]]:
        """What the store's own arguments do not say."""
        if not self.whose:
            return []
        # An address has texts alone; metadata may have a number.
        values: list[Any] = [self.whose]
        try:
            value = json.loads(self.whose)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, (bool, int, float)) and abs(value) < 2**63:
            values.append(value)
        return [{f"metadata.{self.who}": {"$in": values}}]

    def arguments(self, now: datetime) -> dict[str, Any]:
        """Arguments of the store's ``sessions``, but for how many and the words everywhere."""
        since = _moment(self.since, now)
        if self.live:
            since = max(since or now, now - timedelta(seconds=LIVE_SECONDS))
        return {
            "project_key": self.project or None,
            "title": None if self.said else self.q or None,
            "branch": self.branch or None,
            "tag": self.tag or None,
            "since": since,
            "until": _moment(self.until, now),
        }

    @property
    def _since_in_words(self) -> str:
        if _PERIOD.fullmatch(self.since):
            return f"active in the last {self._period(self.since)}"
        return f"active since {self.since}"

    def _moment_in_words(self, value: str) -> str:
        return f"{self._period(value)} ago" if _PERIOD.fullmatch(value) else value

    @staticmethod
    def _period(value: str) -> str:
        count, unit = int(value[:-1]), _UNITS[value[-1]]
        return PERIODS.get(value) or f"{count} {unit}{'' if count == 1 else 's'}"


def _moment(value: str, now: datetime) -> datetime | None:
    period = _PERIOD.fullmatch(value)
    if period is not None:
        count, unit = int(period[1]), period[2]
        return now - (timedelta(hours=count) if unit == "h" else timedelta(days=count))
    day = _day(value)
    return day and datetime.combine(day, time(), timezone.utc)


def _day(value: str) -> date | None:
    try:
        return date.fromisoformat(value) if len(value) == len("2026-11-25") else None
    except ValueError:
        return None
