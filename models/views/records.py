"""Entries about the session rather than of its conversation; most have no uuid.

Where a kind repeats, the last entry counts, unless its view says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .base import EntryView
from .lenient import Count, Flag, Json, Many, Maybe, Number, Otherwise, Text, Whole, Words
from .usage import ModelUsage


class CustomTitleEntry(EntryView):
    """The title that a person gave; empty when it was taken away."""

    type: Literal["custom-title"] = "custom-title"
    custom_title: Words = ""


class AiTitleEntry(EntryView):
    """The title that the model gave."""

    type: Literal["ai-title"] = "ai-title"
    ai_title: Words = ""


class TagEntry(EntryView):
    """The session's tag; empty when it was taken away."""

    type: Literal["tag"] = "tag"
    tag: Words = ""


class SummaryEntry(EntryView):
    """What the conversation up to ``leaf_uuid`` is about; written by older agents.

    Unless that is an entry of the same transcript, it is the conversation of another session.
    """

    type: Literal["summary"] = "summary"
    summary: Words = ""
    leaf_uuid: Maybe[Text] = None


class LastPromptEntry(EntryView):
    """The prompt shown in listings, and the entry at which the conversation stood."""

    type: Literal["last-prompt"] = "last-prompt"
    last_prompt: Maybe[Text] = None
    leaf_uuid: Maybe[Text] = None
    explicit: Flag = False
    rewound: Flag = False
    cut_uuid: Maybe[Text] = None


class CostStateEntry(EntryView):
    """The cost so far by the agent's own account, written when its process ends.

    It goes on over resumes, and a fork starts from what the forked session had cost. An agent
    that starts to count anew has another ``start_time``. Durations are in milliseconds,
    ``start_time`` in epoch milliseconds, costs in US dollars.
    """

    type: Literal["cost-state"] = "cost-state"
    total_cost_usd: Maybe[Number] = Field(default=None, alias="totalCostUSD")
    total_api_duration: Maybe[Number] = Field(default=None, alias="totalAPIDuration")
    total_api_duration_without_retries: Maybe[Number] = Field(
        default=None, alias="totalAPIDurationWithoutRetries"
    )
    total_tool_duration: Maybe[Number] = None
    total_duration: Maybe[Number] = None
    total_lines_added: Count = 0
    total_lines_removed: Count = 0
    start_time: Maybe[Number] = None
    model_usage: Annotated[dict[str, ModelUsage], Otherwise({})] = {}
    has_unknown_model_cost: Flag = False
    model_call_cost_usd: Maybe[Number] = Field(default=None, alias="modelCallCostUSD")


class QueueOperationEntry(EntryView):
    """A prompt that was queued, taken or dropped."""

    type: Literal["queue-operation"] = "queue-operation"
    operation: Words = ""
    content: Any = None
    reason: Maybe[Text] = None
    command_uuid: Maybe[Text] = None
    delivery_id: Maybe[Text] = None


class AgentMetadataEntry(EntryView):
    """What a subagent is and which call started it; the SDK adds it to the stored transcript."""

    type: Literal["agent_metadata"] = "agent_metadata"
    agent_type: Maybe[Text] = None
    description: Maybe[Text] = None
    tool_use_id: Maybe[Text] = None
    parent_agent_id: Maybe[Text] = None
    spawn_depth: Maybe[Whole] = None
    model: Maybe[Text] = None
    finished: Flag = False


class ModeEntry(EntryView):
    """The mode of input."""

    type: Literal["mode"] = "mode"
    mode: Words = ""


class PermissionModeEntry(EntryView):
    """The mode of permission."""

    type: Literal["permission-mode"] = "permission-mode"
    permission_mode: Words = ""


class ToolsUsedEntry(EntryView):
    """The names of all tools that were called so far."""

    type: Literal["tools-used"] = "tools-used"
    tools: Many[str] = []


class AtisLatchEntry(EntryView):
    """A setting that the agent keeps for the session."""

    type: Literal["atis-latch"] = "atis-latch"
    atis: Words = ""


class AgentNameEntry(EntryView):
    """The name that the agent goes by."""

    type: Literal["agent-name"] = "agent-name"
    agent_name: Words = ""


class AgentColorEntry(EntryView):
    """The colour that the agent is shown in."""

    type: Literal["agent-color"] = "agent-color"
    agent_color: Words = ""


class AgentSettingEntry(EntryView):
    """The kind of agent that the session runs."""

    type: Literal["agent-setting"] = "agent-setting"
    agent_setting: Words = ""


class PrLinkEntry(EntryView):
    """The pull request that the session works on."""

    type: Literal["pr-link"] = "pr-link"
    pr_number: Maybe[Whole] = None
    pr_url: Maybe[Text] = None
    pr_repository: Maybe[Text] = None


class FrameLinkEntry(EntryView):
    """An artifact that was published."""

    type: Literal["frame-link"] = "frame-link"
    path: Maybe[Text] = None
    frame_url: Maybe[Text] = None
    title: Maybe[Text] = None
    artifact_count: Maybe[Whole] = None


class RelocatedEntry(EntryView):
    """The directory that the session moved to."""

    type: Literal["relocated"] = "relocated"
    relocated_cwd: Words = ""


class WorktreeStateEntry(EntryView):
    """The git worktree that the session works in, ``None`` after it left."""

    type: Literal["worktree-state"] = "worktree-state"
    worktree_session: Maybe[Json] = None


class ContinuedInEntry(EntryView):
    """The session that goes on with this one."""

    type: Literal["continued-in"] = "continued-in"
    continued_in_session_id: Maybe[Text] = None


class FileHistorySnapshotEntry(EntryView):
    """Copies of files before they were changed, for going back."""

    type: Literal["file-history-snapshot"] = "file-history-snapshot"
    message_id: Maybe[Text] = None
    snapshot: Json = {}
    is_snapshot_update: Flag = False


class FileHistoryDeltaEntry(EntryView):
    """One more file in a snapshot."""

    type: Literal["file-history-delta"] = "file-history-delta"
    message_id: Maybe[Text] = None
    snapshot_message_id: Maybe[Text] = None
    tracking_path: Maybe[Text] = None
    backup: Json = {}


class ContentReplacementEntry(EntryView):
    """Content that the model is sent in place of what was written; all such entries count."""

    type: Literal["content-replacement"] = "content-replacement"
    agent_id: Maybe[Text] = None
    replacements: Many[Any] = []


class ApiRequestEntry(EntryView):
    """A request to the API, put together from shapes and blobs; on the agent's disk alone."""

    type: Literal["api-request"] = "api-request"
    id: Maybe[Text] = None
    agent_id: Maybe[Text] = None
    version: Maybe[Text] = None
    query_source: Maybe[Text] = None
    shape_hash: Maybe[Text] = None
    params: Json = {}
    base: Maybe[Text] = None
    keep: Count = 0
    tail: Many[Any] = []


class ApiRequestShapeEntry(EntryView):
    """The system prompt and tools of requests; on the agent's disk alone."""

    type: Literal["api-request-shape"] = "api-request-shape"
    agent_id: Maybe[Text] = None
    version: Maybe[Text] = None
    shape_hash: Maybe[Text] = None
    shape: Json = {}


class ApiRequestBlobEntry(EntryView):
    """A message of requests; on the agent's disk alone."""

    type: Literal["api-request-blob"] = "api-request-blob"
    agent_id: Maybe[Text] = None
    hash: Maybe[Text] = None
    message: Json = {}


class ApiRequestResumedEntry(EntryView):
    """A request that went on after a pause; on the agent's disk alone."""

    type: Literal["api-request-resumed"] = "api-request-resumed"
    agent_id: Maybe[Text] = None
    version: Maybe[Text] = None
    message_id: Maybe[Text] = None
    paused_request_id: Maybe[Text] = None
    resumed_request_id: Maybe[Text] = None


class OtherRecord(EntryView):
    """A kind that the agent knows and that needs no view of its own; ``raw`` has what it says."""

    type: Literal[
        "artifact-autoreact-ledger",
        "artifact-comment-monitor",
        "attribution-snapshot",
        "bridge-session",
        "data-flow-incomplete",
        "data-flow-records",
        "derived-from",
        "dev-mods",
        "ended-by-model",
        "fork-context-ref",
        "history-suppression",
        "host-row",
        "hybrid-organization",
        "isolation-latch",
        "memory-mode",
        "observer-ref",
        "repl-mode",
        "resume-head-vouch",
        "session-owner",
    ] = "artifact-autoreact-ledger"
