"""Running the steps of a script, and scripts that a team copied into a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any

from beanie import Document, free_fall_migration
from beanie.migrations.controllers.base import BaseMigrationController

from ..app.database.driver import bind_models, database_of, start_session
from ._log import BACKWARD, FORWARD, LOG_COLLECTION, is_applied, write_run
from ._operations import Surroundings, surroundings

ENTRIES = "claude_transcript_entries"


def steps_of(direction: type) -> list[BaseMigrationController]:
    """The steps of a script's ``Forward`` or ``Backward``, in the order of Beanie's own runner."""
    attributes = (getattr(direction, name) for name in dir(direction))
    return [step for step in attributes if isinstance(step, BaseMigrationController)]


async def run_steps(direction: type, lent: Surroundings) -> None:
    """Run one direction of a script, without a transaction.

    Index builds on a collection that holds documents cannot run in one.
    """
    token = surroundings.set(lent)
    try:
        session = await start_session(lent.database.client)
        async with session:
            for step in steps_of(direction):
                await lent.checkpoint()
                for model in step.models:
                    # Indexes are the script's business: under --allow-index-dropping Beanie would
                    # drop those of a Document class that only stands for its collection.
                    await bind_models(lent.database, [model], create_indexes=False)
                await step.run(session)  # pyright: ignore[reportUnknownMemberType]
    finally:
        surroundings.reset(token)


def recorded(
    forward: type,
    backward: type,
    *,
    script: str,
    checksum: str,
    renamed: Mapping[str, str] | None = None,
) -> tuple[type, type]:
    """A copied script's ``Forward`` and ``Backward``, for Beanie's own runner.

    They write to our log, and do nothing where it says that the script ran already, so that
    ``beanie migrate`` and ``upgrade_schema`` agree on what has run.

    Args:
        forward: the script's class.
        backward: the script's class.
        script: the name of the script in the package, whatever the copy's file is called.
        checksum: that of the script in the package.
        renamed: the actual names of collections, by the names in the script.
    """

    def class_for(steps: type, direction: str) -> type:
        # Its collection has no indexes that Beanie could drop.
        class Log(Document):
            class Settings:
                name = LOG_COLLECTION

        async def run_and_record(session: Any) -> None:
            database = database_of(Log)
            names = renamed or {}
            entries = names.get(ENTRIES, ENTRIES)
            applied = await is_applied(database, entries=entries, script=script)
            if applied == (direction == FORWARD):
                return
            started = monotonic()
            await run_steps(steps, Surroundings(database, names))
            await write_run(
                database,
                entries=entries,
                script=script,
                checksum=checksum,
                direction=direction,
                by="beanie migrate",
                seconds=monotonic() - started,
            )

        step = free_fall_migration(document_models=[Log])(run_and_record)
        return type(steps.__name__, (), {"run_and_record": step})

    return class_for(forward, FORWARD), class_for(backward, BACKWARD)
