"""``session-store health``: one look, for the health check of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..exits import FAILED
from ..root import app, run, show
from ..stores import store_on

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...health.readiness import Readiness


@app.command("health")
def health_command(
    context: typer.Context,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which no answer is one.")
    ] = 2.0,
) -> None:
    """Say whether the store can be used now: exits with 0 or 1.

    Whether it can append and read with its promises, that is. Nothing is stored; doctor says more.

    Example: session-store --url mongodb://localhost/claude health --timeout 5
    """

    async def command(database: Database) -> Readiness:
        store = await store_on(context, database, upgrade=False)
        return await store.readiness(timeout=timeout)

    found = run(context, command)
    said = "ready" if found.is_ready else f"not ready: {found.reason}"
    show(context, {"ready": found.is_ready, "reason": found.reason}, said)
    if not found.is_ready:
        raise typer.Exit(FAILED)
