"""What an assistant entry says: of the response that it is of, and of the calls that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from ..views.messages import SYNTHETIC_MODEL
from ..views.moments import stored_moment
from ..views.prompts import blocks_of
from .bounded import bounded_count, bounded_name, bounded_number
from .one_response import NOTHING, Counts, Written, chain_of, failure_of, written_by

_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})

# Tokens of output that the API has counted when a stream begins.
_MOST_AT_FIRST = 8


class StoredEntry(NamedTuple):
    """An entry of a response that is stored."""

    subpath: str
    seq: int
    response: int | None
    """The position of the entry that began its response, ``None`` if that is itself."""
    entry: Mapping[str, Any]
    has_prompt_since: bool
    """Whether a person's prompt has come in its chain behind it."""


def written_in(
    entry: Mapping[str, Any],
    subpath: str,
    message: Mapping[str, Any] | None = None,
) -> Written:
    """What an assistant entry says of the response that it is of."""
    if message is None:
        found = entry.get("message")
        message = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    at = stored_moment(entry.get("timestamp"))
    model = message.get("model")
    usage = message.get("usage")
    counts = NOTHING
    name = ""
    if isinstance(model, str) and model != SYNTHETIC_MODEL and isinstance(usage, dict):
        name = bounded_name(model)
        may_be_made_up = "apiBlockIndex" in entry and "stop_details" not in message
        stop_reason = message.get("stop_reason", "")
        counts = counts_in(cast("dict[str, Any]", usage), stop_reason, may_be_made_up)
    cost = max(bounded_number(entry["costUSD"]) or 0.0, 0.0) if "costUSD" in entry else 0.0
    return written_by(entry, message, chain_of(subpath, entry), at, name, counts, cost)


def counts_in(usage: Mapping[str, Any], stop_reason: object, may_be_made_up: bool) -> Counts:
    """What an entry says that its response took, by its usage.

    The API says why it stopped with its last count. Before that, ``stop_reason`` is ``None``; an
    entry without that field tells nothing, and counts as if the count had come. Where the stream
    broke off, agents that number the blocks of a response make up a reason, without details, and
    then there is the first count alone, of some tokens.
    """
    to_cache = bounded_count(usage.get("cache_creation_input_tokens"))
    for_an_hour = 0
    if to_cache:
        split = usage.get("cache_creation")
        if isinstance(split, dict):
            split = cast("dict[str, Any]", split)
            for_an_hour = min(bounded_count(split.get("ephemeral_1h_input_tokens")), to_cache)
    said = bounded_count(usage.get("output_tokens"))
    is_final = stop_reason is not None and not (may_be_made_up and said <= _MOST_AT_FIRST)
    return (
        1,
        bounded_count(usage.get("input_tokens")),
        said,
        to_cache,
        bounded_count(usage.get("cache_read_input_tokens")),
        for_an_hour,
        1 if is_final else 0,
    )


def is_copied(entry: Mapping[str, Any]) -> bool:
    """Whether a fork took the response over from another session."""
    source = entry.get("requestSessionId")
    is_of_another = isinstance(source, str) and source != entry.get("sessionId")
    return is_of_another or isinstance(entry.get("forkedFrom"), dict)


def failures_of(stored: Sequence[StoredEntry]) -> set[bytes]:
    """The digests that entries would carry, had the calls in stored entries failed."""
    found: set[bytes] = set()
    for each in stored:
        instant = written_in(each.entry, each.subpath).instant
        for block in calls_in(each.entry):
            call_id = call_id_of(block)
            if call_id is not None:
                found.add(failure_of(instant, call_id))
    return found


def calls_in(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The blocks in which an entry calls tools."""
    message = entry.get("message")
    content = cast("dict[str, Any]", message).get("content") if isinstance(message, dict) else None
    return [block for block in blocks_of(content) if is_call(block)]


def is_call(block: Mapping[str, Any]) -> bool:
    """Whether a block calls a tool."""
    kind = block.get("type")
    return isinstance(kind, str) and kind in _CALLS


def call_id_of(block: Mapping[str, Any]) -> str | None:
    """The id of a call, by which its result is found."""
    found = block.get("id")
    return bounded_name(found) if isinstance(found, str) and found else None


def tool_name_of(block: Mapping[str, Any]) -> str:
    """The tool that is called."""
    name = block.get("name")
    return bounded_name(name) if isinstance(name, str) else ""
