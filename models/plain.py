"""Stored JSON read back as the plain Python types that ``json.loads`` gives."""

from __future__ import annotations

from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion, TypeDecoder, TypeRegistry
from bson.int64 import Int64


class _PlainInt(TypeDecoder):
    bson_type: Any = Int64
    # The type itself: a function of ours would take longer than all else about an integer.
    transform_bson: Any = int


# Without it integers beyond 32 bits would come back as a BSON class instead of as int.
JSON_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    type_registry=TypeRegistry([_PlainInt()]),
    # What somebody stored beyond the calendar of Python reads as the end of it.
    datetime_conversion=DatetimeConversion.DATETIME_CLAMP,
)


def plain(value: dict[str, Any]) -> dict[str, Any]:
    """A copy of a stored JSON object in which every integer is an ``int``."""
    return bson.decode(bson.encode(value), JSON_CODEC)  # pyright: ignore[reportUnknownMemberType]
