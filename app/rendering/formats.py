"""Which pages there are, made when one is asked for: what they need is an extra."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from ..errors import TransferError
from ..text import shown
from .pieces import Page

PAGES: dict[str, tuple[str, str]] = {
    "markdown": ("markdown", "MarkdownPage"),
    "html": ("html", "HtmlPage"),
}


def page_of(name: str) -> Page:
    """The page of a format.

    Raises:
        TransferError: there is no such format, or what it needs is not installed.
    """
    if not isinstance(cast("object", name), str) or name not in PAGES:
        raise TransferError(
            f"There is no format {shown(name)}; there are jsonl, otlp, {', '.join(PAGES)}."
        )
    module, page = PAGES[name]
    try:
        return cast("Page", getattr(import_module(f".{module}", __package__), page)())
    except ImportError as error:
        raise TransferError(
            f"Pages need {error.name}, which is not installed: "
            "pip install 'beanie-session-store[export]'"
        ) from None
