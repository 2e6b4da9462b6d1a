"""The store that the global options name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .exits import MISUSED, fail
from .own_prices import prices_named
from .root import models_of, options_of

if TYPE_CHECKING:
    from ..database.driver import Database
    from ..encryption.encryption import Encryption
    from ..store import BeanieSessionStore


async def store_on(
    context: typer.Context, database: Database, *, upgrade: bool = True, tenant: str | None = None
) -> BeanieSessionStore:
    """A store on a database, of ``--tenant`` unless said, with its schema brought up to date."""
    from ..schema.versions import upgrade_schema
    from ..store import BeanieSessionStore

    models = models_of(context)
    if upgrade:
        await upgrade_schema(database, entries=models.entries, summaries=models.summaries)
    options = options_of(context)
    return BeanieSessionStore.on(
        database,
        tenant=options.tenant if tenant is None else tenant,
        audit=options.actor is not None,
        actor=options.actor,
        entries=models.entries,
        summaries=models.summaries,
        prices=prices_named(options.settings.prices),
        encryption=encryption_of(context),
    )


def encryption_of(context: typer.Context) -> Encryption | None:
    """With which keys the store encrypts, if any are given; ends the process as `run`."""
    settings = options_of(context).settings
    if settings.keys is None:
        if settings.keys_subject is not None:
            fail("--keys-subject is for --keys, which is not given.", MISUSED)
        return None
    from ..encryption.encryption import Encryption

    try:
        from ..encryption.local_keys import LocalKeys
    except ModuleNotFoundError as missing:
        fail(
            f"--keys needs {missing.name}, which is not installed: pip install "
            "'beanie-session-store[encryption]'"
        )
    try:
        return Encryption(LocalKeys(settings.keys), subject=settings.keys_subject)
    except ImportError as error:
        fail(str(error))
    except OSError as error:
        fail(f"the file of keys {settings.keys} cannot be read ({error.strerror}).", MISUSED)
    except ValueError as error:
        fail(str(error), MISUSED)
