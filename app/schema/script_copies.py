"""Copies of the scripts for a team that migrates with ``beanie migrate`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .script_stamps import stamp_after_all_in
from .scripts import MigrationScript, packaged_folder, scripts_in

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

    They come after all that is there, and before whatever is made later.

    Args:
        folder: a team's own migrations.
        renamed: the actual names of collections, by the names in the scripts.

    Raises:
        OSError: the folder cannot be read or written.
    """
    there = "".join(path.read_text(encoding="utf-8") for path in folder.glob("[!_]*.py"))
    wanted = [
        script for script in scripts_in(packaged_folder()) if f'script="{script.name}"' not in there
    ]
    if not wanted:
        return []
    # All of one second, so that the last one is not dated ahead of the clock.
    stamp = stamp_after_all_in(folder)
    copied: list[Path] = []
    for number, script in enumerate(wanted, 1):
        path = folder / f"{stamp}{number:02}_{script.name.partition('_')[2]}.py"
        path.write_text(_copy(script, renamed), encoding="utf-8")
        copied.append(path)
    return copied


def _copy(script: MigrationScript, renamed: Mapping[str, str]) -> str:
    names = {name: actual for name, actual in renamed.items() if name != actual}
    footer = _FOOTER.format(script=script.name, checksum=script.checksum, renamed=names or None)
    return script.text + footer
