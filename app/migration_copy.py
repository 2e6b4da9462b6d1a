"""Copies of the scripts for a team that migrates with ``beanie migrate`` alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

from .migration_scripts import MigrationScript, packaged_folder, scripts_in

_STAMP = "%Y%m%d%H%M%S"

_FOOTER = """

# Added by `session-store schema copy`. It makes `beanie migrate` and `session-store schema` agree
# on what has run; keep it as it is.
from beanie_session_store.migrations._runner import recorded  # noqa: E402

Forward, Backward = recorded(
    Forward,
    Backward,
    script="{script}",
    checksum="{checksum}",
    renamed={renamed},
)
"""


def copy_scripts(folder: Path, renamed: Mapping[str, str]) -> list[Path]:
    """Copy the scripts that are not in a folder yet, and return the new files.

    Beanie goes on from the newest script that it ran, in the order of the file names, and never
    looks back; so the copies are dated to come after all that is there.

    Args:
        folder: a team's own migrations.
        renamed: the actual names of collections, by the names in the scripts.

    Raises:
        OSError: the folder cannot be read or written.
    """
    there = "".join(path.read_text(encoding="utf-8") for path in folder.glob("[!_]*.py"))
    stamp = _stamp_after_all_in(folder)
    copied: list[Path] = []
    for script in scripts_in(packaged_folder()):
        if f'script="{script.name}"' in there:
            continue
        stamp += timedelta(seconds=1)
        path = folder / f"{stamp:{_STAMP}}_{script.name.partition('_')[2]}.py"
        path.write_text(_copy(script, renamed), encoding="utf-8")
        copied.append(path)
    return copied


def _copy(script: MigrationScript, renamed: Mapping[str, str]) -> str:
    names = {name: actual for name, actual in renamed.items() if name != actual}
    footer = _FOOTER.format(script=script.name, checksum=script.checksum, renamed=names or None)
    return script.text + footer


def _stamp_after_all_in(folder: Path) -> datetime:
    newest = datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)
    for path in folder.glob("[!_]*.py"):
        # Others date them by local time, which may be ahead of ours.
        stamped = re.match(r"\d{14}", path.name)
        if stamped:
            newest = max(newest, datetime.strptime(stamped.group(), _STAMP))
    return newest
