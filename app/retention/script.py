"""A migration script that changes a retention policy, for a team's own history."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType

from ..every import EVERY, Every
from ..schema.script_stamps import stamp_after_all_in

_TEMPLATE = '''"""{title}"""

from datetime import timedelta

from beanie import Document, free_fall_migration
from beanie_session_store import EVERY, clear_retention, database_of, set_retention
{imports}
TENANT = {tenant!r}
PROJECT_KEY = {project_key!r}
{classes}

class Anchor(Document):
    """Tells the steps below which database they work on."""

    class Settings:
        name = "claude_transcript_migrations"


class Forward:
    @free_fall_migration(document_models=[Anchor])
    async def change_retention(self, session):
        database = database_of(Anchor)
        {forward}


class Backward:
    @free_fall_migration(document_models=[Anchor])
    async def restore_retention(self, session):
        database = database_of(Anchor)
        {backward}
'''


@dataclass(frozen=True, slots=True)
class ScriptClasses:
    """The Document classes whose sessions a script dates, as ``module:Class``; ``None`` is ours."""

    entries: str | None = None
    summaries: str | None = None

    def _given(self) -> dict[str, str]:
        both = {"entries": self.entries, "summaries": self.summaries}
        return {role: name for role, name in both.items() if name is not None}

    @property
    def imports(self) -> str:
        """The lines that import them, with an empty one before."""
        modules = sorted({name.partition(":")[0] for name in self._given().values()})
        return "".join(f"\nimport {each}" for each in modules) + "\n" * bool(modules)

    @property
    def constants(self) -> str:
        """The lines that name them."""
        return "".join(
            f"{role.upper()} = {name.replace(':', '.')}\n" for role, name in self._given().items()
        )

    @property
    def arguments(self) -> str:
        """How they are passed, behind other arguments."""
        return "".join(f", {role}={role.upper()}" for role in self._given())


def write_retention_script(
    folder: Path,
    keep: timedelta | None,
    previous: list[timedelta | None],
    tenant: str | Every,
    project_key: str | Every,
    classes: ScriptClasses,
) -> Path:
    """Write a Beanie migration that sets a policy forward and restores the previous one backward.

    Args:
        folder: the team's folder of migrations.
        keep: what the policy becomes; ``None`` is for ever.
        previous: what it is now, as a list of one; empty where there is no such policy.
        tenant: the tenant, or ``EVERY``.
        project_key: the project key, or ``EVERY``.
        classes: the Document classes, where a team has its own.

    Returns:
        The path of the new script.

    Raises:
        FileExistsError: there is a script of that name; nothing is overwritten.
    """
    until = "for ever" if keep is None else f"for {spelled(keep)}"
    owner = f"tenant=TENANT, project_key=PROJECT_KEY{classes.arguments}"
    change = f"await set_retention(database, {{}}, {owner})"
    restored = f"await clear_retention(database, {owner})"
    if previous:
        restored = change.format(_literal(previous[0]))
    source = _TEMPLATE.format(
        title=f"Keep idle sessions {until}.",
        tenant=tenant,
        project_key=project_key,
        imports=classes.imports,
        classes=classes.constants,
        forward=change.format(_literal(keep)),
        backward=restored,
    )
    if "timedelta(seconds" not in source:
        source = source.replace("from datetime import timedelta\n\n", "")
    if "clear_retention(" not in source:
        source = source.replace("clear_retention, ", "", 1)
    if EVERY not in (tenant, project_key):
        source = source.replace("import EVERY, ", "import ")
    # Before what somebody makes in the same second.
    stamp = f"{stamp_after_all_in(folder)}00"
    path = folder / f"{stamp}_keep_sessions_{re.sub('[^a-z0-9]+', '_', until)}.py"
    with path.open("x") as script:
        script.write(source)
    return path


_NAMES = {"TENANT", "PROJECT_KEY", "Anchor", "Forward", "Backward"}


def as_scripts_mean(
    tenant: str | Every, project_key: str | Every, called: FrameType | None
) -> tuple[str | Every, str | Every]:
    """Whose policy it is that the caller of a function named; ``called`` is its frame.

    Scripts of ours in the folders of teams that were written before there was ``EVERY`` say
    ``"*"`` for it; nobody else may.
    """
    caller = None if called is None else called.f_back
    if caller is None or not caller.f_globals.keys() >= _NAMES:
        return tenant, project_key
    every = EVERY.value
    return (
        EVERY if tenant == every else tenant,
        EVERY if project_key == every else project_key,
    )


_UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}


def parsed(text: str) -> timedelta | None:
    """The time that ``30d``, ``2w``, ``12h``, ``90m``, ``45s`` or ``forever`` says.

    Raises:
        ValueError: it is none of these.
    """
    if text == "forever":
        return None
    found = re.fullmatch(r"([0-9]{1,9})([wdhms])", text)
    if found is None:
        raise ValueError(f"{text!r} is no time: write 30d, 2w, 12h, 90m, 45s or forever")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def spelled(keep: timedelta | None) -> str:
    """The shortest form that :func:`parsed` reads."""
    if keep is None:
        return "forever"
    seconds = round(keep.total_seconds())
    unit = next(unit for unit, size in _UNITS.items() if seconds % size == 0 and unit != "w")
    return f"{seconds // _UNITS[unit]}{unit}"


def _literal(keep: timedelta | None) -> str:
    return "None" if keep is None else f"timedelta(seconds={round(keep.total_seconds())})"
