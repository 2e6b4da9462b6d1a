"""Every word of a message is on its page, however Markdown would read it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from support.entries import KEY, SUBAGENT, message

from beanie_session_store import BeanieSessionStore, export_transcripts
from beanie_session_store.app.cli.terminal.transcript_lines import TranscriptLines
from beanie_session_store.app.rendering.html import HtmlPage
from beanie_session_store.app.rendering.markdown import MarkdownPage
from beanie_session_store.app.rendering.pieces import Note, Output, Pieces, Prose

Words = Counter[str]


def words(text: str) -> Words:
    return Counter(re.findall(r"[^\W_]+", text))


class _Texts(HTMLParser):
    """What a browser shows of a page, and how lists are numbered."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.shown: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shown += [value or "" for name, value in attrs if (tag, name) == ("li", "value")]

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def html_words(page: str) -> Words:
    texts = _Texts()
    texts.feed(page)
    texts.close()
    return words("\n".join(texts.shown))


def raw_words(page: str) -> Words:
    return words(page)


def read_words(page: str) -> Words:
    """What a usual reader of Markdown shows, its HTML included."""
    found: list[str] = []
    for token in MarkdownIt("commonmark").enable("table").parse(page):
        found += [token.info, "" if token.type == "inline" else token.content]
        for child in token.children or ():
            found += [child.content, *map(str, child.attrs.values())]
    return words("\n".join(found))


LOSING = {
    "a list of ten levels": "".join(f"{'  ' * n}- level{n}\n" for n in range(10)),
    "a list of sixty levels": "".join(f"{'  ' * n}- level{n}\n" for n in range(60)),
    "a quote of 21": f"{'>' * 21} deep words\n\nand after",
    "a quote of 300": f"{'> ' * 300}deep words\n\nand after",
    "a quote in a list in a quote": "> - > - > - > - > - > - > - > - > - > - > - > - > x",
    "sources": "As [1] says.\n\n[1]: https://example.com/a_b 'The title'\n[2]: <https://x.example>",
    "sources in a list": "- see\n\n  [2]: https://example.com/deep\n- more",
    "a definition within a paragraph": "[1]: https://one.example\nand text behind",
    "an image": "![alt words](https://images.example/one_two.png 'A title')",
    "an image by reference": "![alt][pic]\n\n[pic]: http://images.example/p.png 'T'",
    "an inline picture": "![dot](data:image/png;base64,iVBORw0KGgo=)",
    "a link": "[text](https://example.com/path?q=word#part 'Its title')",
    "a link with an odd address": "[x](https://ex\u00e4mple.com/\u00e4%20b) [y](<http://a b/c>)",
    "an info string": '```python title="setup.py" {1,3}\nx = 1\n```',
    "an info string alone": "~~~~ words of info\n~~~~",
    "an open fence": "```js\nno end",
    "a comment": "before <!-- hidden words --> after\n\n<!-- block\nof words -->",
    "html": "<details open><summary class='c'>Sum</summary>\n\nbody\n</details>",
    "a processing instruction": "<?php echo words ?> <!DOCTYPE html> <![CDATA[data]]>",
    "entities": "&copy; &#169; &lt;b&gt; &nosuch; &amp;copy;",
    "cells without a column": "| a |\n|---|\n| b | lost | cells |",
    "identifiers": "__init__.py a_b_c *args **kwargs 2*3*4 ~~x~~ snake_case_ _private",
    "numbers of a list": "1986. A great year\n1990. Another\n\n3) three\n3) three again",
    "headings": "#hashtag\n# one #\n## two\nsetext\n===\nlower\n---",
    "a footnote": "Text[^1].\n\n[^1]: The note.\n[^2]: Unused.",
    "indented code": "text\n\n    code of `words`\n\tand a tab\n",
    "hard breaks": "one  \ntwo\\\nthree",
    "backslashes": "C:\\new\\_folder \\* \\[x\\] \\",
    "odd characters": "zero\u200bwidth \u202eturned\u202c nul\0nul half\ud83dhalf a\rb \u2028 c",
    "a bracket without end": "[" * 60 + "words" + "](" * 3,
    "an autolink": "<https://example.com/a?b=c> <mailto:x@y.example> <not a tag>",
    "a disallowed link": "[x](javascript:alert(1) 'title') [y](../up.html) [z]: file:///etc/passwd",
    "a very long line": "word " * 15_000,
}
FORMS: list[tuple[str, Callable[[], Any], Callable[[str], Words]]] = [
    ("html", HtmlPage, html_words),
    ("markdown", MarkdownPage, raw_words),
    ("markdown, as read", MarkdownPage, read_words),
]
each_form = pytest.mark.parametrize(
    ("page", "shown"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS]
)


def as_shown(text: str) -> str:
    """A text without what a page cannot hold: half an emoji, and what turns lines around."""
    return re.sub("[\ud800-\udfff\u0080-\u009f\u202a-\u202e\u2066-\u2069]", "\ufffd", text)


@each_form
@pytest.mark.parametrize("is_typed", [False, True], ids=["by the model", "typed"])
@pytest.mark.parametrize("text", LOSING.values(), ids=LOSING)
def test_no_word_is_lost(page: Any, shown: Any, text: str, is_typed: bool) -> None:
    written = page().piece(Prose(text, is_typed))
    assert words(as_shown(text)) - shown(written) == Counter()


_WORD = st.sampled_from(["alpha", "beta1", "x", "42", "\u00e4\u00df", "\u6f22\u5b57", "b_c"])
_PIECES = st.sampled_from(
    [
        *("\n", "\n\n", "    ", "\t", "> ", ">", "- ", "1. ", "7) ", "* ", "+ ", "  ", "  \n"),
        *(
            "```",
            "~~~",
            "`",
            "``",
            "|",
            "\\",
            "\\\n",
            "|---|\n",
            "---\n",
            "===\n",
            "# ",
            "#",
            " #\n",
        ),
        *("<", ">", "</", "<!--", "-->", "<!", "<?", "<![CDATA[", "<b>", "<div>\n", "<a href=x>"),
        *("&copy;", "&#60;", "&lt;", "&", "&#0;", "[", "]", "(", ")", "![", "](", "](http://a/w "),
        *("]: http://a/b 'c'\n", "[x]", "[^1]", "[^1]: ", "<http://a/x>", "'t')", '"', "'"),
        *("**", "*", "_", "__", "~~", "$$", "{", "}", "\u200b", "\u202e", "\0", "\ud83d", "\r"),
        *("> > > > > > > > > > > ", "- - - - - - - - - - - - ", "        ", "\u2028", "\x0c"),
    ]
)
MARKDOWN = st.lists(st.one_of(_WORD, _WORD, _PIECES), max_size=24).map("".join)


@pytest.mark.parametrize("tries", [50, pytest.param(1000, marks=pytest.mark.soak)])
def test_the_words_of_any_text_are_the_words_of_the_page(tries: int) -> None:
    @given(MARKDOWN)
    @example("- a\n  [x]: http://a/b\n")
    @example("[x]: http://a/b 'c\nd'\ne")
    @example("> [x]: http://a/b\n\n[x]")
    @settings(max_examples=tries)
    def check(text: str) -> None:
        expected = words(as_shown(text))
        for _, page, shown in FORMS:
            for is_typed in (False, True):
                written = page().piece(Prose(text, is_typed))
                assert expected - shown(written) == Counter(), written
                # Nor is there any other.
                assert shown is not html_words or shown(written).keys() <= expected.keys(), written

    check()


@given(MARKDOWN)
@settings(max_examples=100)
def test_what_a_person_typed_keeps_characters_and_lines(text: str) -> None:
    kept = as_shown(text.replace("\r\n", "\n")).translate(
        {code: 0x2400 + code for code in range(32) if code not in b"\t\n"} | {0x2028: 0x2424}
    )
    if not kept.strip():
        return
    texts = _Texts()
    texts.feed(HtmlPage().piece(Prose(text, is_typed=True)))
    assert "".join(texts.shown) == f"{kept}\n"
    read = MarkdownIt("commonmark").parse(MarkdownPage().piece(Prose(text, is_typed=True)))
    shown = [t.content for t in read if t.type in ("fence", "inline")]
    assert "\n\n".join(shown).strip("\n") == kept.strip("\n")


def test_typed_lines_are_lines() -> None:
    text = "def f(*args):\n    return __init__\n# not a heading\n1. one\n\n\nend"
    assert text in HtmlPage().piece(Prose(text, is_typed=True))
    assert MarkdownPage().piece(Prose(text, is_typed=True)) == (
        "> ```\n"
        + "".join(f"> {line}\n" if line else ">\n" for line in text.split("\n"))
        + "> ```\n\n"
    )
    # What Markdown would take for nothing else stays as easy to read.
    assert MarkdownPage().piece(Prose("Hello, you!\n\nBye.", is_typed=True)) == (
        "> Hello, you!\n>\n> Bye.\n\n"
    )


def test_one_block_that_loses_words_costs_the_others_nothing() -> None:
    text = "**bold** text\n\n| a |\n|---|\n| b | lost |\n\n- item `code`"
    shown = HtmlPage().piece(Prose(text))
    assert "<strong>bold</strong>" in shown
    assert '<pre class="written" tabindex="0">| a |' in shown
    assert "<code>code</code>" in shown
    assert MarkdownPage().piece(Prose(text)) == (
        "> **bold** text\n>\n> ```\n> | a |\n> |---|\n> | b | lost |\n> ```\n>\n> - item `code`\n\n"
    )


def test_no_image_is_loaded_and_its_address_is_there() -> None:
    text = "![The plan](https://images.example/plan_b.png)"
    html = HtmlPage().piece(Prose(text))
    assert "<img" not in html
    assert "https://images.example/plan_b.png)" in html
    tokens = MarkdownIt("commonmark").parse(MarkdownPage().piece(Prose(text)))
    assert not [c for token in tokens for c in token.children or () if c.type == "image"]


@pytest.mark.parametrize("page", [HtmlPage, MarkdownPage])
@pytest.mark.parametrize("length", [201, 5_000, 150_000])
def test_no_length_is_cut(page: Any, length: int) -> None:
    text = " ".join(f"w{n}" for n in range(length // 5))
    made = page()
    for piece in (Prose(text), Prose(text, is_typed=True), Note(text), Output(text, text)):
        assert words(text) - words(made.piece(piece)) == Counter()
    assert words(text) - words(made.head(text, {"Session": text})) == Counter()
    assert words(text) - words(made.subagent(text)) == Counter()


TOOLS: list[dict[str, Any]] = [
    {
        "type": "tool_use",
        "id": "1",
        "name": "Bash",
        "input": {"command": "ls\npwd", "description": "Lists it", "timeout": 977},
    },
    {
        "type": "tool_use",
        "id": "2",
        "name": "Write",
        "input": {"file_path": "/a.py", "content": "import os\nprint\tit\r\n\u0007bell\\nliteral"},
    },
    {
        "type": "tool_use",
        "id": "3",
        "name": "TodoWrite",
        "input": {"todos": [{"content": "first\nthing", "status": "pending"}]},
    },
    {
        "type": "tool_use",
        "id": "4",
        "name": "Edit",
        "input": {"old_string": "- old\n+ new", "new_string": "b"},
    },
    {"type": "tool_use", "id": "5", "name": "Bash", "input": {"command": ["not", "text"]}},
    {"type": "thinking", "thinking": "deep\nthought <b>bold</b> __all__"},
    {
        "type": "text",
        "text": "cited",
        "citations": [{"url": "https://cited.example", "cited_text": "quoted words"}],
    },
    {
        "type": "document",
        "title": "Doc title",
        "context": "Its context",
        "source": {"type": "text", "media_type": "text/plain", "data": "document\nbody"},
    },
    {"type": "image", "source": {"type": "url", "url": "https://images.example/one.png"}},
    {
        "type": "search_result",
        "source": "https://found.example",
        "title": "Found",
        "content": [{"type": "text", "text": "passage"}],
    },
    {"type": "compaction", "content": "summed up"},
    {"type": "unheard_of", "says": "something\nnew"},
]


def spoken(value: Any) -> list[str]:
    """All texts of some JSON, but for what is said in other words."""
    if isinstance(value, dict):
        return [
            t
            for name, each in value.items()
            if name not in ("type", "id", "tool_use_id", "role")
            for t in spoken(each)
        ]
    if isinstance(value, list):
        return [text for each in value for text in spoken(each)]
    return [str(value)]


@pytest.mark.parametrize("form", ["html", "markdown"])
async def test_what_tools_were_given_and_returned_is_there(
    store: BeanieSessionStore, tmp_path: Path, form: Any
) -> None:
    blocks = [block for block in TOOLS if block["type"] != "tool_use"]
    result = {
        "type": "tool_result",
        "tool_use_id": "1",
        "content": [*blocks, {"type": "text", "text": "last"}],
    }
    searched = {
        "type": "web_search_tool_result",
        "tool_use_id": "9",
        "content": [{"title": "A\nsearch"}],
    }
    long = " ".join(f"n{number}" for number in range(300))
    entries = [
        {"type": "custom-title", "customTitle": f"title {long}"},
        {"type": "summary", "summary": f"summary {long}"},
        {"type": "system", "uuid": "s", "content": f"system {long}"},
        {
            "type": "assistant",
            "uuid": "a",
            "message": {"role": "assistant", "content": [*TOOLS, searched]},
        },
        message(message={"role": "user", "content": [result]}),
        message(message={"role": "user", "content": "typed __init__.py\n  as it is"}),
    ]
    await store.append(KEY, entries)
    about = {"type": "agent_metadata", "agentType": "Explore", "description": long}
    await store.append(SUBAGENT, [about, message("# Asked")])
    await export_transcripts(store, tmp_path, format=form)
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    shown = (html_words if form == "html" else raw_words)(path.read_text("utf-8"))
    told = [entry.get("message", {}).get("content", "") for entry in entries]
    expected = words(
        "\n".join([*spoken(told), long, long, long, long, "title", "summary", "system"])
    )
    lost = expected - shown
    # A document's type is said in other words, a title that is cut in the listing is whole below.
    assert lost == Counter()


def test_show_prints_every_word_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    lines = TranscriptLines(is_full=True)
    pieces = Pieces()
    said = {
        "role": "assistant",
        "content": [*TOOLS, *({"type": "text", "text": t} for t in LOSING.values())],
    }
    entries = [
        {"type": "assistant", "uuid": "a", "message": said},
        message("\n".join(LOSING.values())),
    ]
    for entry in entries:
        for piece in pieces.of(json.loads(json.dumps(entry))):
            lines.write(0, piece)
    shown = words(capsys.readouterr().out)
    expected = words(as_shown("\n".join(spoken([entry["message"] for entry in entries]))))
    assert expected - shown == Counter()
