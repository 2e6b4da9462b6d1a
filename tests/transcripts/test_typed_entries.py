"""Typed views open everything the agent writes, and change nothing of it."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import datetime, timezone
from functools import cached_property, reduce
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from beanie_session_store.models.views.base import EntryView, UnknownEntry
from beanie_session_store.models.views.blocks import (
    KNOWN_BLOCKS,
    ImageBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    UnknownBlock,
)
from beanie_session_store.models.views.messages import AssistantEntry, UserEntry
from beanie_session_store.models.views.parsing import KNOWN_KINDS, parse_entry, unmodelled
from beanie_session_store.models.views.records import CostStateEntry, OtherRecord
from beanie_session_store.models.views.system import CompactBoundaryEntry, SystemEntry

LINKS = {
    "parentUuid": "u0",
    "isSidechain": False,
    "userType": "external",
    "entrypoint": "sdk-py",
    "cwd": "/srv/app",
    "sessionId": "s1",
    "version": "2.1.330",
    "gitBranch": "main",
    "uuid": "u1",
    "timestamp": "2026-11-23T17:53:58.021Z",
}
USAGE = {
    "input_tokens": 11,
    "cache_creation_input_tokens": 100,
    "cache_read_input_tokens": 1000,
    "output_tokens": 51,
    "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
    "service_tier": "standard",
    "cache_creation": {"ephemeral_1h_input_tokens": 40, "ephemeral_5m_input_tokens": 60},
    "speed": "standard",
}
MODEL_USAGE = {
    "inputTokens": 98,
    "outputTokens": 378,
    "thinkingTokens": 0,
    "cacheReadInputTokens": 28000,
    "cacheCreationInputTokens": 2800,
    "cacheCreationEphemeral5mInputTokens": 1680,
    "cacheCreationEphemeral1hInputTokens": 1120,
    "webSearchRequests": 0,
    "costUSD": 0.030912,
}
RESULT = {
    "tool_use_id": "toolu_1",
    "type": "tool_result",
    "content": [{"type": "text", "text": "file"}, {"type": "image", "source": {"type": "base64"}}],
    "is_error": True,
}

# What an agent wrote, shortened; what it wrote nowhere in our runs, by the names in its program.
WRITTEN: list[dict[str, Any]] = [
    {
        **LINKS,
        "type": "user",
        "message": {"role": "user", "content": "do things"},
        "promptId": "p1",
        "permissionMode": "bypassPermissions",
        "promptSource": "sdk",
        "turnOrigin": "sdk",
        "turnPosition": {"promptIndex": 0, "turnIndex": 1},
    },
    {
        **LINKS,
        "type": "user",
        "message": {"role": "user", "content": [RESULT]},
        "toolUseResult": {"stdout": "again", "stderr": "", "interrupted": False},
        "sourceToolAssistantUUID": "u0",
        "permissionDecision": {"decision": "accept", "source": "config"},
    },
    {
        **LINKS,
        "type": "user",
        "message": {"role": "user", "content": "<task-notification>"},
        "origin": {"kind": "task-notification", "producer": "session-task"},
    },
    {
        **LINKS,
        "type": "assistant",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-opus-5-5",
            "content": [
                {"type": "tool_use", "name": "Bash", "input": {"command": "ls"}, "id": "t"}
            ],
            "stop_reason": "tool_use",
            "stop_sequence": None,
            "usage": USAGE,
        },
        "apiBlockIndex": 0,
        "requestId": "req_1",
        "requestedModel": "claude-opus-5-5",
        "effort": "medium",
    },
    {
        **LINKS,
        "type": "attachment",
        "attachment": {"type": "date", "date": "2026-11-23"},
        "rendered": [{"content": "today"}],
        "renderedRole": "system",
    },
    {**LINKS, "type": "progress", "toolUseID": "t", "data": {"type": "hook_progress"}},
    {
        **LINKS,
        "parentUuid": None,
        "logicalParentUuid": "u0",
        "type": "system",
        "subtype": "compact_boundary",
        "content": "Conversation compacted",
        "isMeta": False,
        "level": "info",
        "compactMetadata": {"trigger": "manual", "preTokens": 1162, "durationMs": 177},
    },
    {
        **LINKS,
        "type": "system",
        "subtype": "api_error",
        "level": "error",
        "error": {"message": "529", "status": 529},
        "retryInMs": 622.5,
        "retryAttempt": 1,
        "maxRetries": 10,
        "source": "request_retry",
    },
    {
        **LINKS,
        "type": "system",
        "subtype": "local_command",
        "content": "<local-command-stdout>",
        "commandRun": {"command": "usage", "args": ""},
    },
    {
        **LINKS,
        "type": "system",
        "subtype": "stop_hook_summary",
        "hookCount": 1,
        "hookInfos": [{"command": "exit 1", "durationMs": 116}],
        "hookErrors": ["Failed"],
        "preventedContinuation": False,
        "stopReason": "",
        "hasOutput": True,
        "toolUseID": "t",
    },
    {**LINKS, "type": "system", "subtype": "turn_duration", "durationMs": 12, "messageCount": 2},
    {
        **LINKS,
        "type": "system",
        "subtype": "model_fallback",
        "trigger": "overloaded",
        "originalModel": "a",
        "fallbackModel": "b",
    },
    {**LINKS, "type": "system", "subtype": "scheduled_task_fire", "taskId": "1", "cron": "* * *"},
    {**LINKS, "type": "system", "subtype": "memory_saved", "writtenPaths": ["/m"]},
    {**LINKS, "type": "system", "subtype": "informational", "content": "hello", "level": "info"},
    {"type": "queue-operation", "operation": "enqueue", "timestamp": LINKS["timestamp"]},
    {"type": "agent_metadata", "agentType": "x", "toolUseId": "t", "spawnDepth": 1, "model": "m"},
    {
        "type": "cost-state",
        "sessionId": "s1",
        "totalCostUSD": 0,
        "totalAPIDuration": 818,
        "totalAPIDurationWithoutRetries": 699,
        "totalToolDuration": 216,
        "totalLinesAdded": 2,
        "totalLinesRemoved": 1,
        "totalDuration": 3860,
        "startTime": 1795456436042,
        "modelUsage": {"claude-opus-5-5": MODEL_USAGE},
        "hasUnknownModelCost": False,
    },
    {"type": "custom-title", "customTitle": "Mine", "sessionId": "s1"},
    {"type": "ai-title", "aiTitle": "Its", "sessionId": "s1"},
    {"type": "tag", "tag": "t", "sessionId": "s1"},
    {"type": "summary", "summary": "All", "leafUuid": "u1"},
    {"type": "last-prompt", "lastPrompt": "do", "leafUuid": "u1", "explicit": True},
    {"type": "mode", "mode": "normal", "sessionId": "s1"},
    {"type": "permission-mode", "permissionMode": "plan", "sessionId": "s1"},
    {"type": "tools-used", "tools": ["Bash"], "sessionId": "s1"},
    {"type": "atis-latch", "atis": "x", "sessionId": "s1"},
    {"type": "agent-name", "agentName": "n", "sessionId": "s1"},
    {"type": "agent-color", "agentColor": "red", "sessionId": "s1"},
    {"type": "agent-setting", "agentSetting": "helper", "sessionId": "s1"},
    {"type": "pr-link", "prNumber": 1, "prUrl": "https://x", "prRepository": "a/b"},
    {"type": "frame-link", "path": "/a", "frameUrl": "https://x", "artifactCount": 1},
    {"type": "relocated", "relocatedCwd": "/b", "sessionId": "s1"},
    {"type": "worktree-state", "worktreeSession": {"worktreePath": "/w"}, "sessionId": "s1"},
    {"type": "continued-in", "continuedInSessionId": "s2", "sessionId": "s1"},
    {"type": "file-history-snapshot", "messageId": "u1", "snapshot": {"a": 1}},
    {"type": "file-history-delta", "messageId": "u1", "trackingPath": "/a", "backup": {"v": 1}},
    {"type": "content-replacement", "sessionId": "s1", "replacements": [{"a": 1}]},
    {"type": "api-request", "id": "r", "shapeHash": "h", "params": {"model": "m"}, "keep": 1},
    {"type": "api-request-shape", "shapeHash": "h", "shape": {"system": []}},
    {"type": "api-request-blob", "hash": "h", "message": {"role": "user"}},
    {"type": "api-request-resumed", "messageId": "m", "pausedRequestId": "a"},
    *(
        {"type": kind, "sessionId": "s1", "v": 1}
        for kind in sorted(OtherRecord.model_json_schema()["properties"]["type"]["enum"])
    ),
]


def test_there_is_an_example_of_every_kind() -> None:
    assert {entry["type"] for entry in WRITTEN} == KNOWN_KINDS


@pytest.mark.parametrize(
    "entry", WRITTEN, ids=lambda e: "/".join([e["type"], e.get("subtype", "")])
)
def test_every_kind_is_read_by_attributes_and_comes_back_as_it_was_written(
    entry: dict[str, Any],
) -> None:
    before = copy.deepcopy(entry)
    view = parse_entry(entry)
    assert not isinstance(view, UnknownEntry)
    assert view.type == entry["type"]
    assert view.odd_fields == ()
    for name, field in type(view).model_fields.items():
        spelling = field.alias or name
        value = getattr(view, name)
        if isinstance(entry.get(spelling), str | bool | int | float) and spelling != "timestamp":
            assert value == entry[spelling], spelling
    assert view.raw is entry
    assert view.model_dump() == entry == before
    assert json.loads(view.model_dump_json()) == entry
    assert unmodelled([entry]) == {}


def test_attributes_are_typed() -> None:
    user, result, notice, assistant = (parse_entry(entry) for entry in WRITTEN[:4])
    assert isinstance(user, UserEntry)
    assert user.timestamp == datetime(2026, 11, 23, 17, 53, 58, 21000, timezone.utc)
    assert user.blocks == [TextBlock(text="do things")]
    assert user.is_prompt
    assert isinstance(result, UserEntry)
    (block,) = result.tool_results
    assert isinstance(block, ToolResultBlock)
    assert (block.text, block.is_error) == ("file", True)
    assert isinstance(block.content[1], ImageBlock)
    assert not result.is_prompt
    assert isinstance(notice, UserEntry)
    assert not notice.is_prompt
    assert isinstance(assistant, AssistantEntry)
    (call,) = assistant.blocks
    assert isinstance(call, ToolUseBlock)
    assert call.input == {"command": "ls"}
    assert assistant.message is not None
    assert assistant.message.usage is not None
    assert assistant.message.usage.cache_creation is not None
    assert assistant.message.usage.cache_creation.ephemeral_5m_input_tokens == 60
    assert assistant.message.usage.model_extra == {"speed": "standard"}
    cost = parse_entry(next(e for e in WRITTEN if e["type"] == "cost-state"))
    assert isinstance(cost, CostStateEntry)
    assert cost.model_usage["claude-opus-5-5"].cost_usd == 0.030912


@pytest.mark.parametrize(
    ("fields", "is_prompt"),
    [
        ({}, True),
        ({"origin": {"kind": "human"}}, True),
        ({"message": {"content": "<command-name>/compact</command-name>"}}, True),
        ({"isMeta": True}, False),
        ({"isCompactSummary": True}, False),
        ({"origin": {"kind": "peer"}}, False),
        ({"message": {"content": [RESULT]}}, False),
        ({"message": {"content": "<local-command-stdout>done</local-command-stdout>"}}, False),
        (
            {"message": {"content": [{"type": "text", "text": "[Request interrupted by user]"}]}},
            False,
        ),
    ],
)
def test_a_prompt_is_what_a_person_said(fields: dict[str, Any], is_prompt: bool) -> None:
    view = parse_entry({"type": "user", "message": {"content": "hello"}, **fields})
    assert isinstance(view, UserEntry)
    assert view.is_prompt is is_prompt


def test_an_unknown_kind_says_why_it_is_unknown() -> None:
    for kind, named in (("novelty", "'novelty'"), (7, "7"), (None, "None"), (["a"], "['a']")):
        view = parse_entry({"type": kind, "uuid": "u1", "parentUuid": "u0", "news": [1]})
        assert isinstance(view, UnknownEntry)
        assert named in view.reason
        assert (view.uuid, view.parent_uuid, view.raw["news"]) == ("u1", "u0", [1])
    assert isinstance(parse_entry({}), UnknownEntry)


def test_an_unknown_subtype_is_a_system_entry() -> None:
    view = parse_entry({"type": "system", "subtype": "novelty", "content": "x"})
    assert type(view) is SystemEntry
    assert (view.subtype, view.content) == ("novelty", "x")
    assert isinstance(parse_entry({"type": "system", "subtype": ["x"]}), SystemEntry)


def test_a_field_of_another_type_is_named_and_leaves_the_others_alone() -> None:
    entry = {
        **WRITTEN[6],
        "compactMetadata": {"preTokens": "many", "trigger": "auto"},
        "isMeta": "yes",
        "cwd": 3,
        "timestamp": "yesterday",
    }
    assert parse_entry({"type": "user", "message": "odd"}).odd_fields == ("message",)
    view = parse_entry(entry)
    assert isinstance(view, CompactBoundaryEntry)
    assert set(view.odd_fields) == {"isMeta", "cwd", "timestamp"}
    assert (view.cwd, view.is_meta, view.timestamp) == (None, False, None)
    assert view.compact_metadata is not None
    assert (view.compact_metadata.pre_tokens, view.compact_metadata.trigger) == (None, "auto")
    assert view.logical_parent_uuid == "u0"


def test_an_unknown_block_is_kept_between_known_ones() -> None:
    odd = [{"type": "novelty", "a": 1}, 7, None, {"type": ["x"]}, {"\ud83d": 1}]
    content = [{"type": "text", "text": "a"}, *odd, {"type": "text", "text": "b", "new": 1}]
    view = parse_entry({"type": "assistant", "message": {"content": content}})
    assert isinstance(view, AssistantEntry)
    first, *unknown, last = view.blocks
    assert [block.value for block in unknown if isinstance(block, UnknownBlock)] == odd
    assert unknown[0].type == "novelty"
    assert last.model_extra == {"new": 1}
    assert view.text == "a\nb"
    assert isinstance(first, TextBlock)


def test_what_has_no_view_is_counted() -> None:
    result = {"type": "tool_result", "content": [{"type": "odd"}, {"type": "text"}]}
    entries: list[dict[str, Any]] = [
        {"type": "novelty"},
        {"type": "novelty"},
        {"type": 7},
        {"type": "system", "subtype": "new"},
        {"type": "user", "message": {"content": [result, {"type": "odd"}, 3]}},
        {"type": "assistant", "message": {"content": "text"}},
        {"type": "user", "message": None},
        *WRITTEN,
    ]
    assert unmodelled(entries) == {
        "novelty": 2,
        "7": 1,
        "system/new": 1,
        "block/odd": 2,
        "block/None": 1,
    }


def test_views_are_values() -> None:
    view = parse_entry(WRITTEN[3])
    assert view == parse_entry(copy.deepcopy(WRITTEN[3]))
    assert view != parse_entry({**WRITTEN[3], "unknown": 1})
    assert pickle.loads(pickle.dumps(view)) == copy.deepcopy(view) == view
    with pytest.raises(ValidationError, match="frozen"):
        view.uuid = "other"  # pyright: ignore
    assert AssistantEntry.model_validate(WRITTEN[3]).raw == WRITTEN[3]


def test_text_cut_inside_a_character_and_deep_nesting_are_read() -> None:
    deep: Any = reduce(
        lambda inner, _: [{"type": "tool_result", "content": inner}], range(400), "x"
    )
    view = parse_entry({"type": "user", "cwd": "\ud83d", "\udc00": 1, "message": {"content": deep}})
    assert isinstance(view, UserEntry)
    assert view.cwd == "\ud83d"
    assert view.raw["message"]["content"] == deep


# Whatever json.loads can return is read, under known names above all

_TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=5)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXTS
_NAMES = sorted(
    {
        field.alias or name
        for entry in WRITTEN
        for name, field in type(parse_entry(entry)).model_fields.items()
    }
    | {
        "message",
        "attachment",
        "content",
        "role",
        "id",
        "usage",
        "input_tokens",
        "text",
        "tool_use_id",
        "input",
        "name",
    }
)
_SUBTYPES = sorted({entry.get("subtype", "") for entry in WRITTEN})
_TYPES = st.sampled_from(sorted(KNOWN_KINDS | KNOWN_BLOCKS))
_JSON = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_NAMES) | _TEXTS, inner, max_size=4)
        | st.builds(
            lambda kind, rest: {**rest, "type": kind},
            _TYPES,
            st.fixed_dictionaries(
                {}, optional={"content": inner, "source": inner, "input": inner, "text": inner}
            ),
        )
    ),
    max_leaves=12,
)
_ENTRIES = st.builds(
    lambda kind, subtype, rest: {**rest, "type": kind, "subtype": subtype},
    st.sampled_from(["user", "assistant", "system", *sorted(KNOWN_KINDS)]),
    st.sampled_from(_SUBTYPES) | _LEAVES,
    st.dictionaries(st.sampled_from(_NAMES) | _TEXTS, _JSON, max_size=8),
)


@given(_ENTRIES)
@example({"type": "user", "message": {"content": [{"type": "image", "source": 3}], "usage": []}})
@example({"type": "assistant", "timestamp": "2026-01-01T00:00:00", "message": {"\ud83d": 1}})
@example({"type": "cost-state", "modelUsage": [], "startTime": 10**400})
def test_no_json_of_a_known_kind_is_refused(entry: dict[str, Any]) -> None:
    before = copy.deepcopy(entry)
    view = parse_entry(entry)
    assert isinstance(view, EntryView)
    assert view.raw == view.model_dump() == entry == before
    read_all(view)
    unmodelled([entry])


def read_all(view: EntryView) -> None:
    """Every attribute and property of a view, none of which may fail."""
    properties = (
        n
        for kind in type(view).__mro__
        for n, v in vars(kind).items()
        if isinstance(v, property | cached_property)
    )
    for name in [*type(view).model_fields, *properties]:
        if not name.startswith(("__", "model_")):
            getattr(view, name)
    repr(view)
