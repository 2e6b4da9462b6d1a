"""System entries: what happened to the conversation, by ``subtype``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .lenient import CamelPart, Count, Flag, Json, Many, Maybe, Number, Text, Whole, Words
from .messages import ConversationEntry


class SystemEntry(ConversationEntry):
    """A notice of the agent. Subtypes without a view of their own have ``content`` and ``raw``."""

    type: Literal["system"] = "system"
    subtype: Any = None
    level: Maybe[Text] = None
    content: Any = None


class CompactMetadata(CamelPart):
    """What a compaction did, in tokens and milliseconds."""

    trigger: Maybe[Text] = None
    pre_tokens: Maybe[Whole] = None
    post_tokens: Maybe[Whole] = None
    duration_ms: Maybe[Whole] = None
    user_context: Maybe[Text] = None
    messages_summarized: Maybe[Whole] = None
    cumulative_dropped_tokens: Maybe[Whole] = None
    preserved_segment: Maybe[Json] = None
    preserved_messages: Maybe[Json] = None


class CompactBoundaryEntry(SystemEntry):
    """The conversation starts anew here with a summary, the ``user`` entry behind it."""

    subtype: Literal["compact_boundary"] = "compact_boundary"
    compact_metadata: Maybe[CompactMetadata] = None


class ApiErrorEntry(SystemEntry):
    """A request that failed and is tried again ``retry_in_ms`` later."""

    subtype: Literal["api_error"] = "api_error"
    error: Any = None
    retry_in_ms: Maybe[Number] = None
    retry_attempt: Count = 0
    max_retries: Count = 0
    source: Maybe[Text] = None


class LocalCommandEntry(SystemEntry):
    """A slash command that the agent ran itself, or what it printed."""

    subtype: Literal["local_command"] = "local_command"
    command_run: Maybe[Json] = None
    command_outcome: Maybe[Json] = None
    context_usage: Maybe[Json] = None


class StopHookSummaryEntry(SystemEntry):
    """What the hooks did at the end of a turn."""

    subtype: Literal["stop_hook_summary"] = "stop_hook_summary"
    hook_count: Count = 0
    hook_infos: Many[Any] = []
    hook_errors: Many[Any] = []
    prevented_continuation: Flag = False
    stop_reason: Words = ""
    has_output: Flag = False
    tool_use_id: Maybe[Text] = Field(default=None, alias="toolUseID")
    total_duration_ms: Maybe[Number] = None


class TurnDurationEntry(SystemEntry):
    """How long a turn took, in milliseconds."""

    subtype: Literal["turn_duration"] = "turn_duration"
    duration_ms: Maybe[Number] = None
    message_count: Maybe[Whole] = None


class ModelFallbackEntry(SystemEntry):
    """Another model took over."""

    subtype: Literal["model_fallback", "model_refusal_fallback", "model_consent_fallback"] = (
        "model_fallback"
    )
    trigger: Maybe[Text] = None
    original_model: Maybe[Text] = None
    fallback_model: Maybe[Text] = None


class ScheduledTaskEntry(SystemEntry):
    """A scheduled task set the agent to work."""

    subtype: Literal["scheduled_task_fire"] = "scheduled_task_fire"
    task_id: Maybe[Text] = None
    cron: Maybe[Text] = None
    prompt: Maybe[Text] = None


class MemorySavedEntry(SystemEntry):
    """The agent wrote to its memory."""

    subtype: Literal["memory_saved"] = "memory_saved"
    written_paths: Many[str] = []


class NoticeEntry(SystemEntry):
    """A notice whose ``content`` says it all; what else it holds is in ``raw``."""

    subtype: Literal[
        "informational",
        "away_summary",
        "agents_killed",
        "bridge_status",
        "cloud_session_status",
        "permission_retry",
        "file_snapshot",
        "rewind_stand_in",
        "voice_call_talk",
        "model_refusal_no_fallback",
        "microcompact_boundary",
    ] = "informational"
