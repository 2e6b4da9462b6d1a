"""Whatever a transcript holds, its pages are text: nothing of it becomes a part of them."""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.conversation import Conversation
from support.pages import MOUNT, pages_of, shape_of

from beanie_session_store import BeanieSessionStore

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "handler": '<img src=x onerror="alert(1)"><svg/onload=alert(1)>',
    "attribute": "\" onmouseover=alert(1) x='><script>alert(1)</script>",
    "link": "[x](javascript:alert(1)) <javascript:alert(1)> [y](JaVaScRiPt&colon;alert(1))",
    "data link": "[x](data:text/html;base64,PHNjcmlwdD4=) [y](vbscript:x) [z](//evil.example)",
    "image": "![pixel](http://evil.example/pixel.png)",
    "closing tags": "</pre></details></div></section></main></body></html><script>alert(1)</script>",
    "raw text tags": "<textarea><title><style><plaintext><noscript><xmp><iframe src=//evil>",
    "style": "<style>@import url(//evil.example)</style><link rel=stylesheet href=//evil>",
    "template": "{{ 7 * 7 }} {% include 'base.html' %} {{ links }} ${7*7} <%= 1 %>",
    "comment": "<!-- open comment",
    "entities": "&lt;script&gt;alert(1)&lt;/script&gt; &#60;script&#62;",
    "fence": '```"><script>alert(1)</script>\ncode\n```\n\n````html onload=x\n<b>\n````',
    "order": "\u202eevil\u202c \u2067evil\u2069 \u200f",
    "escapes": "\x1b]8;;http://evil.example\x07click\x1b[2J\x00",
    "half": "\ud83d <script>",
    "separators": "a\u2028# forged\u2029<script>\x0b\x0c\x85",
    "address": 'http://evil.example/"onmouseover="alert(1) <http://evil.example/?a>b="c">',
    "path": "../../../etc/passwd?x=#y&z=%00%2e%2e/",
}


def everywhere(text: str) -> dict[str, list[dict[str, Any]]]:
    """A session with a text in each place of which a page shows anything."""
    main = Conversation()
    main.entries += [
        {"type": "custom-title", "customTitle": text, "sessionId": "session"},
        {"type": "tag", "tag": text[:60]},
        {"type": text, "uuid": "odd", "x": text},
        {"type": "agent-name", "agentName": text},
    ]
    main.prompt(text, gitBranch=text, cwd=text)
    main.prompt(
        {"type": "text", "text": text},
        {"type": "image", "source": {"type": "base64", "media_type": text, "data": text}},
        {"type": "image", "source": {"type": "url", "media_type": text, "url": text}},
        {"type": "document", "title": text, "source": {"type": text, "data": text}},
        {
            "type": "image",
            "source": {
                "type": "base64",
                "media_type": "image/png",
                "data": base64.b64encode(text.encode("utf-8", "replace")).decode(),
            },
        },
        {"type": text, "text": text},
    )
    main.prompt(f"<system-reminder>{text}</system-reminder>", isMeta=True)
    main.prompt(text, isCompactSummary=True)
    said = main.say(
        {"type": "thinking", "thinking": text},
        {"type": "text", "text": text},
        {"type": "text", "text": f"# {text}\n\n- {text}\n\n> {text}\n\n```{text}\n{text}\n```"},
        {"type": "server_tool_use", "id": text, "name": text, "input": {text: text}},
        {"type": "web_search_tool_result", "tool_use_id": text, "content": text},
    )
    said["message"]["model"] = text
    filler = {"model": "<synthetic>", "content": [{"type": "text", "text": text}]}
    main.add("assistant", message=filler)
    main.add("assistant", isApiErrorMessage=True, message=filler)
    main.add("system", subtype=text, content=text)
    main.add("system", subtype=text)
    main.add("system", subtype="api_error", error={"message": text, "status": text})
    told = {"trigger": text, "preTokens": 5}
    main.add("system", subtype="compact_boundary", compactMetadata=told)
    main.add("attachment", attachment={"type": text, "x": text}, rendered=[{"content": text}])
    patch = {"oldStart": 1, "newStart": 1, "lines": [f"-{text}", f"+{text}!", f" {text}"]}
    calls: list[tuple[str, dict[str, Any], Any]] = [
        ("Bash", {"command": text, "description": text}, None),
        ("BashOutput", {"bash_id": text}, {"status": text}),
        ("Read", {"file_path": text, "pages": text}, None),
        ("Edit", {"file_path": text, "old_string": text, "new_string": f"{text}?"}, None),
        ("Edit", {"file_path": text}, {"structuredPatch": [patch]}),
        ("MultiEdit", {"file_path": text, "edits": [{"old_string": text, "new_string": ""}]}, None),
        ("Write", {"file_path": text, "content": text}, {"type": text}),
        ("NotebookEdit", {"notebook_path": text, "cell_id": text, "new_source": text}, None),
        ("Grep", {"pattern": text, "path": text, "glob": text}, {"mode": text}),
        ("Glob", {"pattern": text}, None),
        ("Task", {"subagent_type": text, "description": text, "prompt": text}, {"agentId": "a1"}),
        ("TodoWrite", {"todos": [{"content": text, "status": text}]}, None),
        ("WebFetch", {"url": text, "prompt": text}, None),
        ("WebSearch", {"query": text}, {"results": [{"content": [text]}]}),
        ("AskUserQuestion", {"questions": [{"question": text}]}, {"answers": {text: text}}),
        ("ExitPlanMode", {"plan": text}, None),
        ("Skill", {"skill": text}, None),
        ("SlashCommand", {"command": text}, None),
        (f"mcp__{text}__{text}", {text: text}, None),
        (text, {text: text, "other": [text]}, text),
    ]
    for name, arguments, structured in calls:
        main.call(name, arguments, text, structured=structured)
        main.call(name, arguments, [{"type": "text", "text": text}], is_error=True)
    agent = Conversation("a1")
    agent.entries.append(
        {"type": "agent_metadata", "agentType": text, "description": text, "toolUseId": text}
    )
    agent.prompt(text)
    agent.text(text)
    odd = Conversation("odd")
    odd.text(text)
    return {"": main.entries, "subagents/agent-a1": agent.entries, "subagents/odd": odd.entries}


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
            links = {each for each in re.findall(r'href="(/team/sessions/s/[^"]+)"', listed.text)}
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
