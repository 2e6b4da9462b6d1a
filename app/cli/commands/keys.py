"""``session-store keys``: the keys that contents are encrypted with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...text import line
from ..confirm import require_consent
from ..exits import FAILED, MISUSED, fail
from ..root import app, options_of, run, show
from ..stores import store_on
from ..terminal.figures import counted
from ..terminal.throttle import lines_on_progress

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...encryption.keyring import KeyStatus, Rotation
    from ...jobs.sealing import SealingReport

keys = typer.Typer(no_args_is_help=True, help="Keys that sessions are encrypted with.")
app.add_typer(keys, name="keys")


@keys.command("new")
def new_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to make.")],
    add: Annotated[
        bool,
        typer.Option("--add", help="Add a key to a file that is there; it wraps what is new."),
    ] = False,
) -> None:
    """Make a file of keys that its owner alone may read.

    A file that is there is never overwritten. Keep a copy where the database's backups are not:
    without it nobody can read what was encrypted.

    Example: session-store keys new /run/secrets/session-keys
    """
    try:
        from ...encryption.local_keys import LocalKeys
    except ModuleNotFoundError as missing:
        fail(
            f"keys need {missing.name}, which is not installed: pip install "
            "'beanie-session-store[encryption]'"
        )
    from ...errors import InvalidKeyFileError

    try:
        if add:
            LocalKeys(file).add()
        else:
            LocalKeys.generate(file)
    except InvalidKeyFileError as error:
        fail(str(error), MISUSED)
    except OSError as error:
        fail(f"{file} cannot be written ({error.strerror or type(error).__name__}).")
    done = "added a key to" if add else "made"
    show(context, {"file": str(file), "added": add}, f"{done} {file}")


@keys.command("status")
def status_command(context: typer.Context) -> None:
    """Say how many keys there are, and what wrapped them.

    Example: session-store --keys /run/secrets/session-keys keys status
    """
    _require_keys(context)

    async def command(database: Database) -> KeyStatus:
        store = await store_on(context, database, upgrade=False)
        return await store.key_status()

    found = run(context, command)
    wrapped = [
        f"{counted(count, 'key')} wrapped by {line(name)}"
        for name, count in sorted(found.by_wrapping_key.items())
    ]
    said = [f"{counted(found.keys, 'key')} in use, {found.destroyed} destroyed", *wrapped]
    show(context, asdict(found), "\n".join(said))


@keys.command("rotate")
def rotate_command(context: typer.Context) -> None:
    """Wrap all keys anew with the last one of the file.

    Safe while agents write; run it again after a failure. Sessions are not touched.

    Example: session-store --keys /run/secrets/session-keys keys rotate
    """
    _require_keys(context)

    async def command(database: Database) -> Rotation:
        store = await store_on(context, database, upgrade=False)
        return await store.rotate_keys(on_progress=lines_on_progress())

    found = run(context, command)
    show(context, asdict(found), str(found))


@keys.command("seal")
def seal_command(
    context: typer.Context,
    workers: Annotated[int, typer.Option(min=1, help="Sessions at once.")] = 4,
) -> None:
    """Encrypt what is stored plain of the sessions of --tenant.

    Safe while agents write, which should encrypt already; run it again after a failure. Exits with
    1 if something could not be encrypted.

    Example: session-store --tenant acme --keys /run/secrets/session-keys keys seal
    """
    _require_keys(context)

    async def command(database: Database) -> SealingReport:
        from ...jobs.sealing import seal_sessions

        store = await store_on(context, database)
        return await seal_sessions(store, workers=workers, on_progress=lines_on_progress())

    report = run(context, command)
    for problem in report.problems:
        typer.echo(f"problem: {line(str(problem), 1000)}", err=True)
    show(context, report.as_json(), str(report))
    if report.failed:
        raise typer.Exit(FAILED)


@keys.command("destroy")
def destroy_command(
    context: typer.Context,
    subject: Annotated[
        str, typer.Argument(metavar="SUBJECT", help="Whose: the value in its sessions' metadata.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Destroy a subject's key: its sessions can never be read.

    Example: session-store --tenant acme --keys /run/secrets/session-keys keys destroy u1
    """
    _require_keys(context)
    tenant = options_of(context).tenant
    require_consent(
        f"Destroy the key of {line(subject)} of tenant {line(tenant)}? Nobody can read its "
        "sessions any more then.",
        yes,
    )

    async def command(database: Database) -> bool:
        store = await store_on(context, database, upgrade=False)
        return await store.destroy_key(subject)

    destroyed = run(context, command)
    show(context, {"destroyed": destroyed}, "destroyed" if destroyed else "there was no such key")


def _require_keys(context: typer.Context) -> None:
    if options_of(context).settings.keys is None:
        fail("no keys are given. Set --keys FILE, or SESSION_STORE_KEYS.", MISUSED)
