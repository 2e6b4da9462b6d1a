"""Whatever a transcript holds, its pages are text: nothing of it becomes a part of them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from support.conversation import Conversation
from support.hostile import HOSTILE, everywhere
from support.pages import MOUNT, pages_of, shape_of

from beanie_session_store import BeanieSessionStore


async def pages_with(text: str, store: BeanieSessionStore) -> dict[str, str]:
    """All pages of such a session."""
    key = {"project_key": "-srv", "session_id": "session"}
    for subpath, entries in everywhere(text).items():
        await store.append({**key, "subpath": subpath} if subpath else key, entries)
    page = "/s/-srv/session"
    words = text.encode("utf-8", "replace").decode().split("\n")[0][:150]
    paths = ["?from=1", "?in=agent-a1", "?in=odd"]
    async with pages_of(store, who="user_id", actor=words) as client:
        found = {path: await client.get(page + path) for path in paths}
        found["find"] = await client.get(page, params={"find": words, "hit": "1"})
        for seq in (6, 10):
            found[f"e/{seq}"] = await client.get(f"{page}/e/{seq}")
        for path, answer in found.items():
            assert answer.status_code in (200, 303), path
            assert "could not be shown" not in answer.text, path
    return {path: answer.text for path, answer in found.items()}


ALLOWED = {
    *("class", "id", "href", "src", "alt", "width", "height", "loading", "rel", "type", "lang"),
    *("name", "content", "charset", "defer", "media", "datetime", "data-form", "tabindex", "dir"),
    *("aria-label", "aria-labelledby", "aria-hidden", "aria-current", "role", "download", "open"),
    *("for", "value", "maxlength", "autocomplete", "placeholder", "action", "method", "selected"),
    *("popover", "popovertarget", "popovertargetaction", "checked", "scope", "start", "focusable"),
    *("viewbox", "d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "fill", "stroke-width"),
    *("patternunits", "patterntransform", "data-seam", "data-window", "data-window-from", "hidden"),
    *("data-seam-html", "data-live", "data-position", "data-end", "data-live-end", "data-step"),
}
TAGS = {
    *("html", "head", "meta", "title", "link", "script", "body", "a", "header", "nav", "span"),
    *("button", "kbd", "main", "div", "p", "h1", "h2", "h3", "h4", "h5", "h6", "small", "dl"),
    *("dt", "dd", "details", "summary", "ol", "ul", "li", "form", "label", "input", "select"),
    *("option", "section", "b", "strong", "em", "code", "pre", "bdi", "time", "figure", "img"),
    *("figcaption", "svg", "rect", "line", "defs", "pattern", "path", "circle", "footer", "br"),
    *("blockquote", "hr", "table", "thead", "tbody", "tr", "th", "td", "s", "del", "ins", "i"),
    *("mark", "text"),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_no_text_becomes_a_part_of_a_page(store: BeanieSessionStore, kind: str) -> None:
    for path, html in (await pages_with(HOSTILE[kind], store)).items():
        scripts = re.findall(r"<script[^>]*>", html)
        ours = re.compile(rf'<script src="{MOUNT}/static/\w+/\w+\.js" defer>')
        assert all(map(ours.fullmatch, scripts)), (path, scripts)
        for tag in shape_of(html):
            if isinstance(tag, tuple):
                assert tag[0] in TAGS, (path, tag)
                odd = set(tag[1]) - ALLOWED
                assert not odd, (path, tag)
        for address in re.findall(r'\s(?:href|src|action)="([^"]*)"', html):
            parts = urlsplit(address)
            is_ours = not parts.scheme and not parts.netloc and address[:1] in "/#?"
            assert is_ours or parts.scheme in ("http", "https", "mailto"), (path, address)
        assert not re.findall(r'<(?:img|script|link)[^>]*(?:src|href)="(?!/team)', html), path
        assert 'style="' not in html
        for turning in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069":
            assert turning not in html, path
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", html), path


async def test_a_name_of_a_session_reaches_no_other_place(store: BeanieSessionStore) -> None:
    talk = Conversation()
    talk.prompt("said in it")
    names = ["..", ".", "a/b", "<script>", '"onload="x', "a?b#c", "\u202ex", "x" * 900, "~x"]
    async with pages_of(store) as client:
        for name in names:
            key = {"project_key": name, "session_id": name}
            await store.append(key, talk.entries)
            listed = await client.get("/", params={"project": name})
            links = set(re.findall(r'href="(/team/sessions/s/[^"]+)"', listed.text))
            assert len(links) == 1, name
            answer = await client.get(links.pop().removeprefix(MOUNT))
            assert answer.status_code == 200, name
            assert "said in it" in answer.text
            download = re.search(r'href="([^"]+export\.jsonl)"', answer.text)
            assert download is not None
            file = await client.get(download[1].removeprefix(MOUNT))
            header = file.headers["content-disposition"]
            assert re.fullmatch(
                r"attachment; filename=\"[\w.-]+\"; filename\*=UTF-8''[\w.%~-]+", header
            ), header
