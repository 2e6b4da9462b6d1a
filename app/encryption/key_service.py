"""Who keeps the keys that wrap others: a file, a cloud's service, or a team's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable


class WrappedKey(NamedTuple):
    """A data key that only its key service can unwrap."""

    wrapped_by: str
    """Names the wrapping key, the same for all that it wraps: a text of at most 256 characters."""
    data: bytes
    """What the service makes of the data key; at most 64 KiB."""

    def __repr__(self) -> str:
        return f"WrappedKey(wrapped_by={self.wrapped_by!r}, {len(self.data)} bytes)"


@runtime_checkable
class KeyService(Protocol):
    """Wraps data keys, and unwraps what it wrapped; the wrapping key never leaves it.

    Both are asked for seldom: what was unwrapped is kept for a while. ``context`` says whose key
    it is. It is no secret, and must be bound to what is wrapped: with another one that is refused.
    :class:`beanie_session_store.testing.KeyServiceContract` has the tests for one of your own.
    """

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> WrappedKey:
        """Wrap a data key of 32 bytes with the current wrapping key.

        Raises:
            KeyServiceError: the service cannot be reached, or refuses.
        """
        ...

    async def unwrap(self, wrapped: WrappedKey, context: Mapping[str, str]) -> bytes:
        """The data key, whichever of its wrapping keys wrapped it.

        Raises:
            WrongKeyError: it was wrapped by none of its keys, for another context, or is damaged.
            KeyServiceError: the service cannot be reached, or refuses.
        """
        ...


def context_bytes(context: Mapping[str, str]) -> bytes:
    """A context as bytes, the same for equal ones and for no others."""
    parts: list[bytes] = []
    for name in sorted(context):
        for text in (name, context[name]):
            encoded = text.encode("utf-8", "surrogatepass")
            parts += (len(encoded).to_bytes(4, "big"), encoded)
    return b"".join(parts)
