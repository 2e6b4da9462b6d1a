"""A lossless byte form for JSON that BSON cannot hold.

BSON refuses lone surrogates, NUL in keys, integers beyond 64 bits and deep nesting, and PyMongo
reads ``{"$ref": ..., "$id": ...}`` back as a ``DBRef`` object. Python's ``json`` knows none of
these limits, so such a value is kept as compressed JSON text instead.
"""

from __future__ import annotations

import json
import sys
import threading
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

# Names the format of the bytes that follow, so that a later release can add another one.
_ZLIB_JSON = b"\x01"

SEALED = b"\x02"
"""What begins like this is encrypted, and means nothing without its key."""

# Text cut inside a character must come back as it was: "surrogatepass" keeps lone surrogates, and
# writing them unescaped keeps two adjacent ones from being joined into one character on reading.
_SURROGATES = "surrogatepass"

T = TypeVar("T")


def pack(value: Any) -> bytes:
    """Return the packed form of ``value``, any object that ``json.loads`` can return."""
    return compress(json_text(value))


def json_text(value: Any) -> bytes:
    """The text in the packed form of ``value``, not compressed yet."""
    text = full_stack(lambda: json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    return text.encode("utf-8", _SURROGATES)


def compress(text: bytes) -> bytes:
    """The packed form of a value, of its text; slow for a large one, without the interpreter."""
    return _ZLIB_JSON + zlib.compress(text, 1)


def unpack(packed: bytes) -> Any:
    """Return the value that :func:`pack` was given.

    Raises:
        ValueError: the bytes are damaged, encrypted, or of a format this release does not know.
    """
    if packed[:1] == SEALED:
        raise ValueError("it is encrypted; read it with a store that has its keys (encryption=...)")
    if packed[:1] != _ZLIB_JSON:
        raise ValueError(f"unknown packed format {packed[:1]!r}")
    try:
        text = zlib.decompress(packed[1:]).decode("utf-8", _SURROGATES)
    except zlib.error as error:
        raise ValueError(f"damaged packed value: {error}") from error
    return full_stack(lambda: json.loads(text))


_one_at_a_time = threading.Lock()
# What stands on the fresh stack before json begins, and json's own functions.
_FRAMES_OF_OURS = 32


def full_stack(work: Callable[[], T]) -> T:
    """Run ``work`` and, if the stack is too short for it here, again on a fresh one.

    ``json`` recurses once per nesting level. What a caller parsed near the bottom of its stack
    may not fit on top of ours; a new thread starts with an empty one.
    """
    try:
        return work()
    except RecursionError:
        pass
    outcome: list[T] = []
    failure: list[BaseException] = []

    def attempt() -> None:
        with _one_at_a_time:
            limit = sys.getrecursionlimit()
            sys.setrecursionlimit(limit + _FRAMES_OF_OURS)
            try:
                outcome.append(work())
            except BaseException as error:
                failure.append(error)
            finally:
                sys.setrecursionlimit(limit)

    thread = threading.Thread(target=attempt, name="session-store-deep-json")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
