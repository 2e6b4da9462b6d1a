"""``session-store copy``: sessions from another store."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import SessionStoreError, TransferError
from ..exits import MISUSED, fail
from ..python_objects import object_named
from ..root import app, options_of, run
from ..stores import store_on
from ..terminal.progress import finish, problem_shown, progress_shown

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...jobs.report import TransferReport
    from ...sdk import SessionStore
    from ...store import BeanieSessionStore


@app.command("copy")
def copy_command(
    context: typer.Context,
    from_store: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="Any store that the SDK can use, or what makes one: acme.stores:open_store.",
        ),
    ] = None,
    from_url: Annotated[
        str | None,
        typer.Option(
            help="Connection string of the source; without it, the server of --url. "
            "[SESSION_STORE_SOURCE_URL]",
        ),
    ] = None,
    from_database: Annotated[
        str | None,
        typer.Option(help="The source's database; without it, that of its connection string."),
    ] = None,
    from_tenant: Annotated[
        str | None, typer.Option(help="The source's tenant; without it, that of --tenant.")
    ] = None,
    project: Annotated[
        list[str] | None,
        typer.Option(help="Only this project key; may be repeated. Needed with --from-store."),
    ] = None,
    session: Annotated[str | None, typer.Option(help="Only the session of this id.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Sessions to copy at once.")] = 4,
) -> None:
    """Copy sessions from another store, database or tenant.

    They come to --tenant; the source is only read. Run it again after a failure, or to add what
    came since: nothing is stored twice. Exits with 1 if a session could not be copied.

    Example: session-store --tenant acme copy --from-store acme.stores:redis --project=-srv
    """
    from ...jobs.copies import copy_sessions

    if from_store is None:
        from_url = from_url or options_of(context).source_url
    others = [from_url, from_database, from_tenant]
    if from_store is not None and any(others):
        fail("--from-store names the whole source; leave the other --from options out.", MISUSED)
    if from_store is None and not any(others):
        fail("copy from where? Give --from-store, --from-url, --from-database or --from-tenant.", 2)

    async def command(database: Database) -> TransferReport:
        target = await store_on(context, database)
        opened = (
            _other_store(from_store)
            if from_store is not None
            else _our_store(context, database, from_url, from_database, from_tenant)
        )
        async with opened as source:
            with progress_shown("copying") as on_progress:
                return await copy_sessions(
                    source,
                    target,
                    projects=project or None,
                    session_id=session,
                    workers=workers,
                    on_progress=on_progress,
                    on_problem=problem_shown,
                )

    finish(context, run(context, command))


@asynccontextmanager
async def _our_store(
    context: typer.Context,
    target: Database,
    url: str | None,
    name: str | None,
    tenant: str | None,
) -> AsyncGenerator[BeanieSessionStore]:
    from ...storage.client import open_database

    same = target if name is None else target.client[name]
    if url is None:
        if same.name == target.name and tenant in (None, options_of(context).tenant):
            raise TransferError("The source is the target; name another database or tenant.")
        yield await store_on(context, same, upgrade=False, tenant=tenant)
        return
    async with open_database(url, name) as source:
        yield await store_on(context, source, upgrade=False, tenant=tenant)


@asynccontextmanager
async def _other_store(name: str) -> AsyncGenerator[SessionStore]:
    """The store that a name stands for: itself, what a call returns, or what it opens."""
    try:
        found: Any = object_named(name)
        if not _is_store(found) and callable(found):
            found = found()
        if inspect.isawaitable(found):
            found = await found
    except SessionStoreError:
        raise
    # It is code of others.
    except Exception as error:
        raise TransferError(
            f"There is no store {name!r} to copy from ({type(error).__name__}: {error}). Name it "
            "module:name, and run the command where Python finds the module."
        ) from error
    if hasattr(found, "__aenter__") and not _is_store(found):
        async with found as store:
            yield _checked(store, name)
    else:
        yield _checked(found, name)


def _is_store(found: object) -> bool:
    return hasattr(found, "load") and hasattr(found, "append") and not isinstance(found, type)


def _checked(found: Any, name: str) -> SessionStore:
    if not _is_store(found):
        raise TransferError(
            f"{name} is a {type(found).__name__}, which the SDK could not use as a session store."
        )
    return found
