"""A session with something of everything that a page of one shows."""

from __future__ import annotations

import base64
import struct
import zlib
from datetime import datetime, timedelta, timezone
from typing import Any

Entry = dict[str, Any]

BEGIN = datetime(2026, 11, 24, 9, 2, 11, tzinfo=timezone.utc)
MODEL = "claude-opus-4-5"


def png(width: int = 96, height: int = 48) -> str:
    """A picture, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    row = b"\0" + b"\x2a\x8f\xa0" * width
    parts = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(row * height)),
        chunk(b"IEND", b""),
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()


class Conversation:
    """Writes entries one after the other, as the agent links them."""

    def __init__(self, name: str = "main", *, at: datetime = BEGIN, step: float = 7) -> None:
        self.entries: list[Entry] = []
        self.last: str | None = None
        self._name = name
        self._at = at
        self._step = timedelta(seconds=step)
        self._number = 0

    def add(self, kind: str, **fields: Any) -> Entry:
        """One more entry, behind the last."""
        self._number += 1
        self._at += self._step
        entry: Entry = {
            "type": kind,
            "uuid": f"{self._name}-{self._number}",
            "parentUuid": self.last,
            "timestamp": f"{self._at:%Y-%m-%dT%H:%M:%S}.000Z",
            "sessionId": "session",
            "cwd": "/srv/shop",
            "gitBranch": "fix/double-charge",
            "isSidechain": self._name != "main",
            **fields,
        }
        self.entries.append(entry)
        self.last = entry["uuid"]
        return entry

    def prompt(self, *content: Any, **fields: Any) -> Entry:
        """What a person asks: one text, or blocks."""
        said = content[0] if len(content) == 1 and isinstance(content[0], str) else list(content)
        return self.add("user", message={"role": "user", "content": said}, **fields)

    def say(
        self, *blocks: Entry, tokens: tuple[int, int, int, int] = (9, 120, 400, 9_000)
    ) -> Entry:
        """A response of the model."""
        kinds = ("input", "output", "cache_creation_input", "cache_read_input")
        usage = {f"{kind}_tokens": count for kind, count in zip(kinds, tokens, strict=True)}
        message = {"id": f"msg-{self._name}-{self._number}", "role": "assistant", "model": MODEL}
        return self.add("assistant", message={**message, "content": list(blocks), "usage": usage})

    def text(self, text: str) -> Entry:
        """An answer."""
        return self.say({"type": "text", "text": text})

    def call(
        self,
        name: str,
        arguments: Entry,
        output: Any = None,
        *,
        structured: Any = None,
        is_error: bool = False,
        **fields: Any,
    ) -> str:
        """A call of a tool and, unless it is ``None``, what came back; the call's id."""
        ident = f"toolu-{self._name}-{self._number}"
        self.say({"type": "tool_use", "id": ident, "name": name, "input": arguments})
        if output is not None:
            result = {"type": "tool_result", "tool_use_id": ident, "content": output}
            result |= {"is_error": True} if is_error else {}
            told = {} if structured is None else {"toolUseResult": structured}
            self.prompt(result, **told, **fields)
        return ident


def shop(*, ended: bool = True) -> dict[str, list[Entry]]:
    """A session by subpath: tools of all kinds, failures, subagents, a branch, a compaction."""
    main = Conversation()
    main.entries.append({"type": "mode", "mode": "default", "sessionId": "session"})
    main.prompt("Some customers were charged twice.\nKeep `charge_order` as it is.")
    main.prompt("<system-reminder>2 files were opened in the editor</system-reminder>", isMeta=True)
    main.say({"type": "thinking", "thinking": "A timeout leaves it unknown. Let me look."})
    main.text("I look for how a charge is tried again.")
    main.call(
        "Grep",
        {"pattern": "GatewayTimeout", "path": "/srv/shop/shop", "glob": "*.py"},
        "Found 4 files\nshop/gateway.py:12",
        structured={"mode": "files_with_matches", "numFiles": 4, "filenames": []},
    )
    main.call(
        "Read",
        {"file_path": "/srv/shop/shop/gateway.py", "offset": 60, "limit": 61},
        "60\tdef charge(self, cents, card, *, idempotency=None):\n61\t    ...",
        structured={"type": "text", "file": {"numLines": 61, "startLine": 60}},
    )
    lines = "\n".join(f"line {number}" for number in range(30))
    main.call(
        "Bash",
        {"command": "pytest tests -q -x", "description": "Run the tests"},
        f"Exit code 1\n{lines}\nE the second call has no idempotency key\n1 failed, 2 passed",
        structured="Error: Exit code 1",
        is_error=True,
    )
    main.call(
        "TodoWrite",
        {
            "todos": [
                {"content": "Find out how", "status": "completed", "activeForm": "x"},
                {"content": "Write a test", "status": "in_progress", "activeForm": "x"},
                {"content": "Mend it", "status": "pending", "activeForm": "x"},
            ]
        },
        "Todos have been modified",
    )
    main.call(
        "mcp__ledger__find_charges", {"order": 88213, "day": "2026-11-24"}, '[{"cents": 4990}]'
    )
    main.call(
        "Edit",
        {
            "file_path": "/srv/shop/shop/charge.py",
            "old_string": "    return gateway.charge(order.total, order.card)",
            "new_string": "    key = idempotency_key(order)\n"
            "    return gateway.charge(order.total, key)",
        },
        "The file has been updated.",
        structured={
            "filePath": "/srv/shop/shop/charge.py",
            "structuredPatch": [
                {
                    "oldStart": 38,
                    "oldLines": 3,
                    "newStart": 38,
                    "newLines": 4,
                    "lines": [
                        " def charge_order(order, gateway):",
                        "-    return gateway.charge(order.total, order.card)",
                        "+    key = idempotency_key(order)",
                        "+    return gateway.charge(order.total, key)",
                        " ",
                    ],
                }
            ],
        },
    )
    review = main.call(
        "Task",
        {"subagent_type": "reviewer", "description": "Review the charge path", "prompt": "Review"},
        [{"type": "text", "text": "One way is left: actions.py:29 charges with a changed total."}],
        structured={
            "status": "completed",
            "agentId": "a1",
            "totalToolUseCount": 1,
            "totalTokens": 31_400,
            "totalDurationMs": 41_000,
        },
    )
    main.text(
        "Mended. On a timeout the job was tried again as a *new* charge.\n\n# What changed\n\n"
        "- `charge_order` sends an idempotency key\n\n| Case | Now |\n|---|---|\n| Timeout | once |"
        "\n\n```python\nkey = 1  # stable\n```\n\nSee [how](https://example.com/drain)."
    )
    back = main.last
    main.add("system", subtype="stop_hook_summary", hookCount=2, hookErrors=[])
    main.prompt("Rename the states while you are there.")
    main.call("Bash", {"command": "pytest tests/jobs -q"}, "14 failed", is_error=True)
    main.text("Renaming breaks 14 tests. I stop here.")
    main.last = back
    picture = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": png()},
    }
    drawn = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/svg+xml", "data": "PHN2Zz4="},
    }
    main.prompt({"type": "text", "text": "This is what support sees. Why?"}, picture, drawn)
    main.add(
        "system",
        subtype="api_error",
        error={"status": 529, "message": "Overloaded"},
        retryAttempt=2,
        maxRetries=10,
        retryInMs=4000,
    )
    main.call(
        "Bash",
        {"command": "docker compose run --rm sandbox"},
        "The user doesn't want to proceed with this tool use. The tool use was rejected.",
        is_error=True,
    )
    log = "\n".join(f"10:0{number % 10} charge {number}" for number in range(12_480))
    main.call("Bash", {"command": "make sandbox\necho done\necho more"}, log)
    main.call(
        "AskUserQuestion",
        {"questions": [{"question": "May admins charge again?", "options": []}]},
        "User has answered",
        structured={"answers": {"May admins charge again?": "Only with a second admin"}},
    )
    main.call("ExitPlanMode", {"plan": "# Second admin\n\n1. Ask\n2. Tell"}, "approved")
    main.call("WebSearch", {"query": "idempotency key reuse"}, "Links")
    main.call(
        "WebFetch",
        {"url": "https://docs.gateway.example/lookup", "prompt": "What does lookup answer?"},
        "settled",
        structured={"code": 200, "bytes": 41_000, "durationMs": 2100},
    )
    main.call(
        "Write",
        {"file_path": "/srv/shop/docs/x.md", "content": "a\nb\nc\n"},
        "ok",
        structured={"type": "create"},
    )
    main.call("FutureTool", {"what": "something new", "n": 1}, "done\nand done")
    main.last = None
    main.add(
        "system",
        subtype="compact_boundary",
        content="Conversation compacted",
        logicalParentUuid=main.entries[-1]["uuid"],
        compactMetadata={"trigger": "auto", "preTokens": 168_412, "postTokens": 21_306},
    )
    main.prompt(
        "This session is being continued from a previous conversation. Charges carry a key.",
        isCompactSummary=True,
    )
    main.prompt("Add the mail.")
    main.text("I use the template that exists.")
    main.entries.append({"type": "next-years-kind", "uuid": "odd", "what": "nobody knows"})
    if ended:
        main.text("Sent once.")
    else:
        main.call("Bash", {"command": "pytest tests/mail -q"})
    agent = Conversation("a1", at=BEGIN + timedelta(minutes=2))
    agent.entries.append(
        {
            "type": "agent_metadata",
            "agentType": "reviewer",
            "description": "Review the charge path",
            "toolUseId": review,
        }
    )
    agent.prompt("Review the diff of `charge.py`. Can it still be charged twice?")
    agent.call("Grep", {"pattern": "charge_order("}, "shop/actions.py:29")
    agent.text("One way is left: `actions.py:29` has no idempotency key.")
    return {"": main.entries, "subagents/agent-a1": agent.entries}
