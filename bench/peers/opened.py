"""All contenders of a measurement, open at the same time on the same servers."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from ..servers import Servers
from .contender import POOL_SIZE, Contender, MongoContender
from .ours import Ours

_numbers = itertools.count(1)


@asynccontextmanager
async def opened(
    servers: Servers,
    classes: Sequence[type[MongoContender] | type[Ours]],
    pool_size: int = POOL_SIZE,
) -> AsyncIterator[list[Contender]]:
    """The MongoDB contenders asked for, and those on the other servers that are running.

    What they stored is dropped at exit.
    """
    prefix = f"bench{next(_numbers)}"
    contenders: list[Contender] = []
    async with AsyncExitStack() as stack:

        def add(contender: Contender) -> None:
            stack.push_async_callback(contender.close)
            contenders.append(contender)

        for each in classes:
            add(await each.open(servers.mongodb, prefix, pool_size=pool_size))
        if servers.redis_port:
            from .redis_lists import RedisLists

            add(await RedisLists.open(servers.redis_port, prefix))
        if servers.postgres_port:
            from .postgres_rows import PostgresRows

            add(await PostgresRows.open(servers.postgres_port, prefix))
        yield contenders
