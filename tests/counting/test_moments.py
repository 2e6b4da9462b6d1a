"""What an entry says of its time means the same to totals, to views and to every Python."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beanie_session_store import parse_entry
from beanie_session_store.models.counting.tally import Tally
from beanie_session_store.models.views import moments
from beanie_session_store.models.views.moments import moment

# Beside each, the moment in UTC as isoformat() has it, by hand; None where it means none.
TABLE: list[tuple[Any, str | None]] = [
    ("2026-11-25T09:30:00.123Z", "2026-11-25T09:30:00.123000+00:00"),
    ("2026-11-25T09:30:00Z", "2026-11-25T09:30:00+00:00"),
    ("2026-11-25t09:30:00.123z", "2026-11-25T09:30:00.123000+00:00"),
    ("2026-11-25 09:30:00Z", "2026-11-25T09:30:00+00:00"),
    ("2026-11-25T09:30:00.1Z", "2026-11-25T09:30:00.100000+00:00"),
    ("2026-11-25T09:30:00.123456Z", "2026-11-25T09:30:00.123456+00:00"),
    ("2026-11-25T09:30:00.123456789Z", "2026-11-25T09:30:00.123456+00:00"),
    ("2026-11-25T09:30:00.9999999Z", "2026-11-25T09:30:00.999999+00:00"),
    ("2026-11-25T09:30:00", "2026-11-25T09:30:00+00:00"),
    ("2026-11-25T09:30:00.123", "2026-11-25T09:30:00.123000+00:00"),
    ("2026-11-25T09:30:00+02:00", "2026-11-25T07:30:00+00:00"),
    ("2026-11-25T23:30:00.123-05:30", "2026-11-26T05:00:00.123000+00:00"),
    ("2026-11-25T09:30:00-00:00", "2026-11-25T09:30:00+00:00"),
    ("2026-11-25T09:30:00+23:59", "2026-11-24T09:31:00+00:00"),
    ("2024-02-29T00:00:00.000Z", "2024-02-29T00:00:00+00:00"),
    ("0001-01-01T00:00:00.000Z", "0001-01-01T00:00:00+00:00"),
    ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999000+00:00"),
    # Of the calendar, or out of it.
    ("2026-02-29T00:00:00.000Z", None),
    ("2026-13-01T00:00:00.000Z", None),
    ("0000-01-01T00:00:00.000Z", None),
    ("0001-01-01T00:00:00+05:00", None),
    ("9999-12-31T23:59:59-00:01", None),
    ("2026-11-25T25:00:00.000Z", None),
    ("2026-11-25T23:59:60.000Z", None),
    ("2026-11-25T09:30:00+24:00", None),
    ("2026-11-25T09:30:00+01:60", None),
    # What one Python reads and another does not.
    ("2026-11-25T24:00:00.000Z", None),
    ("2026-11-25T24:00:00", None),
    ("2026-11-25T09:30:00,123Z", None),
    ("2026-11-25", None),
    ("2026-11-25T09", None),
    ("2026-11-25T09:30", None),
    ("2026-11-25T09:30Z", None),
    ("20261125T093000Z", None),
    ("20261125T093000.000000Z", None),
    ("2026-11-25T093000Z", None),
    ("2026-W48-3", None),
    ("2026-W48-3T09:30:00.123Z", None),
    ("2026W483T09:30:00Z", None),
    ("2026-329T09:30:00.000Z", None),
    ("2026-11-25T09:30:00+0200", None),
    ("2026-11-25T09:30:00+02", None),
    ("2026-11-25T09:30:00+02:00:30", None),
    ("2026-11-25T09:30:00.123 Z", None),
    ("2026-11-25x09:30:00.123Z", None),
    ("2026-11-25T09:30:00.Z", None),
    # No text, or not of ASCII digits.
    (" 2026-11-25T09:30:00Z", None),
    ("2026-11-25T09:30:00Z\n", None),
    ("\u0662026-11-25T09:30:00.123Z", None),
    ("2026-11-25T09:30:00.12\u0663Z", None),
    ("2026-11-25T09:30:00.12\ud83dZ", None),
    ("2026-11-25T09:30:0+.123Z", None),
    ("+026-11-25T09:30:00.123Z", None),
    ("1764063000", None),
    (1764063000, None),
    (1764063000.5, None),
    (True, None),
    (None, None),
    (["2026-11-25T09:30:00Z"], None),
    ("", None),
    ("Z", None),
    ("2" * 100_000, None),
]


def said(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


@pytest.mark.parametrize(("written", "expected"), TABLE, ids=lambda value: repr(value)[:40])
def test_views_and_totals_read_a_time_by_the_one_rule(written: Any, expected: str | None) -> None:
    assert said(moment(written)) == expected
    entry = {"type": "user", "uuid": "1", "timestamp": written}
    assert said(parse_entry(entry).timestamp) == expected
    tally = Tally()
    tally.add([entry], "", 1)
    at = moment(written)
    kept = at and at - timedelta(microseconds=at.microsecond % 1000)
    document = tally.document(2)
    assert (document.get("first_at"), document.get("last_at")) == (kept, kept)


def interpreters() -> list[str]:
    """The Pythons of this machine that the package supports, this one included."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [str(path) for path in sorted(versions.glob("3.*/bin/python"))]
    supported = re.compile(r"/3\.(\d+)\.")
    return [
        sys.executable,
        *(path for path in found if (known := supported.search(path)) and int(known[1]) >= 10),
    ]


@pytest.mark.parametrize("python", interpreters())
def test_every_python_reads_a_time_alike(python: str) -> None:
    script = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("moments", sys.argv[1])
moments = importlib.util.module_from_spec(spec)
spec.loader.exec_module(moments)
found = [moments.moment(written) for written in json.load(sys.stdin)]
print(json.dumps([at and at.isoformat() for at in found]))
"""
    finished = subprocess.run(
        [python, "-I", "-c", script, str(moments.__file__)],
        input=json.dumps([written for written, _ in TABLE]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(finished.stdout) == [expected for _, expected in TABLE]


@given(st.datetimes(), st.sampled_from(["Z", "", "+00:00"]), st.booleans())
def test_what_isoformat_writes_is_read(at: datetime, zone: str, is_short: bool) -> None:
    text = at.isoformat(timespec="milliseconds" if is_short else "microseconds") + zone
    at = at.replace(tzinfo=timezone.utc)
    if is_short:
        at -= timedelta(microseconds=at.microsecond % 1000)
    assert moment(text) == at


@given(st.text(alphabet="0123456789-:.TZ+W ,", max_size=30))
def test_no_text_is_too_odd(text: str) -> None:
    found = moment(text)
    assert found is None or found.utcoffset() == timedelta()
