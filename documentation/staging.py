"""What the site is built from: docs/, pages from elsewhere, the reference, and llms.txt.

In the repository a page links to others as files, so that its links work there too. Staged, they
lead to pages of the site; one to a file that is none becomes the file's name.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from .reference import PACKAGE, reference, sources
from .schema import schema

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
HTML = ROOT / ".site" / "html"

# Pages that stand elsewhere, and where the site has them.
ELSEWHERE = {
    "bench/README.md": "bench/index.md",
    "bench/RESULTS.md": "bench/results.md",
    "bench/results.svg": "bench/results.svg",
    "ARCHITECTURE.md": "project/architecture.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "README.md": "index.md",
}

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^ {0,3}(```|~~~).*?^ {0,3}\1\s*$", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"^<!--.*?-->\n*", re.DOTALL | re.MULTILINE)


def stage(root: Path) -> None:
    """Bring below ``.site`` what the site is built from; a file that is the same is left alone."""
    _bring(root / ".site" / "pages", dict(staged(root)))
    # A checkout has any name, and a package is found by its own.
    _bring(root / ".site" / "packages" / PACKAGE, dict(sources(root)))


def _bring(folder: Path, wanted: dict[str, bytes]) -> None:
    for name, content in wanted.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()


def staged(root: Path) -> list[tuple[str, bytes]]:
    """Each file of the site's sources, by its name there."""
    docs = root / "docs"
    files = {path: path.relative_to(docs).as_posix() for path in sorted(docs.rglob("*"))}
    files |= {root / old: new for old, new in ELSEWHERE.items()}
    places = {path.relative_to(root).as_posix(): place for path, place in files.items()}
    titles = {file: title for _, pages in nav(root) for title, file in pages}
    found: list[tuple[str, bytes]] = []
    texts: dict[str, str] = {}
    for path, place in files.items():
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".md":
            here = path.relative_to(root).as_posix()
            texts[place] = _of_the_site(content.decode(), here, places, titles, root)
            content = texts[place].encode()
        found.append((place, content))
    made = dict([*reference(root), schema(root)])
    # These are written as pages of the site, so only words of links change.
    themselves = {place: place for place in [*places.values(), *made]}
    for place, text in made.items():
        texts[place] = _of_the_site(text, place, themselves, titles, root)
        found.append((place, texts[place].encode()))
    return [*found, ("llms.txt", llms(nav(root), texts).encode())]


def nav(root: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """The site's sections with titles and files of their pages; those above all have no name."""
    config = tomllib.loads((root / "zensical.toml").read_text())
    sections: list[tuple[str, list[tuple[str, str]]]] = [("", [])]
    entries: list[dict[str, Any]] = config["project"]["nav"]
    for entry in entries:
        ((title, below),) = entry.items()
        if isinstance(below, str):
            sections[0][1].append((title, below))
        else:
            pages = [page for each in below for page in each.items()]
            sections.append((title, pages))
    return sections


def llms(sections: list[tuple[str, list[tuple[str, str]]]], texts: dict[str, str]) -> str:
    """The pages for those who read by program: a line for each, by what it begins with."""
    lines = ["# beanie-session-store", "", f"> {_opening(texts['index.md'])}"]
    for section, pages in sections:
        lines += ["", f"## {section}" if section else "## Begin here", ""]
        lines += [
            f"- [{title}]({_address(file)}): {_opening(texts[file])}" for title, file in pages
        ]
    return "\n".join(lines) + "\n"


def _address(file: str) -> str:
    stem = posixpath.splitext(file)[0]
    return "./" if stem == "index" else f"{stem.removesuffix('/index')}/"


def _opening(text: str) -> str:
    """The first sentence of a page's first paragraph, as plain text."""
    for paragraph in re.split(r"\n\s*\n", _FENCE.sub("", _COMMENT.sub("", text))):
        plain = " ".join(paragraph.split())
        if plain and not re.match(r"[#|<!>:-]|```", plain):
            plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", plain).replace("**", "")
            return re.split(r"(?<=[.:?])\s", plain)[0].rstrip(":")
    return ""


def _of_the_site(
    text: str, here: str, places: dict[str, str], titles: dict[str, str], root: Path
) -> str:
    """A page's text with the links of the site; what stands in fences is left alone.

    A link whose words are the name of a file gets the title that the page has on the site.
    """
    folder, place = posixpath.dirname(here), posixpath.dirname(places[here])

    def relinked(found: re.Match[str]) -> str:
        mark, label, target = found.groups()
        name, hash_, anchor = target.partition("#")
        if not name or re.match(r"[a-z]+:", name):
            return found[0]
        there = posixpath.normpath(posixpath.join(folder, name))
        if there in places:
            target = posixpath.relpath(places[there], place or ".")
            titled = (
                titles.get(places[there], label) if label == posixpath.basename(name) else label
            )
            return f"{mark}[{titled}]({target}{hash_}{anchor})"
        # What is there is named; what is not stays, for the strict build to find.
        return label if (root / there).exists() else found[0]

    parts: list[str] = []
    end = 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(relinked, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(relinked, text[end:])])
