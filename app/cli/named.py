"""Python objects named on the command line."""

from __future__ import annotations

import importlib
from typing import Any


def named(name: str) -> Any:
    """The object of a name such as ``acme.models:AcmeEntry``.

    Raises:
        ImportError, AttributeError, ValueError: there is none.
    """
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
