"""What the lane expects of each test: to pass, to fail in a known way, or not to be run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Deviation:
    """One way in which SecantusDB is not MongoDB, and the tests that fail by it."""

    what: str
    errors: tuple[str, ...]
    """Each test fails with one of these in the text of its errors: the server's own words or,
    where it answers wrongly without an error, what the test makes of the answer."""
    means: str
    tests: tuple[str, ...]
    """``file::test``, which stands for all its parameters, or with ``[parameters]``."""


@dataclass(frozen=True)
class Rule:
    """Tests that are not run on SecantusDB, and why."""

    reason: str
    tests: tuple[str, ...] = ()
    """``file::test``, which stands for all its parameters, or with ``[parameters]``."""
    modules: tuple[str, ...] = ()
    """Files, and folders with a slash at the end."""
    fixtures: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    """Names that the body of the test refers to."""
    lacks: tuple[str, ...] = ()
    """Fixtures of which the test uses none, itself or through others."""

    def covers(self, item: pytest.Item) -> bool:
        """Whether a collected test falls under the rule."""
        fixtures = set(getattr(item, "fixturenames", ()))
        return (
            any(is_of(item.nodeid, test) for test in self.tests)
            or item.nodeid.startswith(self.modules)
            or not fixtures.isdisjoint(self.fixtures)
            or (bool(self.lacks) and fixtures.isdisjoint(self.lacks))
            or not set(self.uses).isdisjoint(_names(_code(getattr(item, "function", None))))
        )


def deviations() -> list[Deviation]:
    """What ``unsupported.toml`` lists."""
    return [
        Deviation(row["what"], tuple(row["errors"]), row["means"], tuple(row["tests"]))
        for row in _rows("unsupported")
    ]


def rules() -> list[Rule]:
    """What ``deselected.toml`` lists."""
    return [
        Rule(**{name: value if name == "reason" else tuple(value) for name, value in row.items()})
        for row in _rows("deselected")
    ]


def is_of(nodeid: str, test: str) -> bool:
    """Whether a collected test is the listed one, or one of its parameters."""
    return nodeid == test or nodeid.startswith(f"{test}[")


def errors_of(error: BaseException | None) -> Iterator[str]:
    """The texts of an error, of what caused it and of what it groups."""
    while error is not None:
        yield str(error)
        for grouped in _grouped(error):
            yield from errors_of(grouped)
        error = error.__cause__ or error.__context__


def _rows(name: str) -> list[dict[str, Any]]:
    return tomllib.loads((_HERE / f"{name}.toml").read_text())[name]


def _code(function: Any) -> CodeType | None:
    # Hypothesis and others wrap the function that was written.
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return getattr(function, "__code__", None)


def _names(code: CodeType | None) -> Iterator[str]:
    if code is None:
        return
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _grouped(error: BaseException) -> Iterable[BaseException]:
    return getattr(error, "exceptions", ())
