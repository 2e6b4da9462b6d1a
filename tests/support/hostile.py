"""Transcripts that try to become a part of what shows them."""

from __future__ import annotations

import base64
from typing import Any

from support.conversation import Conversation

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "handler": '<img src=x onerror="alert(1)"><svg/onload=alert(1)>',
    "attribute": "\" onmouseover=alert(1) x='><script>alert(1)</script>",
    "link": "[x](javascript:alert(1)) <javascript:alert(1)> [y](JaVaScRiPt&colon;alert(1))",
    "data link": "[x](data:text/html;base64,PHNjcmlwdD4=) [y](vbscript:x) [z](//evil.example)",
    "image": "![pixel](http://evil.example/pixel.png)",
    "closing tags": "</pre></details></div></section></main></body></html>"
    "<script>alert(1)</script>",
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
