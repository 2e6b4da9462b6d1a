"""What is read of entries for a glimpse of them, as MongoDB projects it."""

from __future__ import annotations

from typing import Any, Final, cast

from ..storage.values import CONTENT

WHOLE_BYTES: Final = 32 * 1024
"""Up to this size, as it is stored, an entry is read whole."""

CUT_CHARACTERS: Final = 4_000
"""Of each text of a larger one so much is read."""

_SMALL_PART_BYTES = 2 * 1024
_LEVELS = 7
_MEMBERS = 200


def _shrunk(value: str, levels: int) -> dict[str, Any]:
    """An expression for a value of which each text has no more than its beginning."""
    kind = {"$type": value}
    branches: list[dict[str, Any]] = [
        {
            "case": {"$eq": [kind, "string"]},
            "then": {"$substrCP": [value, 0, CUT_CHARACTERS]},
        },
        {
            "case": {"$lte": [{"$bsonSize": {"v": value}}, _SMALL_PART_BYTES]},
            "then": value,
        },
    ]
    if levels:
        each = f"v{levels}"
        branches += [
            {
                "case": {"$eq": [kind, "object"]},
                "then": {
                    "$arrayToObject": {
                        "$map": {
                            "input": {"$objectToArray": value},
                            "as": each,
                            "in": {"k": f"$${each}.k", "v": _shrunk(f"$${each}.v", levels - 1)},
                        }
                    }
                },
            },
            {
                "case": {"$eq": [kind, "array"]},
                "then": {
                    "$map": {
                        "input": {"$slice": [value, _MEMBERS]},
                        "as": each,
                        "in": _shrunk(f"$${each}", levels - 1),
                    }
                },
            },
        ]
    return {"$switch": {"branches": branches, "default": "…"}}


_SIZES = {
    "size": {"$bsonSize": "$entry"},
    "packed_size": {"$binarySize": "$packed"},
    "packed": {
        "$cond": [{"$lte": [{"$binarySize": "$packed"}, WHOLE_BYTES]}, "$packed", "$$REMOVE"]
    },
}
UNCUT: dict[str, Any] = {**CONTENT, "subpath": 1}
BOUNDED: dict[str, Any] = {
    **UNCUT,
    **_SIZES,
    "entry": {"$cond": [{"$lte": [{"$bsonSize": "$entry"}, WHOLE_BYTES]}, "$entry", "$$REMOVE"]},
}
# To read it takes the server ten times as long as to answer, so it is sent where it is needed.
CUT: dict[str, Any] = {"_id": 0, "seq": 1, "entry": _shrunk("$entry", _LEVELS)}


def cut_texts(entry: dict[str, Any]) -> dict[str, Any]:
    """What :data:`CUT` has of an entry, of one that the server cannot look into."""
    return {name: _cut(value, _LEVELS) for name, value in entry.items()}


def _cut(value: Any, levels: int) -> Any:
    if isinstance(value, str):
        return value[:CUT_CHARACTERS]
    if not isinstance(value, (dict, list)):
        return value
    if not levels:
        return "…"
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name: _cut(each, levels - 1) for name, each in members.items()}
    return [_cut(each, levels - 1) for each in cast("list[Any]", value)[:_MEMBERS]]
