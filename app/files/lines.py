"""The lines of a text file as UTF-8, whatever their ends are and however they were encoded.

The agent writes UTF-8 with newlines. Editors, shells and copies between systems make other
line ends of it, byte order marks and UTF-16.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

MAX_LINE_BYTES = 256 * 1024 * 1024
"""Longest line that is kept; a damaged file may have no newline for the rest of the disk."""

_PIECE_BYTES = 1024 * 1024
_HEAD_BYTES = 64 * 1024
# Blanks, and what a crash leaves where nothing was written.
_NOTHING = b" \t\r\n\0"
_BEFORE = _NOTHING + codecs.BOM_UTF8
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    # The other one of four bytes begins as this one does.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The length of each line with its end, and the line as UTF-8.

    ``None`` stands for a line that is too long to keep, or long and no JSON object. Lines end at
    a newline, a carriage return or both: none of them can be inside of a JSON text that was
    written as one line, and the other separators of Unicode can. Lengths are those of UTF-8.
    """
    line = _LongLine()
    for piece in _pieces(file):
        found = piece.splitlines(keepends=True)
        rest = found.pop() if found and not found[-1].endswith((b"\n", b"\r")) else b""
        for each in found:
            yield line.ended(each)
            line = _LongLine()
        if rest:
            line.add(rest)
    if line.length:
        yield line.ended(b"")


class _LongLine:
    """A line that is longer than a piece of the file, in the making."""

    def __init__(self) -> None:
        self.length = 0
        self._parts: list[bytes] | None = []
        self._kept = 0

    def add(self, part: bytes) -> None:
        self.length += len(part)
        if self._parts is None:
            return
        # A crash may leave as many of them as the disk is large; one tells as much.
        if not part.strip(b"\0"):
            part = b"" if self._parts and self._parts[-1] == b"\0" else b"\0"
        is_first = all(each == b"\0" for each in self._parts)
        if is_first and part.lstrip(_BEFORE)[:1] not in (b"{", b""):
            self._parts = None
            return
        if part:
            self._parts.append(part)
            self._kept += len(part)
        if self._kept > MAX_LINE_BYTES:
            self._parts = None

    def ended(self, part: bytes) -> tuple[int, bytes | None]:
        self.length += len(part)
        if self._parts is None:
            return self.length, None
        return self.length, b"".join((*self._parts, part)) if self._parts else part


def as_utf8(data: bytes) -> bytes:
    """A whole text as UTF-8, without a byte order mark."""
    encoding, mark = encoding_of(data[:_HEAD_BYTES])
    text = data[mark:]
    return text if encoding == "utf-8" else _Recoded(encoding).of(text, final=True)


def encoding_of(head: bytes) -> tuple[str, int]:
    """The encoding of a file by its first bytes, and the length of its byte order mark."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    # Without a mark it shows by the NUL of every second byte, which no JSON text has.
    start = len(head) - len(head.lstrip(_NOTHING))
    first = head[start : start + 4]
    if len(first) == 4 and first[0] and first[2] and not (first[1] or first[3]):
        return ("utf-16-be" if start % 2 else "utf-16-le"), 0
    return "utf-8", 0


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """The file as UTF-8, in pieces that do not end between a carriage return and its newline."""
    head = file.read(_PIECE_BYTES)
    encoding, mark = encoding_of(head[:_HEAD_BYTES])
    recoded = None if encoding == "utf-8" else _Recoded(encoding)
    piece = head[mark:]
    while piece:
        following = file.read(_PIECE_BYTES)
        if recoded is not None:
            piece = recoded.of(piece, final=not following)
        while piece.endswith(b"\r") and following:
            more = following[:8]
            following = following[8:] or file.read(_PIECE_BYTES)
            piece += more if recoded is None else recoded.of(more, final=not following)
        yield piece
        piece = following


class _Recoded:
    """Makes UTF-8 of another encoding, piece by piece."""

    def __init__(self, encoding: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")

    def of(self, piece: bytes, *, final: bool) -> bytes:
        """The next piece; what is no text becomes bytes that are no UTF-8 either."""
        try:
            text = self._decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            # Half a character, where the file was cut.
            text = piece[: error.start].decode(error.encoding, "surrogatepass")
            return text.encode("utf-8", "surrogatepass") + b"\xff"
        return text.encode("utf-8", "surrogatepass")
