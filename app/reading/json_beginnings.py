"""The beginning of a JSON text made whole: what is open is closed, a name without a value goes."""

from __future__ import annotations

_CLOSING = {"{": "}", "[": "]"}
_LONGEST_ESCAPE = 6


def completed_json(text: str) -> str:
    """A JSON text that was cut anywhere, ended so that it can be read."""
    closing: list[str] = []
    in_string = False
    is_value = False
    # The last character that is neither a blank nor in a string.
    last = ""
    # The longest beginning that only needs closing, and with what.
    good, ending = 0, ""
    place = 0
    while place < len(text):
        character = text[place]
        if in_string:
            if character == "\\":
                place += 1
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
            is_value = last in (":", "[") or (last == "," and closing[-1:] == ["]"])
        elif not character.isspace():
            if character == ",":
                good, ending = place, "".join(reversed(closing))
            elif character in _CLOSING:
                closing.append(_CLOSING[character])
            elif character in "}]" and closing:
                closing.pop()
            if character in "{}[]":
                good, ending = place + 1, "".join(reversed(closing))
            last = character
        place += 1
    if not closing and not in_string:
        return text
    if in_string and is_value:
        return f'{_without_half_escape(text)}"{"".join(reversed(closing))}'
    return text[:good] + ending


def _without_half_escape(text: str) -> str:
    """The text without an escape at its end that is not all there."""
    start = text.rfind("\\", len(text) - _LONGEST_ESCAPE)
    if start < 0:
        return text
    slashes = start + 1 - len(text[: start + 1].rstrip("\\"))
    rest = text[start + 1 :]
    is_whole = slashes % 2 == 0 or len(rest) >= (5 if rest[:1] == "u" else 1)
    return text if is_whole else text[:start]
