"""What all runs over many sessions share: how many at once, and what ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TypeVar

from ..errors import (
    AccessDeniedError,
    AuditUnavailableError,
    ClientClosedError,
    DriverMismatchError,
    EventLoopError,
    InvalidModelError,
    KeyServiceError,
    NotInitializedError,
    SchemaOutdatedError,
    SchemaTooNewError,
    SessionStoreError,
    TransferError,
    UnfitCollectionError,
    UnreachableError,
)
from ..text import shown
from .cancellation import cancel_and_wait, settled

T = TypeVar("T")

KEPT_PROBLEMS = 100
"""How many problems a report names; whoever wants all is called with each."""

_MAX_WORKERS = 1000

# Longer than the tries of one append.
_SETTLE_SECONDS = 60.0

ENDS_A_RUN = (
    AccessDeniedError,
    AuditUnavailableError,
    ClientClosedError,
    DriverMismatchError,
    EventLoopError,
    KeyServiceError,
    InvalidModelError,
    NotInitializedError,
    SchemaOutdatedError,
    SchemaTooNewError,
    UnfitCollectionError,
    UnreachableError,
)
"""What every other session would meet as well."""


def checked_workers(workers: object, error: type[SessionStoreError] = TransferError) -> int:
    """How many sessions to deal with at once.

    Raises:
        SessionStoreError: ``error``, for what is no such number.
    """
    if type(workers) is not int or not 1 <= workers <= _MAX_WORKERS:
        raise error(
            f"workers must be an int from 1 to {_MAX_WORKERS}, not {shown(workers, 40)}; nothing "
            "was written."
        )
    return workers


async def in_parallel(
    items: AsyncIterable[T], work: Callable[[T], Awaitable[None]], workers: int
) -> None:
    """Do ``work`` for each item, for as many at once as there are workers.

    The first failure ends it, once the writes under way have ended.
    """
    remaining = aiter(items)
    one_at_a_time = asyncio.Lock()

    async def worker() -> None:
        while True:
            async with one_at_a_time:
                try:
                    item = await anext(remaining)
                except StopAsyncIteration:
                    return
            await work(item)

    tasks = [asyncio.create_task(worker()) for _ in range(workers)]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(*tasks)
        # A write under way ends before the caller may close the client.
        await settled(_SETTLE_SECONDS)
