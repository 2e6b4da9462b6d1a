"""The store that the global options name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .own_prices import prices_named
from .root import models_of, options_of

if TYPE_CHECKING:
    from ..database.driver import Database
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
    )
