"""What must be true at the end of the story. Each of these can fail."""

from __future__ import annotations

import json
from dataclasses import dataclass

from .agent import mirrored
from .story import Chapter, Story, messages_of, said, tool_results


@dataclass(frozen=True)
class Check:
    claim: str
    holds: bool


def checks(story: Story) -> list[Check]:
    first, second = story.first, story.second
    stored = first.stored
    subagents = [subpath for subpath in stored if subpath.startswith("subagents/")]
    return [
        Check("both runs ended well, and no batch was lost", _went_well(first, second)),
        Check(
            "the store lists one session, with its subagent",
            first.sessions == [first.run.session_id] and len(subagents) >= 1,
        ),
        Check(
            "what is stored equals what host A wrote to its disk, in order",
            _equals_disk(first),
        ),
        Check(
            "host B went on with the same session",
            second.sessions == [second.run.session_id] == [first.run.session_id],
        ),
        *_memory(story),
        Check("host B's answer quotes the codeword", story.codeword in (second.run.result or "")),
        Check(
            "the store now holds both turns: A's entries unchanged, then B's",
            _is_continued(first, second) and _equals_disk(second),
        ),
    ]


def _memory(story: Story) -> list[Check]:
    """Host B knew host A's conversation before it did anything."""
    if story.second.first_request is not None:
        where, known = "first request to the model", story.second.first_request["messages"]
    else:
        entries = story.second.run.transcripts().get("", [])
        where, known = "local transcript", messages_of(entries)
    return [
        Check(f"host B's {where} held host A's prompt", story.first.prompt in said(known)),
        Check(
            f"host B's {where} held host A's tool result",
            story.codeword in tool_results(known),
        ),
    ]


def _went_well(*chapters: Chapter) -> bool:
    return not any(chapter.run.is_error or chapter.run.mirror_errors for chapter in chapters)


def _equals_disk(chapter: Chapter) -> bool:
    on_disk = chapter.run.transcripts()
    return on_disk.keys() == chapter.stored.keys() and all(
        _exactly(mirrored(chapter.stored[subpath])) == _exactly(mirrored(entries)) != []
        for subpath, entries in on_disk.items()
    )


def _is_continued(first: Chapter, second: Chapter) -> bool:
    before, after = _exactly(first.stored[""]), _exactly(second.stored[""])
    added = second.stored[""][len(before) :]
    return after[: len(before)] == before and second.prompt in said(added)


def _exactly(entries: list[dict]) -> list[str]:
    return [json.dumps(entry, sort_keys=True) for entry in entries]
