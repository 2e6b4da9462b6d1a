"""Pictures that a transcript holds: shown where their bytes are those of a type that is safe."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final, NamedTuple, cast

from ...models.views.blocks import DocumentBlock, ImageBlock
from ..rendering.amounts import byte_size
from ..rendering.folded_calls import TIMES
from .piece_markup import Html, PieceContext, said_inline

MAX_PICTURES: Final = 50
"""So many of one entry are shown; the others are named in a line."""

_BEGINNING_CHARACTERS = 4_000
_NAMES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/gif": "GIF", "image/webp": "WebP"}
_DEEPEST = 12


class Picture(NamedTuple):
    """Data of an entry, and the type by its own bytes; ``None`` where it is none that is shown."""

    data: bytes
    safe_type: str | None


def safe_type(beginning: bytes) -> str | None:
    """The type of a picture that no browser runs, by its first bytes and nothing else."""
    if beginning.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if beginning.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if beginning.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if beginning.startswith(b"RIFF") and beginning[8:12] == b"WEBP":
        return "image/webp"
    return None


def pictures_in(entry: Mapping[str, Any]) -> Iterator[str]:
    """The data in base64 of pictures and documents in an entry's message, in their order."""
    message = entry.get("message")
    content = cast("dict[str, Any]", message).get("content") if isinstance(message, dict) else None
    yield from _in_content(content, 0)


def picture_in(entry: Mapping[str, Any], number: int) -> Picture | None:
    """One of them; ``None`` where there are fewer, or its data is no base64."""
    for place, data in enumerate(pictures_in(entry)):
        if place == number:
            try:
                decoded = base64.b64decode(data)
            except (binascii.Error, ValueError):
                return None
            return Picture(decoded, safe_type(decoded[:16]))
    return None


def picture_of(
    context: PieceContext,
    seq: int,
    number: int,
    block: ImageBlock | DocumentBlock,
    whose: str,
    *,
    is_whole: bool = True,
) -> Html:
    """A picture on the page, or the line that stands for what is not shown."""
    source = block.source
    kind = (source and source.media_type) or block.type
    if source is None or source.data is None or source.type == "text":
        where = (source and (source.url or source.file_id)) or "elsewhere"
        words = "Document" if isinstance(block, DocumentBlock) else "Picture"
        return f'<p class="notice">{words}, {said_inline(kind)}, at {said_inline(where)}</p>'
    beginning = _decoded_beginning(source.data)
    shown = safe_type(beginning)
    # Of a large entry there is only the beginning here.
    size = f", {byte_size(len(source.data) * 3 // 4)}" if is_whole else ""
    if isinstance(block, DocumentBlock) or shown is None:
        words = "Document" if isinstance(block, DocumentBlock) else "Picture"
        why = "" if isinstance(block, DocumentBlock) else ": this type can run"
        return (
            f'<p class="notice">{words}, {said_inline(kind)}{size}, not shown{why}. '
            f'<a href="{context.addresses.picture(seq, number)}" download>Download</a></p>'
        )
    address = context.addresses.picture(seq, number)
    sides = _sides(beginning)
    measures = f' width="{sides[0]}" height="{sides[1]}"' if sides else ""
    told = f", {sides[0]:,} {TIMES} {sides[1]:,}" if sides else ""
    name = f"Picture {number + 1} of entry {seq}"
    return (
        f'<figure class="picture"><a href="{address}"><img src="{address}"{measures} '
        f'loading="lazy" alt="{escape(f"{name}, {whose}")}"></a>'
        f"<figcaption>Picture {number + 1}, {_NAMES[shown]}{told}{size}</figcaption></figure>"
    )


def _in_content(content: object, depth: int) -> Iterator[str]:
    for each in cast("list[Any]", content) if isinstance(content, list) else ():
        if not isinstance(each, dict) or depth > _DEEPEST:
            continue
        block = cast("dict[str, Any]", each)
        source = block.get("source")
        if block.get("type") in ("image", "document") and isinstance(source, dict):
            data = cast("dict[str, Any]", source).get("data")
            if isinstance(data, str) and cast("dict[str, Any]", source).get("type") != "text":
                yield data
        elif block.get("type") in ("tool_result", "mcp_tool_result"):
            yield from _in_content(block.get("content"), depth + 1)


def _decoded_beginning(data: str) -> bytes:
    try:
        beginning = "".join(data[:_BEGINNING_CHARACTERS].split())
        return base64.b64decode(beginning[: len(beginning) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def _sides(beginning: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, where the first bytes tell."""
    kind = safe_type(beginning)
    sides: tuple[int, int] | None = None
    if kind == "image/png" and len(beginning) >= 24:
        sides = struct.unpack(">II", beginning[16:24])
    elif kind == "image/gif" and len(beginning) >= 10:
        sides = struct.unpack("<HH", beginning[6:10])
    elif kind == "image/webp" and beginning[12:16] == b"VP8X" and len(beginning) >= 30:
        wide, high = beginning[24:27] + b"\0", beginning[27:30] + b"\0"
        sides = (1 + struct.unpack("<I", wide)[0], 1 + struct.unpack("<I", high)[0])
    elif kind == "image/jpeg":
        sides = _sides_of_jpeg(beginning)
    return sides if sides and all(0 < side < 100_000 for side in sides) else None


def _sides_of_jpeg(beginning: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 < len(beginning) and beginning[place] == 0xFF:
        marker = beginning[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            high, wide = struct.unpack(">HH", beginning[place + 5 : place + 9])
            return wide, high
        place += 2 + struct.unpack(">H", beginning[place + 2 : place + 4])[0]
    return None
