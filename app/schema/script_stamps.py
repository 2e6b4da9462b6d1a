"""The times in the names of scripts, which are the order in which Beanie runs them."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

_STAMP = "%Y%m%d%H%M%S"
_SECOND = timedelta(seconds=1)


def stamp_after_all_in(folder: Path) -> str:
    """A stamp for a new script, behind every one in a folder and before all that come later.

    Beanie goes on from the newest script that it ran, in the order of the file names, and never
    looks back. It names new scripts by local time, so of that and UTC the one that is behind is
    taken; and where a script was made a moment ago, this waits until its second is over.
    """
    now = min(_clocks())
    newest = max(_stamps_in(folder), default=None)
    if newest is None or newest < now:
        return f"{now:{_STAMP}}"
    stamp = newest + _SECOND
    # One that is further ahead is of another clock, which nobody can wait for.
    while any(timedelta(0) < stamp - clock <= _SECOND for clock in _clocks()):
        time.sleep(0.05)
    return f"{stamp:{_STAMP}}"


def _clocks() -> tuple[datetime, datetime]:
    utc = datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)
    return utc, datetime.now().replace(microsecond=0)


def _stamps_in(folder: Path) -> list[datetime]:
    stamps: list[datetime] = []
    for path in folder.glob("[!_]*.py"):
        if stamped := re.match(r"\d{14}", path.name):
            try:
                stamps.append(datetime.strptime(stamped.group(), _STAMP))
            except ValueError:
                # Digits that are no time.
                continue
    return stamps
