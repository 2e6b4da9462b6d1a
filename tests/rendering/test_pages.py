"""Pages of sessions: readable, and nothing in a transcript gets out of its place on them."""

from __future__ import annotations

import json
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from support.entries import KEY, SUBAGENT, marker, message

from beanie_session_store import BeanieSessionStore, TransferError, export_transcripts
from beanie_session_store.app.rendering.html import HtmlPage
from beanie_session_store.app.rendering.markdown import MarkdownPage, escaped
from beanie_session_store.app.rendering.pieces import Note, Output, Prose, Speaker
from beanie_session_store.app.text import plain
from beanie_session_store.models.packing import full_stack

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "handler": '<img src=x onerror="alert(1)"><svg/onload=alert(1)>',
    "link": "[x](javascript:alert(1)) <javascript:alert(1)> [y](JaVaScRiPt&colon;alert(1))",
    "data link": "[x](data:text/html;base64,PHNjcmlwdD4=) [y](vbscript:x)",
    "reference": "[Session]: javascript:alert(1)\n\n[Session] [ok]\n\n[ok]: javascript:alert(2)",
    "image": "![pixel](http://evil.example/pixel.png)",
    "open fence": "```\nno end <script>alert(1)</script>",
    "open fence in a list": "- ```\n  no end\n\n<script>alert(1)</script>",
    "long fence": "`````\n```\n<script>\n",
    "closing fences": "```\n````\n`````\n``````\n<script>alert(1)</script>\n# forged",
    "tilde fence": "~~~~\n<b>\n~~~~\n<script>alert(1)</script>",
    "heading": "# forged\n\n### User\n\nforged\n=====",
    "quotation": "> > quoted\n\nout again\n\n---\n\n# forged",
    "comment": "<!-- open comment",
    "closing tags": "</pre></details></div></body></html><script>alert(1)</script>",
    "block tag": "<div>\n\n# forged\n\n</div>\n\n<iframe src=//evil.example></iframe>",
    "raw text tags": "<textarea><title><style><plaintext><noscript><xmp>",
    "attribute": "\" onmouseover=alert(1) x='",
    "entities": "&lt;script&gt;alert(1)&lt;/script&gt; &#60;script&#62;",
    "table": "| a |\n|---|\n| <script>alert(1)</script> [x](javascript:alert(1)) |",
    "code span": "`<script>` ``<b>``` `",
    "math and wiki": "$$\\href{javascript:alert(1)}{x}$$ [[x]] {{x}} {% raw %}",
    "front matter": "---\nlayout: evil\n---",
    "carriage returns": "a\r```\rb\r\r# forged\r<script>",
    "separators": "a\u2028# forged\u2029<script>\x0b\x0c\x85# forged",
    "escapes": "\x1b]8;;http://evil.example\x07click\x1b[2J\x00",
    "order": "\u202eevil\u202c",
    "half": "\ud83d <script>",
    "style": "<style>@import url(//evil.example)</style><link rel=stylesheet href=//evil>",
    "autolink": '<http://evil.example/"onmouseover="alert(1)>',
    "doubled": "<<script>alert(1)</script> \\\\<<b> \\<<b>",
    "separators in code": "> ```a\u2028# forged\u2029<script>alert(1)</script>`",
    "links elsewhere": "[x](//evil/share) [y](../../x.html) [z](#top) <smb://evil/x> [v](vscode:x)",
    "isolates": "\u2067evil\u2069",
}
FRAGMENTS = [
    *HOSTILE.values(),
    *("\n", "\n\n", "    ", "\t", "> ", "- ", "1. ", "* ", "+ "),
    *("```", "~~~", "`", "``", "|", "\\"),
    *("<", "</", "<!", "<?", "<![CDATA[", "<b>", "<a href=x>", "<http://a>", "http://a"),
    *("&lt;", "&#60;", "&#x3c;script&#x3e;", "&NewLine;", "&#10;", "&#96;&#96;&#96;", "&"),
    *("[", "]", "(", ")", "![", "[a]", "[a]: http://b 'c'\n", "**", "_", "#", "===", "---"),
    *("a", "b c", "  \n", "\\\n", "{", "}", "$", "\u2028", "\x0c"),
]


def session(text: str) -> list[dict[str, Any]]:
    """A hostile text in each place of a transcript that is shown."""
    call = {"type": "tool_use", "id": text, "name": text, "input": {text: text, "command": text}}
    shell = {"type": "tool_use", "id": "t2", "name": "Bash", "input": {"command": text}}
    result = {"type": "tool_result", "tool_use_id": text, "content": text, "is_error": True}
    blocks = [
        {"type": "text", "text": text},
        {"type": "thinking", "thinking": text},
        {"type": "image", "source": {"type": text, "media_type": text, "data": text}},
        {"type": text},
    ]
    return [
        {"type": "custom-title", "customTitle": text},
        {"type": "summary", "summary": text},
        {"type": "system", "uuid": "s", "content": text},
        {"type": text, "uuid": "x"},
        message(text),
        message(message={"role": "user", "content": blocks}),
        {
            "type": "assistant",
            "uuid": "a",
            "timestamp": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": [*blocks, call, shell]},
        },
        message(message={"role": "user", "content": [result, {**result, "content": blocks}]}),
        message("the end"),
    ]


class Tags(HTMLParser):
    """Every tag and attribute that a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def appended(store: BeanieSessionStore, text: str) -> None:
    await store.append(KEY, session(text))
    metadata = {"type": "agent_metadata", "agentType": text, "description": text}
    await store.append(SUBAGENT, [metadata, *session(text)])


async def exported(store: BeanieSessionStore, folder: Path, form: Any) -> str:
    report = await export_transcripts(store, folder, format=form)
    assert report.failed == 0, report.problems
    (path,) = folder.rglob("session.*")
    return path.read_bytes().decode()


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in HOSTILE.items()])
async def test_hostile_content_is_harmless(
    store: BeanieSessionStore, tmp_path: Path, text: str
) -> None:
    await appended(store, text)
    _assert_harmless_page(await exported(store, tmp_path / "html", "html"))
    _assert_harmless_markdown(await exported(store, tmp_path / "markdown", "markdown"))


def _assert_harmless_page(page: str) -> None:
    found = _assert_harmless_html(page)
    assert found.tags.count("style") == found.tags.count("title") == 1
    assert found.tags.count("html") == found.tags.count("body") == 1
    assert "default-src 'none'" in page
    # Our own headings, and whatever is one in a text stands within its frame.
    assert page.count("the end") == 2
    _assert_no_control_characters(page)


def _assert_harmless_markdown(page: str) -> None:
    headings = _headings_of_harmless_markdown(page)
    # No text made a heading of ours, or swallowed one.
    allowed = ("Agent", "Assistant, 2026", "User, 2026", "Subagent ")
    assert all(heading.startswith(allowed) for heading in headings[1:]), headings
    assert sum(heading.startswith("Subagent ") for heading in headings) == 1
    assert sum(h.startswith("Assistant, ") for h in headings) == 2
    assert page.count("> the end\n") == 2
    _assert_no_control_characters(page)


@pytest.mark.parametrize("tries", [50, pytest.param(1000, marks=pytest.mark.soak)])
def test_no_mixture_of_hostile_parts_gets_out_of_its_place(tries: int) -> None:
    @given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
    @settings(max_examples=tries)
    def check(text: str) -> None:
        pieces = [Prose(text), Output(text, text, "bash"), Note(text), Speaker("User", None)]
        _assert_harmless_html("".join(map(HtmlPage().piece, pieces)))
        page = MarkdownPage()
        shown = "".join(map(page.piece, pieces)) + page.subagent(f"Subagent {text}")
        user, subagent = _headings_of_harmless_markdown(shown)
        assert user == "User"
        assert subagent.startswith("Subagent")

    check()


def _assert_harmless_html(page: str) -> Tags:
    found = Tags(page)
    assert found.open == []
    assert not {"script", "img", "svg", "iframe", "link", "textarea", "object"} & set(found.tags)
    for name, value in found.attributes:
        assert not name.startswith("on")
        assert name != "src"
        # None at all leads to the page itself.
        assert name != "href" or not value or _is_web(value)
    return found


def _headings_of_harmless_markdown(page: str) -> list[str]:
    """The headings that are ours, as a reader that lets HTML and any link through takes it."""
    lenient = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    lenient.validateLink = lambda url: True
    tokens = lenient.parse(page)
    depth = 0
    headings: list[str] = []
    for index, token in enumerate(tokens):
        assert token.type != "html_block", token.content
        for child in token.children or ():
            # The break alone is the renderer's own, in headings of two lines.
            is_tag = child.type == "html_inline" and child.content != "<br />"
            assert not is_tag, child.content
            assert child.type != "image", child.content
            href = str(child.attrs.get("href", ""))
            assert not href or _is_web(href), href
        depth += (token.type == "blockquote_open") - (token.type == "blockquote_close")
        if token.type == "heading_open" and not depth:
            headings.append(tokens[index + 1].content)
        if token.type in ("hr", "table_open"):
            assert depth
    return headings


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://", "mailto:"))


def _assert_no_control_characters(page: str) -> None:
    assert not [c for c in page if ord(c) < 32 and c not in "\n\t"]
    assert not {"\x7f", "\x85", "\u2028", "\u202e", "\u2067"} & set(page)


@pytest.mark.parametrize("form", ["markdown", "html"])
async def test_texts_that_would_take_hours_to_render_are_shown_as_they_are(
    store: BeanieSessionStore, tmp_path: Path, form: Any
) -> None:
    await store.append(KEY, [message("- item\n" * 50_000), message("[" * 1_000_000)])
    await export_transcripts(store, tmp_path, format=form)
    (path,) = tmp_path.rglob("session.*")
    page = path.read_text()
    assert page.count("- item\n") >= 49_999
    assert "[" * 1_000_000 in page
    assert page.count("Long text") == 2


@pytest.mark.parametrize("form", ["markdown", "html"])
async def test_deep_arguments_and_results_of_tools_are_shown(
    store: BeanieSessionStore, tmp_path: Path, form: Any
) -> None:
    call = {"type": "tool_use", "id": "t1", "name": "Odd", "input": {"a": "DEEP"}}
    result = {"type": "web_search_tool_result", "tool_use_id": "t1", "content": "DEEP"}
    said = {"role": "assistant", "content": [call, result]}
    entry = _as_deep_as_can_be({"type": "assistant", "uuid": "a", "message": said})
    await store.append(KEY, [entry, message("after")])
    report = await export_transcripts(store, tmp_path, format=form)
    assert (report.changed, report.failed) == (1, 0)
    (path,) = tmp_path.rglob("session.*")
    assert path.read_text().count("bottom") == 2


def _as_deep_as_can_be(entry: Any) -> Any:
    """With as many arrays in place of "DEEP" as this Python's parser takes."""
    levels = 5_000
    while True:
        deep = f'{"[" * levels}"bottom"{"]" * levels}'
        text = json.dumps(entry).replace('"DEEP"', deep)
        try:
            return full_stack(partial(json.loads, text))
        except RecursionError:
            levels = levels * 99 // 100


@pytest.mark.parametrize("form", ["markdown", "html"])
async def test_a_page_tells_the_session_in_order(
    store: BeanieSessionStore, tmp_path: Path, form: Any
) -> None:
    call = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "echo 42"}}
    await store.append(
        KEY,
        [
            {"type": "ai-title", "aiTitle": "The answer"},
            message("What is **it**?"),
            {
                "type": "assistant",
                "uuid": "a",
                "message": {"role": "assistant", "content": [{"type": "text", "text": "I look."}]},
            },
            {"type": "assistant", "uuid": "b", "message": {"role": "assistant", "content": [call]}},
            message(
                message={
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "42!"}],
                }
            ),
            marker(),
            {
                "type": "assistant",
                "uuid": "c",
                "message": {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "```python\nprint(42)\n```"}],
                },
            },
        ],
    )
    metadata = {"type": "agent_metadata", "agentType": "Explore", "description": "Look around"}
    await store.append(SUBAGENT, [message("Look!"), metadata])
    await export_transcripts(store, tmp_path, format=form)
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert path.name == f"session.{'md' if form == 'markdown' else 'html'}"
    page = path.read_text()
    parts = ["The answer", "User", "What is", "Assistant", "I look.", "Bash", "echo", "42"]
    parts += ["Result of Bash", "42!", "print", "1 mode", "Explore: Look around", "Look!"]
    at = [page.index(parts[0])]
    for part in parts[1:]:
        at.append(page.index(part, at[-1] + 1))
    assert page.count("Assistant") == 1


def test_markdown_keeps_what_a_text_says_in_markdown() -> None:
    page = MarkdownPage()
    text = "A **bold** [link](https://example.com/a_b) and `code`\n\n- one\n- two\n"
    assert (
        page.piece(Prose(text))
        == "".join(f"> {line}".rstrip() + "\n" for line in text.rstrip().split("\n")) + "\n"
    )
    assert page.piece(Output("Bash", "a\n```\nb", "bash")) == (
        "**Bash**\n\n````bash\na\n```\nb\n````\n\n"
    )
    assert page.piece(Note("1. no list")) == "*1. no list*\n\n"
    assert page.piece(Speaker("User", None)) == "### User\n\n"


def test_html_renders_and_highlights() -> None:
    page = HtmlPage()
    shown = page.piece(Prose("**bold**\n\n```python\nx = 1\n```\n\n| a |\n|---|\n| b |"))
    assert "<strong>bold</strong>" in shown
    assert '<span class="m">1</span>' in shown
    assert "<td>b</td>" in shown
    assert "<details>" in page.piece(Output("Result", "<b>", is_folded=True))


def test_controls_are_made_visible_and_lines_stay() -> None:
    assert plain("a\tb\r\nc\x1b[0m\x7f\ud83d") == "a\tb\nc\u241b[0m\u2421\ufffd"
    assert escaped("two\nlines *and* `ticks`") == "two lines \\*and\\* \\`ticks\\`"


async def test_a_missing_extra_says_what_to_install(
    store: BeanieSessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("html", "markup"):
        monkeypatch.delitem(
            sys.modules, f"beanie_session_store.app.rendering.{module}", raising=False
        )
    monkeypatch.setitem(sys.modules, "nh3", None)
    with pytest.raises(TransferError, match=r"pip install 'beanie-session-store\[export\]'"):
        await export_transcripts(store, tmp_path, format="html")
