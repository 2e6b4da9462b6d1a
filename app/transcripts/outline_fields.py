"""What is read of each entry for an outline of its session, as MongoDB projects it."""

from __future__ import annotations

from typing import Any, Final

_PROMPT_CHARACTERS = 2_000
_TYPES = "$entry.message.content.type"
_IS_SAID: dict[str, Any] = {
    "$and": [
        {"$eq": ["$entry.type", "user"]},
        {"$not": [{"$in": ["tool_result", {"$cond": [{"$isArray": _TYPES}, _TYPES, []]}]}]},
    ]
}

OUTLINE_FIELDS: Final[dict[str, Any]] = {
    "_id": 0,
    "seq": 1,
    "subpath": 1,
    **{
        name: f"$entry.{path}"
        for name, path in {
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
        }.items()
    },
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
