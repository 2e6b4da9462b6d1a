"""Entries of the conversation: linked by ``parent_uuid``, from the last one back to the first."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from .base import EntryView
from .blocks import Block, BlocksOrText, TextBlock, ToolResultBlock, text_of
from .lenient import CamelPart, Count, Flag, Json, Many, Maybe, Part, Text, Whole, Words
from .prompts import prompt_of
from .usage import Usage

SYNTHETIC_MODEL = "<synthetic>"
"""The model of a reply that the agent made up itself."""


class ConversationEntry(EntryView):
    """What all entries of the conversation have in common."""

    parent_uuid: Maybe[Text] = None
    """The entry before this one; ``None`` at the start, also after a compaction."""
    logical_parent_uuid: Maybe[Text] = None
    """The entry before a compaction, which is not sent to the model any more."""
    is_sidechain: Flag = False
    """Whether a subagent wrote it."""
    agent_id: Maybe[Text] = None
    """The subagent that wrote it."""
    is_meta: Flag = False
    """Whether the agent wrote it for the model alone, not for people."""
    cwd: Maybe[Text] = None
    git_branch: Maybe[Text] = None
    version: Maybe[Text] = None
    """The release of the agent that wrote it."""
    entrypoint: Maybe[Text] = None
    user_type: Maybe[Text] = None
    slug: Maybe[Text] = None
    team_name: Maybe[Text] = None
    forked_from: Maybe[Json] = None


class UserMessage(Part):
    """What is sent to the model."""

    role: Words = "user"
    content: BlocksOrText = ""


class AssistantMessage(Part):
    """A response of the API, or the part of one that the entry holds."""

    id: Maybe[Text] = None
    model: Maybe[Text] = None
    role: Words = "assistant"
    content: BlocksOrText = ""
    stop_reason: Maybe[Text] = None
    stop_sequence: Maybe[Text] = None
    usage: Maybe[Usage] = None


class Origin(CamelPart):
    """What a message came from, where that is not the person who talks to the agent."""

    kind: Maybe[Text] = None


class TurnPosition(CamelPart):
    """Where in the session the agent counts a prompt."""

    prompt_index: Count = 0
    turn_index: Count = 0


def _blocks(content: str | list[Block]) -> list[Block]:
    if isinstance(content, str):
        return [TextBlock(text=content)] if content else []
    return content


class UserEntry(ConversationEntry):
    """What a person, a tool or the agent itself says to the model."""

    _parts = ("message",)

    type: Literal["user"] = "user"
    prompt_id: Maybe[Text] = None
    permission_mode: Maybe[Text] = None
    origin: Maybe[Origin] = None
    prompt_source: Maybe[Text] = None
    turn_origin: Maybe[Text] = None
    turn_position: Maybe[TurnPosition] = None
    is_compact_summary: Flag = False
    """Whether it sums up what a compaction left out."""
    is_visible_in_transcript_only: Flag = False
    tool_use_result: Any = None
    """What the tool returned to the agent: an object, a list, or an error as text."""
    source_tool_use_id: Maybe[Text] = Field(default=None, alias="sourceToolUseID")
    source_tool_assistant_uuid: Maybe[Text] = Field(default=None, alias="sourceToolAssistantUUID")
    permission_decision: Json = {}
    tool_denial_kind: Maybe[Text] = None

    @cached_property
    def message(self) -> UserMessage | None:
        """What is sent to the model."""
        return self._part("message", UserMessage)

    @property
    def blocks(self) -> list[Block]:
        """The content; where it was written as plain text, one text block."""
        return _blocks(self.message.content) if self.message else []

    @property
    def text(self) -> str:
        """The texts of the content, joined, with all that the agent put around a prompt."""
        return text_of(self.message.content) if self.message else ""

    @property
    def tool_results(self) -> list[ToolResultBlock]:
        """What tools returned with this entry."""
        return [block for block in self.blocks if isinstance(block, ToolResultBlock)]

    @cached_property
    def prompt_text(self) -> str | None:
        """What a person typed, without what the agent put around it; ``None`` if nobody did.

        A slash command is as it was typed, such as ``/review this``. It is empty where somebody
        sent an image or a document without a word.
        """
        return prompt_of(self.raw)

    @property
    def is_prompt(self) -> bool:
        """Whether a person said this: neither a tool, nor the agent itself.

        A slash command is a prompt; what it printed is none.
        """
        return self.prompt_text is not None


class AssistantEntry(ConversationEntry):
    """What the model said. A response of several blocks is several entries of one message id."""

    _parts = ("message",)

    type: Literal["assistant"] = "assistant"
    request_id: Maybe[Text] = None
    request_session_id: Maybe[Text] = None
    """The session that made the request, where the entry was copied by a fork."""
    requested_model: Maybe[Text] = None
    api_block_index: Maybe[Whole] = None
    is_api_error_message: Flag = False
    """Whether the agent made it up to report an error of the API."""
    error: Any = None
    effort: Maybe[Text] = None
    thinking_duration_ms: Maybe[Whole] = None

    @cached_property
    def message(self) -> AssistantMessage | None:
        """The response, or the part of it that the entry holds."""
        return self._part("message", AssistantMessage)

    @property
    def blocks(self) -> list[Block]:
        """The content; where it was written as plain text, one text block."""
        return _blocks(self.message.content) if self.message else []

    @property
    def is_made_up(self) -> bool:
        """Whether the agent wrote it in the model's place: an error of the API, or a filler."""
        model = self.message.model if self.message else None
        return self.is_api_error_message or model == SYNTHETIC_MODEL

    @property
    def text(self) -> str:
        """The texts of the content, joined, without the reasoning."""
        return text_of(self.message.content) if self.message else ""


class Attachment(CamelPart):
    """What the agent adds to the conversation by itself; ``model_extra`` has the rest.

    There are more than a hundred types, of which every release adds some.
    """

    type: Words = ""


class AttachmentEntry(ConversationEntry):
    """What the agent adds for the model: surroundings, listings, reminders, output of hooks."""

    _parts = ("attachment",)

    type: Literal["attachment"] = "attachment"
    rendered: Many[Any] = []
    """What the model is shown of it."""
    rendered_role: Maybe[Text] = None

    @cached_property
    def attachment(self) -> Attachment | None:
        """What was added."""
        return self._part("attachment", Attachment)


class ProgressEntry(ConversationEntry):
    """How far a tool has come; of no meaning to the model."""

    type: Literal["progress"] = "progress"
    data: Json = {}
    tool_use_id: Maybe[Text] = Field(default=None, alias="toolUseID")
    parent_tool_use_id: Maybe[Text] = Field(default=None, alias="parentToolUseID")
