"""How a text of somebody else is read as Markdown: without HTML, images and odd links."""

from __future__ import annotations

import re
from typing import Any

from markdown_it import MarkdownIt

SCHEMES = {"http", "https", "mailto"}
_LINK = re.compile(f"({'|'.join(sorted(SCHEMES))}):", re.I)


def parser_of_texts(**options: Any) -> MarkdownIt:
    """A parser of CommonMark, with options of its own library.

    A link to anywhere else stays a text: a relative one would lead to other files of the reader's
    disk, or to another machine.
    """
    parser = MarkdownIt("commonmark", {"html": False, **options})
    parser.validateLink = _is_allowed
    # An image would be fetched, and tell its server who reads the page.
    return parser.disable("image")


def _is_allowed(url: str) -> bool:
    return _LINK.match(url) is not None
