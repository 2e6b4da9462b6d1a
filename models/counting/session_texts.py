"""What a session is about: its title, its first prompt, where it was, while it is counted."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

from ..totals import TEXTS
from ..views.prompts import is_housekeeping
from .bounded import MAX_TEXT, bounded_text
from .own_summaries import OwnSummaries

_TITLES = {"custom-title": "customTitle", "ai-title": "aiTitle"}
_BY_RANK = (*_TITLES, "summary")


class SessionTexts:
    """The texts of a session, of which the summary has those that :data:`TEXTS` names."""

    __slots__ = ("_titles", "branch", "cwd", "first_prompt", "summaries", "tag")

    def __init__(self) -> None:
        self._titles: dict[str, str] = {}
        self.first_prompt: str | None = None
        self.branch: str | None = None
        self.cwd: str | None = None
        self.tag: str | None = None
        self.summaries = OwnSummaries()
        """Which of older agents' summaries titles the session."""

    @property
    def title(self) -> str | None:
        """The title that a person gave, or else the model; older agents gave a summary."""
        return next((self._titles[kind] for kind in _BY_RANK if self._titles.get(kind)), None)

    @property
    def values(self) -> dict[str, str | None]:
        """The values of the fields that :data:`TEXTS` names."""
        return {name: getattr(self, name) for name in TEXTS}

    def add_place(self, entry: Mapping[str, Any]) -> None:
        """Take in where an entry was written."""
        branch = entry.get("gitBranch")
        if branch != self.branch and isinstance(branch, str) and branch:
            self.branch = bounded_text(branch)
        if self.cwd is None:
            cwd = entry.get("cwd")
            if isinstance(cwd, str) and cwd:
                self.cwd = bounded_text(cwd)

    def add_prompt(self, text: str) -> None:
        """Take in a person's prompt."""
        # A command like /clear stands for the session only until something is asked.
        if self.first_prompt is None or is_housekeeping(self.first_prompt):
            first = bounded_text(" ".join(text.lstrip()[: 2 * MAX_TEXT].split()))
            if first and (self.first_prompt is None or not is_housekeeping(first)):
                self.first_prompt = first

    def add_record(self, entry: Mapping[str, Any]) -> None:
        """Take in an entry of a type that is in :data:`TEXT_RECORDS`."""
        TEXT_RECORDS[entry["type"]](self, entry)

    def _add_title(self, entry: Mapping[str, Any]) -> None:
        kind: str = entry["type"]
        title = entry.get(_TITLES[kind])
        if isinstance(title, str):
            self._titles[kind] = bounded_text(title)

    def _add_summary(self, entry: Mapping[str, Any]) -> None:
        if isinstance(text := entry.get("summary"), str):
            self.summaries.add(entry, entry.get("leafUuid"), bounded_text(text))

    def _add_tag(self, entry: Mapping[str, Any]) -> None:
        tag = entry.get("tag")
        if isinstance(tag, str):
            self.tag = bounded_text(tag) or None

    def title_by_summary(self) -> None:
        """Take the own summary for a title, if one was found."""
        if self.summaries.found is not None:
            self._titles["summary"] = self.summaries.found

    def settle_leaves(self, stored: Container[str]) -> None:
        """Take those summaries for the session's own whose leaf is stored."""
        self.summaries.settle(stored)
        self.title_by_summary()

    def titles_document(self) -> dict[str, Any]:
        """What is to be known of the titles besides the one that shows."""
        # Which of the titles shows is known; the others are needed when it is taken away.
        if len(self._titles) > 1 or (self._titles and self.title is None):
            kinds = filter(self._titles.__contains__, _BY_RANK)
            return {"titles": [[kind, self._titles[kind]] for kind in kinds]}
        return {"titled_by": next(iter(self._titles))} if self._titles else {}

    @classmethod
    def of(cls, values: Mapping[str, Any], in_flight: Mapping[str, Any]) -> SessionTexts:
        """The texts that :attr:`values`, and what totals keep in flight, were made from."""
        texts = cls()
        texts.first_prompt = values.get("first_prompt")
        texts.branch = values.get("branch")
        texts.cwd = values.get("cwd")
        texts.tag = values.get("tag")
        texts.summaries = OwnSummaries(in_flight.get("summaries", ()))
        texts._titles = dict(in_flight.get("titles", ()))
        if "titled_by" in in_flight:
            texts._titles[in_flight["titled_by"]] = values["title"]
        return texts


TEXT_RECORDS: dict[str, Callable[[SessionTexts, Mapping[str, Any]], None]] = {
    **dict.fromkeys(_TITLES, SessionTexts._add_title),  # pyright: ignore[reportPrivateUsage]
    "summary": SessionTexts._add_summary,  # pyright: ignore[reportPrivateUsage]
    "tag": SessionTexts._add_tag,  # pyright: ignore[reportPrivateUsage]
}
"""What is done with the entries that say texts of the session, by their type."""
