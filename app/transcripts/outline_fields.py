"""What is read of each entry for an outline of its session, as MongoDB projects it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

_PROMPT_CHARACTERS = 2_000
_TYPES = "$entry.message.content.type"
_IS_SAID: dict[str, Any] = {
    "$and": [
        {"$eq": ["$entry.type", "user"]},
        {"$not": [{"$in": ["tool_result", {"$cond": [{"$isArray": _TYPES}, _TYPES, []]}]}]},
    ]
}

_PATHS = {
    "type": "type",
    "subtype": "subtype",
    "uuid": "uuid",
    "parent": "parentUuid",
    "at": "timestamp",
    "aside": "isSidechain",
    "meta": "isMeta",
    "sums_up": "isCompactSummary",
    "hidden": "isVisibleInTranscriptOnly",
    "origin": "origin",
    "source": "promptSource",
    "response": "message.id",
    "model": "message.model",
    "usage": "message.usage",
    "stopped": "message.stop_reason",
    "details": "message.stop_details",
    "block": "apiBlockIndex",
    "names": "message.content.name",
    "calls": "message.content.id",
    "errors": "message.content.is_error",
    "results": "message.content.tool_use_id",
    "compacted": "compactMetadata",
    "agent": "toolUseResult.agentId",
    "run": "toolUseResult.runId",
    "folder": "toolUseResult.transcriptDir",
    "kind": "agentType",
    "task": "description",
    "call": "toolUseId",
}

OUTLINE_FIELDS: Final[dict[str, Any]] = {
    "_id": 0,
    "seq": 1,
    "subpath": 1,
    **{name: f"$entry.{path}" for name, path in _PATHS.items()},
    "said": {
        "$cond": [
            _IS_SAID,
            {
                "$cond": [
                    {"$eq": [{"$type": "$entry.message.content"}, "string"]},
                    {"$substrCP": ["$entry.message.content", 0, _PROMPT_CHARACTERS]},
                    {
                        "$map": {
                            "input": {
                                "$cond": [
                                    {"$isArray": "$entry.message.content"},
                                    "$entry.message.content",
                                    [],
                                ]
                            },
                            "as": "block",
                            "in": {
                                "type": "$$block.type",
                                "text": {
                                    "$cond": [
                                        {"$eq": [{"$type": "$$block.text"}, "string"]},
                                        {"$substrCP": ["$$block.text", 0, _PROMPT_CHARACTERS]},
                                        "",
                                    ]
                                },
                            },
                        }
                    },
                ]
            },
            "$$REMOVE",
        ]
    },
}


def outline_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The :data:`OUTLINE_FIELDS` of an entry that the server cannot look into."""
    found = {name: _at(entry, path.split(".")) for name, path in _PATHS.items()}
    row = {name: value for name, value in found.items() if value is not _MISSING}
    types = _at(entry, ["message", "content", "type"])
    if entry.get("type") == "user" and not (isinstance(types, list) and "tool_result" in types):
        content = _at(entry, ["message", "content"])
        if isinstance(content, str):
            row["said"] = content[:_PROMPT_CHARACTERS]
        else:
            blocks = cast("list[Any]", content) if isinstance(content, list) else []
            row["said"] = [_said_in(block) for block in blocks]
    return row


_MISSING = object()


def _at(value: Any, path: Sequence[str]) -> Any:
    """What stands at a path, as MongoDB finds it: of a list, what the objects in it have there."""
    for index, name in enumerate(path):
        if isinstance(value, list):
            members = cast("list[Any]", value)
            found = (_at(each, path[index:]) for each in members if isinstance(each, Mapping))
            return [each for each in found if each is not _MISSING]
        if not isinstance(value, Mapping) or name not in value:
            return _MISSING
        value = cast("Mapping[str, Any]", value)[name]
    return value


def _said_in(block: Any) -> dict[str, Any]:
    kind, text = _at(block, ["type"]), _at(block, ["text"])
    said: dict[str, Any] = {"text": text[:_PROMPT_CHARACTERS] if isinstance(text, str) else ""}
    return said if kind is _MISSING else {"type": kind, **said}
