"""Pages of reference: every public name, on the page of what it is, described by its docstring.

They are made of what the package exports, so no name is forgotten and none has to be listed twice.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "beanie_session_store"


class Public(NamedTuple):
    """A public name, and the module of the package that has it, such as ``.app.store``."""

    name: str
    home: str


class _Page(NamedTuple):
    place: str
    title: str
    opening: str


_STORE = _Page(
    "reference/store.md",
    "The store",
    "What a team calls most. Which of these methods the SDK calls too, and what else reads the "
    "same: [using.md](../using.md#what-reads-what).",
)
_FUNCTIONS = _Page(
    "reference/functions.md",
    "Functions and helpers",
    "What works on a database, on all sessions, or beside a store.",
)
_DOCUMENTS = _Page(
    "reference/documents.md",
    "Documents",
    "Beanie's Document classes of the store. What their fields hold: [schema.md](schema.md).",
)
_VIEWS = _Page(
    "reference/views.md",
    "Entries, turns and calls",
    "Typed views of what the agent wrote. How to use them: [typed-access.md](../typed-access.md).",
)
_RESULTS = _Page(
    "reference/results.md",
    "Results and reports",
    "What methods and functions return.",
)
_ERRORS = _Page(
    "reference/errors.md",
    "Error classes",
    "What each means and what to do: [errors.md](../errors.md).",
)
_EXTRAS = _Page(
    "reference/extras.md",
    "Pages, keys, traces and testing",
    "Modules of their own: pages to mount (`beanie_session_store.web`, "
    "[web.md](../web.md)), encryption (`beanie_session_store.encryption`, "
    "[encryption.md](../encryption.md)), OpenTelemetry (`beanie_session_store.telemetry`, "
    "[telemetry.md](../telemetry.md)), and a plugin for pytest (`beanie_session_store.testing`, "
    "[testing.md](../testing.md)).",
)
PAGES = (_STORE, _FUNCTIONS, _DOCUMENTS, _VIEWS, _RESULTS, _ERRORS, _EXTRAS)

_OF_THE_STORE = {"BeanieSessionStore", "LeasedStore", "Lease"}
_HELPERS = {"EmbeddedMongo", "HealthChecks", "SessionReplay", "Feed"}
_MODULES = ("web.py", "encryption.py", "telemetry.py", "testing/__init__.py")
_TOPS = ("app", "models", "migrations", "testing")

_ROLE = re.compile(r":(?:class|func|meth|exc|mod|attr|data):`~?([\w.]+)`")
# "as follows::" before lines that are set in; no code ends in two colons.
_LITERAL = re.compile(r"(?<=\w)::$", re.MULTILINE)


def reference(root: Path) -> Iterator[tuple[str, str]]:
    """Each page by its place on the site."""
    names: dict[_Page, list[str]] = {page: [] for page in PAGES}
    for public in public_names(root):
        names[_page_of(public)].append(f"{PACKAGE}.{public.name}")
    for module in _MODULES:
        dotted = module.removesuffix(".py").removesuffix("/__init__")
        exported = _exported(ast.parse((root / module).read_text()))
        names[_EXTRAS] += [f"{PACKAGE}.{dotted}.{name}" for name in exported]
    for page, listed in names.items():
        entries = "".join(f"\n::: {name}\n" for name in listed)
        yield page.place, f"# {page.title}\n\n{page.opening}\n{entries}"


def sources(root: Path) -> Iterator[tuple[str, bytes]]:
    """The package's modules, with what docstrings say to Sphinx said to Markdown."""
    public = {name for name, _ in public_names(root)}

    def linked(found: re.Match[str]) -> str:
        name = found[1].rpartition(".")[2]
        return f"[`{name}`][{PACKAGE}.{name}]" if name in public else f"`{name}`"

    for path in sorted(each for top in _TOPS for each in (root / top).rglob("*.py")):
        text = _LITERAL.sub(":", _ROLE.sub(linked, path.read_text()))
        yield path.relative_to(root).as_posix(), text.encode()
    for name in ("__init__.py", *(each for each in _MODULES if "/" not in each)):
        yield name, (root / name).read_bytes()


def public_names(root: Path) -> list[Public]:
    """What the package exports, with where it comes from; the store before all others."""
    tree = ast.parse((root / "__init__.py").read_text())
    homes = {
        alias.asname or alias.name: "." + (node.module or "")
        for branch in tree.body
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return [Public(name, homes[name]) for name in _exported(tree)]


def _page_of(public: Public) -> _Page:
    name, home = public
    if name in _OF_THE_STORE:
        return _STORE
    if name.endswith("Error"):
        return _ERRORS
    if home.startswith((".models.views", ".app.transcripts")):
        return _VIEWS
    if home.startswith(".models"):
        return _DOCUMENTS
    return _FUNCTIONS if name in _HELPERS or not name[0].isupper() or name.isupper() else _RESULTS


def _exported(tree: ast.Module) -> list[str]:
    (found,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return list(ast.literal_eval(found))
