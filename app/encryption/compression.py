"""What is sealed, compressed first: nobody can compress it afterwards."""

from __future__ import annotations

from threading import local
from typing import Any

# Faster than most disks. Below the size compressing takes longer than it saves.
_LEVEL = 1
COMPRESSED_FROM = 2048
"""From so many bytes on, contents are compressed."""

_own = local()


def compressed(contents: bytes) -> bytes:
    """A frame of Zstandard, which tells its size."""
    found: Any = getattr(_own, "compressor", None)
    if found is None:
        found = _own.compressor = _library().ZstdCompressor(level=_LEVEL)
    return found.compress(contents)


def decompressed(frame: bytes) -> bytes:
    """What :func:`compressed` was given.

    Raises:
        ValueError: it is none.
    """
    found: Any = getattr(_own, "decompressor", None)
    if found is None:
        found = _own.decompressor = _library().ZstdDecompressor()
    try:
        return found.decompress(frame)
    except _library().ZstdError as error:
        raise ValueError(f"damaged compressed value: {error}") from None


def require_compression() -> None:
    """Have what compresses at hand.

    Raises:
        ImportError: it is not installed.
    """
    _library()


def _library() -> Any:
    # Only those wait for it who have something encrypted.
    try:
        import zstandard
    except ModuleNotFoundError as missing:
        raise ImportError(
            f"Encryption needs {missing.name}, which is not installed. Install it with "
            "`pip install 'beanie-session-store[encryption]'`."
        ) from missing
    return zstandard
