"""Of which sessions and days figures are shown: an address read, checked, and written again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from http import HTTPStatus
from typing import Any

from ..rendering.amounts import counted
from .list_filters import ListFilters, who_parameter
from .refusals import Refused
from .viewer import Viewer
from .wording import MONTHS

_USUAL_DAYS = 28
_MOST_DAYS = 3660


@dataclass(frozen=True, slots=True)
class FigureFilters:
    """What the address of figures asks for."""

    who: str | None
    """The field of metadata that ``whose`` is a value of."""
    since: date
    until: date
    """Before this day, UTC."""
    project: str = ""
    whose: str = ""
    measure: str = "cost"
    """What bars are as long as: ``cost`` or ``tokens``."""
    today: date = date.min

    @classmethod
    def of(cls, viewer: Viewer) -> FigureFilters:
        """Those that the address of a request asks for.

        Raises:
            Refused: one of them is none.
        """
        given = viewer.request.query_params
        today = datetime.now(timezone.utc).date()
        until = _day(given.get("until", "")) or today + timedelta(days=1)
        since = _day(given.get("since", "")) or _usual_since(until)
        if not 0 < (until - since).days <= _MOST_DAYS:
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                "There are no such days",
                f"From {since} to {until} are none, or more than ten years. Choose a first day, "
                "and a later one before which it ends.",
            )
        return cls(
            viewer.who,
            since,
            until,
            given.get("project", "").strip(),
            "" if viewer.who is None else given.get(who_parameter(viewer.who), "").strip(),
            "tokens" if given.get("measure") == "tokens" else "cost",
            today,
        )

    @property
    def query(self) -> list[tuple[str, object]]:
        """The address again: equal figures have equal addresses."""
        usual_until = self.today + timedelta(days=1)
        named = [
            ("since", "" if self.since == _usual_since(self.until) else self.since.isoformat()),
            ("until", "" if self.until == usual_until else self.until.isoformat()),
            ("project", self.project),
            (who_parameter(self.who or ""), self.whose),
            ("measure", "" if self.measure == "cost" else self.measure),
        ]
        return [(name, value) for name, value in named if value]

    @property
    def period(self) -> str:
        """How many days these are, in words."""
        return counted((self.until - self.since).days, "day")

    @property
    def in_words(self) -> str:
        """The conditions, in words."""
        if self.until == self.today + timedelta(days=1):
            days = f"last {self.period}"
        else:
            days = f"{day_in_words(self.since)} to {day_in_words(self.last)}"
        whose = f"{self.who} {self.whose}" if self.whose else ""
        project = f"project {self.project}" if self.project else ""
        return ", ".join(each for each in (days, project, whose) if each)

    @property
    def last(self) -> date:
        """The last of the days."""
        return self.until - timedelta(days=1)

    @property
    def of_a_year(self) -> FigureFilters:
        """The same over a whole year."""
        return replace(self, since=date.fromordinal(max(self.until.toordinal() - 365, 1)))

    def criteria(self) -> list[dict[str, Any]]:
        """What the store's own arguments do not say."""
        return ListFilters(who=self.who, whose=self.whose).criteria()

    def sessions(self) -> dict[str, Any]:
        """Arguments of the store's questions that say which sessions are meant."""
        return {"project_key": self.project or None}


def day_in_words(day: date) -> str:
    """A day as people write it, such as ``19 November 2026``."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def _usual_since(until: date) -> date:
    # There are no days before the calendar's first.
    return date.fromordinal(max(until.toordinal() - _USUAL_DAYS, 1))


def _day(value: str) -> date | None:
    if not value:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            "There is no such day",
            "Days are written as 2026-11-25.",
        ) from None
