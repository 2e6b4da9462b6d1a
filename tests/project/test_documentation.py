"""The documentation is whole: pages have a place, links lead somewhere, no name is forgotten."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token

import beanie_session_store as package
from beanie_session_store import DOCUMENT_MODELS, SessionTotals, ToolRow, UsageRow
from beanie_session_store.app.cli.root import app, load_commands
from beanie_session_store.documentation.built import faults_of
from beanie_session_store.documentation.reference import PAGES, reference, sources
from beanie_session_store.documentation.schema import schema
from beanie_session_store.documentation.staging import ELSEWHERE, nav, stage, staged

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / name for name in ELSEWHERE if name.endswith(".md")]
DOCUMENTS = [*SOURCES, *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def pages_of_nav() -> list[str]:
    return [file for _, pages in nav(ROOT) for _, file in pages]


def tokens(document: Path) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").enable("table").parse(document.read_text()):
        yield token
        yield from token.children or ()


def slugs(document: Path) -> set[str]:
    """The anchors of a page's headings, as the site and GitHub name them."""
    found: set[str] = set()
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
        found.add(re.sub(r"\s", "-", plain))
    return found


def test_every_page_has_its_place_and_every_place_a_page() -> None:
    """What to do about a page that is new: a line in the `nav` of zensical.toml."""
    named = pages_of_nav()
    there = {place for place, _ in staged(ROOT) if place.endswith(".md")}
    assert sorted(named) == sorted(set(named))
    assert there - set(named) == set(), "pages without a place in the nav of zensical.toml"
    assert set(named) - there == set(), "places in the nav of zensical.toml without a page"


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    document = ROOT / name
    for token in tokens(document):
        target = str(token.attrs.get("href") or token.attrs.get("src") or "")
        if not target or re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), target
        if anchor:
            assert anchor in slugs(there), target


def test_pages_lead_to_pages_of_the_site(tmp_path: Path) -> None:
    for name, text in {
        "docs/one.md": "[two.md](two.md#x) [b](../README.md) ![c](pictures/p.png) "
        "[d](../app/store.py)\n[e](https://example.com/two.md) [f](gone.md)\n\n"
        "```\n[g](../README.md)\n```\n",
        "docs/deep/two.md": "[a](../one.md) [b](../../SECURITY.md)\n",
        "docs/two.md": "# Two\n",
        "docs/pictures/p.png": "",
        "app/store.py": "",
        "README.md": "Hello.\n\n[a](docs/one.md)\n",
        "SECURITY.md": "[a](docs/two.md#two)\n",
        "zensical.toml": "[project]\nnav = [{Home = 'index.md'}, {Part = [{One = 'one.md'}, "
        "{'The second' = 'two.md'}]}]",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for module in ("__init__.py", "web.py", "encryption.py", "telemetry.py", "testing", "models"):
        (tmp_path / module).symlink_to(ROOT / module)
    stage(tmp_path)
    pages = tmp_path / ".site" / "pages"
    assert (pages / "one.md").read_text() == (
        "[The second](two.md#x) [b](index.md) ![c](pictures/p.png) d\n"
        "[e](https://example.com/two.md) [f](gone.md)\n\n```\n[g](../README.md)\n```\n"
    )
    assert (pages / "deep/two.md").read_text() == "[a](../one.md) [b](../project/security.md)\n"
    assert (pages / "project/security.md").read_text() == "[a](../two.md#two)\n"
    assert (pages / "index.md").read_text() == "Hello.\n\n[a](one.md)\n"
    assert "- [Home](./): Hello." in (pages / "llms.txt").read_text()
    # What is gone is gone, and what did not change stays as it is, for whoever watches.
    written = (pages / "one.md").stat().st_mtime_ns
    (tmp_path / "docs/deep/two.md").unlink()
    stage(tmp_path)
    assert not (pages / "deep/two.md").exists()
    assert (pages / "one.md").stat().st_mtime_ns == written


def test_docstrings_lead_to_names_of_the_reference() -> None:
    texts = {name: text.decode() for name, text in sources(ROOT)}
    assert "[`InvalidKeyError`][beanie_session_store.InvalidKeyError]" in texts["app/store.py"]
    assert not [name for name, text in texts.items() if re.search(r":\w+:`", text)]
    for name, text in texts.items():
        compile(text, name, "exec", dont_inherit=True)


def test_programs_are_told_of_every_page_in_a_line() -> None:
    (listed,) = (content.decode() for place, content in staged(ROOT) if place == "llms.txt")
    lines = re.findall(r"^- \[.+\]\((.+)\): (.+)$", listed, re.MULTILINE)
    assert len(lines) == len(pages_of_nav())
    assert all(10 < len(said) < 300 for _, said in lines), lines


def test_every_public_name_is_in_the_reference_once() -> None:
    found = [
        name.removeprefix("beanie_session_store.")
        for _, text in reference(ROOT)
        for name in re.findall(r"^::: (.+)$", text, re.MULTILINE)
    ]
    assert sorted(each for each in found if "." not in each) == sorted(package.__all__)
    assert {"web.session_pages", "testing.ScriptedAgent"} <= set(found)
    assert all(page.place in pages_of_nav() for page in PAGES)


def test_every_error_has_a_cause_and_a_cure() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", text, re.MULTILINE)
    errors = {name for name in package.__all__ if name.endswith("Error")} - {"SessionStoreError"}
    assert sorted(name for name, _, _ in rows) == sorted(errors)
    assert all(len(cause) > 20 and len(cure) > 20 for _, cause, cure in rows)


def test_every_stored_field_is_described() -> None:
    place, text = schema(ROOT)
    assert place in pages_of_nav()
    for model in (*DOCUMENT_MODELS, SessionTotals, UsageRow, ToolRow):
        (section,) = re.findall(rf"^## {model.__name__}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
        rows = dict(
            re.findall(r"^\| `(\w+)` \| <code>.+</code> \| (.*) \|$", section, re.MULTILINE)
        )
        inherited = {"id", "revision_id"}
        described = {
            name: " ".join((field.description or "").split())
            for name, field in model.model_fields.items()
            if name not in inherited
        }
        assert rows == described


def test_every_collection_and_index_is_described() -> None:
    text = (ROOT / "docs" / "schema.md").read_text()
    for model in DOCUMENT_MODELS:
        names = {index.document["name"] for index in model.Settings.indexes}
        missing = {name for name in (model.Settings.name, *names) if f"`{name}`" not in text}
        assert not missing, model.__name__


def shell_lines() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        for token in tokens(document):
            if token.type == "fence" and token.info.strip() in {"", "console", "sh", "bash"}:
                for line in token.content.replace("\\\n", " ").splitlines():
                    yield str(document.relative_to(ROOT)), line.strip()


COMMANDS = sorted(
    {
        (name, line.removeprefix("$ "))
        for name, line in shell_lines()
        if re.match(r"(\$ )?(until )?session-store ", line)
    }
)


def arguments_of(line: str) -> list[str]:
    """The words of a command line as a shell would pass them, up to what is another command."""

    words = shlex.split(line, comments=True)[1:]
    ends = [
        at for at, word in enumerate(words) if word in {"|", ">", "&&", ";"} or word[-1:] == ";"
    ]
    return [
        word.rstrip(";") for word in words[: ends[0] + 1 if ends else None] if word.strip("|>;&")
    ]


def parse(command: click.Command, arguments: list[str]) -> None:
    """Have each level of the command take its arguments, and do nothing."""
    context = command.make_context(command.name or "session-store", list(arguments))
    with context:
        while isinstance(command, click.Group) and context.protected_args + context.args:
            rest = [*context.protected_args, *context.args]
            _, found, rest = command.resolve_command(context, rest)
            assert found is not None, rest
            command, context = found, found.make_context(found.name, rest, parent=context)


def test_every_command_that_is_shown_is_one() -> None:
    load_commands()
    root = typer.main.get_command(app)
    assert len(COMMANDS) > 60
    wrong: list[str] = []
    for name, line in COMMANDS:
        try:
            parse(root, arguments_of(line))
        except click.exceptions.Exit:
            pass
        except click.ClickException as error:
            wrong.append(f"{name}: {line}: {error.format_message()}")
    # docs/cli.md shows one mistake, and what is said of it.
    assert [each for each in wrong if "sesions" not in each] == []


def test_every_extra_and_target_that_is_shown_is_there() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    extras = set(re.findall(r"^(\w+) = \[$", project.split("[project.scripts]")[0], re.MULTILINE))
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named_extras: set[str] = set()
    named_targets: set[str] = set()
    for document in DOCUMENTS:
        text = document.read_text()
        for listed in re.findall(r"beanie-session-store\[([\w,]+)\]", text):
            named_extras |= set(listed.split(","))
        named_targets |= set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.MULTILINE))
    assert named_extras <= extras
    assert named_targets <= targets
    assert {"web", "cli"} <= named_extras
    assert {"test", "docs"} <= named_targets


def test_the_readme_is_read_in_three_minutes() -> None:
    readme = ROOT / "README.md"
    kinds = [token.type for token in tokens(readme)]
    assert len(readme.read_text().split()) < 750
    assert kinds.count("table_open") == 1
    assert kinds.count("image") == 1


PAGE = "<html><body><h1>T</h1>{}</body></html>"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<a href="gone/">x</a>', "gone/ leads nowhere"),
        ('<a href="../../outside">x</a>', "leads nowhere"),
        ('<a href="#no">x</a>', "#no has no such anchor"),
        ('<a href="other.html#no">x</a>', "has no such anchor"),
        ('<img src="gone.png">', "gone.png leads nowhere"),
        ('<img src="https://example.com/a.png">', "from another host"),
        ('<script src="//example.com/a.js"></script>', "from another host"),
        ('<link rel="stylesheet" href="https://fonts.example.com/x">', "from another host"),
        ('<link rel="preconnect" href="https://fonts.example.com">', "from another host"),
        ("<h1>Second</h1>", "2 titles"),
    ],
)
def test_what_is_wrong_with_a_built_site_is_said(tmp_path: Path, body: str, said: str) -> None:
    right = '<a href="other.html#here">x</a> <a href="https://example.com">y</a> <img src="a.svg">'
    (tmp_path / "index.html").write_text(PAGE.format(right))
    (tmp_path / "other.html").write_text(PAGE.format('<p id="here">x</p><a href="./">home</a>'))
    (tmp_path / "a.svg").write_text("<svg/>")
    (tmp_path / "llms.txt").write_text("- [x](./): y\n")
    assert faults_of(tmp_path) == []
    (tmp_path / "index.html").write_text(PAGE.format(body))
    (fault,) = faults_of(tmp_path)
    assert said in fault
    assert fault.startswith("index.html: ")


def test_a_style_and_a_list_for_programs_are_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(PAGE.format(""))
    (tmp_path / "a.css").write_text(
        "@import 'https://example.com/x.css'; b{background:url(//x.io/a)}"
    )
    (tmp_path / "llms.txt").write_text("- [x](gone/): y\n")
    assert [fault.partition(":")[0] for fault in faults_of(tmp_path)] == [
        "a.css",
        "a.css",
        "llms.txt",
    ]
