"""Tokens that responses of the API took, added up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...models.counting.one_response import Response


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a number of responses of the API, added up."""

    responses: int = 0
    input: int = 0
    output: int = 0
    cache_creation: int = 0
    """Written to the prompt cache, for however long."""
    cache_read: int = 0
    cache_creation_1h: int = 0
    """Those written to the cache that it keeps for an hour, the others for five minutes."""
    incomplete: int = 0
    """Responses whose final count never came; their output is more than what is counted."""

    @classmethod
    def of(cls, counts: Sequence[int]) -> Tokens:
        """The same of :data:`Counts`."""
        return cls(*counts[:6], incomplete=counts[0] - counts[6])

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.responses + other.responses,
            self.input + other.input,
            self.output + other.output,
            self.cache_creation + other.cache_creation,
            self.cache_read + other.cache_read,
            self.cache_creation_1h + other.cache_creation_1h,
            self.incomplete + other.incomplete,
        )


def tokens_by_model(responses: Iterable[Response]) -> dict[str, Tokens]:
    """What some responses took together."""
    found: dict[str, Tokens] = {}
    for response in responses:
        found[response.model] = found.get(response.model, Tokens()) + Tokens.of(response.counts)
    return found
