"""What is wrong with a site that was built: addresses that lead nowhere, and hosts of others.

The strict build looks at links that Markdown has. Here each page is looked at as a browser gets it:
links of templates, of the reference and of raw HTML, anchors too, and whatever a page would fetch.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

# What a browser fetches by itself. An address to click is the reader's decision.
_FETCHED = {
    "link": "href",
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
    "embed": "src",
}
_LOADED_BY_STYLE = re.compile(r"""(?:@import\s+|url\()\s*["']?((?:https?:)?//[^"')\s]+)""")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.ids: set[str] = set()
        self.headings = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "h1":
            self.headings += 1
        # "canonical" and its like name an address and fetch nothing.
        if tag in _FETCHED and values.get("rel", "") not in {"canonical", "next", "prev"}:
            self.fetched.append(values.get(_FETCHED[tag], ""))


def faults_of(site: Path) -> list[str]:
    """Each fault of the site's pages and styles, in a line."""
    pages = {path.resolve(): _read(path) for path in sorted(site.rglob("*.html"))}
    faults: list[str] = []
    for path, page in pages.items():
        where = path.relative_to(site.resolve())
        if where.name != "404.html" and page.headings != 1:
            faults.append(f"{where}: {page.headings} titles, where a page has one")
        for address in page.fetched:
            if urlsplit(address).netloc:
                faults.append(f"{where}: fetches {address} from another host")
            elif address and not address.startswith("data:"):
                faults += _missing(site, path, address, pages, where)
        for address in page.links:
            if not urlsplit(address).scheme and not urlsplit(address).netloc:
                faults += _missing(site, path, address, pages, where)
    for path in sorted(site.rglob("*.css")):
        faults += [
            f"{path.relative_to(site)}: fetches {address} from another host"
            for address in _LOADED_BY_STYLE.findall(path.read_text())
        ]
    listed = site / "llms.txt"
    for address in re.findall(r"\]\(([^)]+)\)", listed.read_text()):
        faults += _missing(site, listed.resolve(), address, pages, Path("llms.txt"))
    return faults


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text())
    return page


def _missing(
    site: Path, path: Path, address: str, pages: dict[Path, _Page], where: Path
) -> list[str]:
    bare, anchor = urldefrag(unquote(address))
    bare = bare.partition("?")[0]
    root = site.resolve()
    target = (root / bare.lstrip("/") if bare.startswith("/") else path.parent / bare).resolve()
    if not bare:
        target = path
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file() or not target.is_relative_to(root):
        return [f"{where}: {address} leads nowhere"]
    # The theme gives some their ids by script.
    if anchor and target in pages and anchor not in pages[target].ids | {"__skip", "__top"}:
        return [f"{where}: {address} has no such anchor"]
    return []
