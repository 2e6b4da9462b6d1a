"""Content blocks: what messages are made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .lenient import Flag, Json, Many, Maybe, Otherwise, Part, Text, Words


class TextBlock(Part):
    """Text."""

    type: Literal["text"] = "text"
    text: Words = ""
    citations: Maybe[list[Any]] = None


class ThinkingBlock(Part):
    """The model's reasoning, signed by the API."""

    type: Literal["thinking"] = "thinking"
    thinking: Words = ""
    signature: Maybe[Text] = None


class RedactedThinkingBlock(Part):
    """Reasoning that the API has encrypted."""

    type: Literal["redacted_thinking"] = "redacted_thinking"
    data: Words = ""


class Source(Part):
    """Where the data of an image or a document is: inline (``data``), or named."""

    type: Maybe[Text] = None
    media_type: Maybe[Text] = None
    data: Maybe[Text] = Field(default=None, repr=False)
    url: Maybe[Text] = None
    file_id: Maybe[Text] = None


class ImageBlock(Part):
    """An image."""

    type: Literal["image"] = "image"
    source: Maybe[Source] = None


class DocumentBlock(Part):
    """A document, such as a PDF."""

    type: Literal["document"] = "document"
    source: Maybe[Source] = None
    title: Maybe[Text] = None
    context: Maybe[Text] = None


class SearchResultBlock(Part):
    """A passage found by a search, to be cited."""

    type: Literal["search_result"] = "search_result"
    source: Maybe[Text] = None
    title: Maybe[Text] = None
    content: Many[Any] = []


class ContainerUploadBlock(Part):
    """A file put into the container in which the API runs code."""

    type: Literal["container_upload"] = "container_upload"
    file_id: Maybe[Text] = None


class ToolUseBlock(Part):
    """A call of one of the agent's tools."""

    type: Literal["tool_use"] = "tool_use"
    id: Maybe[Text] = None
    name: Words = ""
    input: Json = {}


class ServerToolUseBlock(Part):
    """A call of a tool that runs at the API."""

    type: Literal["server_tool_use"] = "server_tool_use"
    id: Maybe[Text] = None
    name: Words = ""
    input: Json = {}


class McpToolUseBlock(Part):
    """A call of a tool of an MCP server that the API is connected to."""

    type: Literal["mcp_tool_use"] = "mcp_tool_use"
    id: Maybe[Text] = None
    name: Words = ""
    server_name: Maybe[Text] = None
    input: Json = {}


class ToolResultBlock(Part):
    """What a tool of the agent returned."""

    type: Literal["tool_result"] = "tool_result"
    tool_use_id: Maybe[Text] = None
    content: BlocksOrText = ""
    is_error: Flag = False

    @property
    def text(self) -> str:
        """The texts of the result, joined."""
        return text_of(self.content)


class McpToolResultBlock(Part):
    """What a tool of an MCP server returned to the API."""

    type: Literal["mcp_tool_result"] = "mcp_tool_result"
    tool_use_id: Maybe[Text] = None
    content: BlocksOrText = ""
    is_error: Flag = False

    @property
    def text(self) -> str:
        """The texts of the result, joined."""
        return text_of(self.content)


class ServerToolResultBlock(Part):
    """What a tool that runs at the API returned; each tool has a shape of its own."""

    type: Literal[
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "advisor_tool_result",
    ]
    tool_use_id: Maybe[Text] = None
    content: Any = None


class ToolReferenceBlock(Part):
    """A tool that was found by searching for tools."""

    type: Literal["tool_reference"] = "tool_reference"
    tool_name: Maybe[Text] = None


class CompactionBlock(Part):
    """The summary by which the API replaced what came before."""

    type: Literal["compaction"] = "compaction"
    content: Maybe[Text] = None


class FallbackBlock(Part):
    """Marks where another model took over."""

    type: Literal["fallback"] = "fallback"
    from_: Json = Field(default={}, alias="from")
    to: Json = {}


class OtherBlock(Part):
    """A block that the agent or the API knows without a shape that is known here."""

    type: Literal["mcp_tool_listing", "browser_state", "mid_conv_system"]


class UnknownBlock(BaseModel):
    """A block without a shape that is known here; ``value`` is what was written."""

    model_config = ConfigDict(frozen=True)

    value: Any

    @property
    def type(self) -> Any:
        """The type that it names, ``None`` if it names none."""
        value: object = self.value
        return cast("dict[str, Any]", value).get("type") if isinstance(value, dict) else None

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return {"value": value}


KnownBlock = Annotated[
    TextBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ContainerUploadBlock
    | ToolUseBlock
    | ServerToolUseBlock
    | McpToolUseBlock
    | ToolResultBlock
    | McpToolResultBlock
    | ServerToolResultBlock
    | ToolReferenceBlock
    | CompactionBlock
    | FallbackBlock
    | OtherBlock,
    Field(discriminator="type"),
]

Block = Annotated[KnownBlock | UnknownBlock, Field(union_mode="left_to_right")]
"""A content block; one of a type that is not known here is an :class:`UnknownBlock`."""

BlocksOrText = Annotated[Text | list[Block], Otherwise("")]
"""The content of a message or a result, as it is written: one text, or blocks."""


def text_of(content: str | list[Block]) -> str:
    """The texts of some content, joined by newlines."""
    if isinstance(content, str):
        return content
    return "\n".join(block.text for block in content if isinstance(block, TextBlock))


def _types() -> frozenset[str]:
    shapes: tuple[type[Part], ...] = get_args(get_args(KnownBlock)[0])
    return frozenset(
        name for shape in shapes for name in get_args(shape.model_fields["type"].annotation)
    )


KNOWN_BLOCKS = _types()
"""The types of block that have a shape here."""
