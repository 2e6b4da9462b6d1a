"""What is given but says nothing, which is never taken for not given."""

from __future__ import annotations


class BlankSettingError(ValueError):
    """A setting of the environment, or of a file, that is there but empty."""


def is_blank(value: object) -> bool:
    """Whether a value of an option or variable is empty, or nothing but space."""
    return isinstance(value, str) and not value.strip()
