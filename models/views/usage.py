"""Tokens and money, as the API and the agent count them."""

from __future__ import annotations

from pydantic import Field

from .lenient import CamelPart, Count, Maybe, Number, Part, Text, Whole


class CacheCreation(Part):
    """Tokens written to the prompt cache, by how long it keeps them."""

    ephemeral_5m_input_tokens: Count = 0
    ephemeral_1h_input_tokens: Count = 0


class ServerToolUse(Part):
    """Requests of the tools that run at the API."""

    web_search_requests: Count = 0
    web_fetch_requests: Count = 0


class Usage(Part):
    """What one response of the API took, in tokens.

    Every entry of a response repeats it, so adding it up over entries counts too much; see
    ``Transcript.usage``.
    """

    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_creation_input_tokens: Count = 0
    cache_read_input_tokens: Count = 0
    cache_creation: Maybe[CacheCreation] = None
    server_tool_use: Maybe[ServerToolUse] = None
    service_tier: Maybe[Text] = None


class ModelUsage(CamelPart):
    """What one model took so far by the agent's own account; ``cost_usd`` is in US dollars."""

    input_tokens: Count = 0
    output_tokens: Count = 0
    thinking_tokens: Maybe[Whole] = None
    cache_read_input_tokens: Count = 0
    cache_creation_input_tokens: Count = 0
    cache_creation_ephemeral_5m_input_tokens: Maybe[Whole] = Field(
        default=None, alias="cacheCreationEphemeral5mInputTokens"
    )
    cache_creation_ephemeral_1h_input_tokens: Maybe[Whole] = Field(
        default=None, alias="cacheCreationEphemeral1hInputTokens"
    )
    web_search_requests: Count = 0
    cost_usd: Maybe[Number] = Field(default=None, alias="costUSD")
