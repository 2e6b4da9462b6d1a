"""A loopback TCP proxy in front of every member, whose links can be cut, stalled and slowed.

It runs as a process of its own. On stdin it takes its ``rules``, a JSON object per line. A rule
holds for connections ``from`` a side (``"client"`` or a member's index) ``to`` a member, and one
``way`` of them (``"requests"`` or ``"answers"``), opened ``before`` a time of CLOCK_MONOTONIC; what
a rule does not say it leaves open:

- ``"stall"``: bytes are held back, and delivered when the rule is gone, as TCP does after a
  partition; even if the sender has given up meanwhile.
- ``"reset"``: connections are torn down, and new ones refused.
- ``"delay"``: every chunk comes so many seconds later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import sys
import time
from typing import Any, NamedTuple

Side = str | int

# Servers with test commands enabled say it in their first message, for proxies like this one.
_HOST_INFO = re.compile(rb"hostInfo\0.{4}[^\0]+:(\d+)\0", re.DOTALL)


class Connection(NamedTuple):
    side: Side
    target: int
    opened: float


class Links:
    """The rules that hold now, and the connections that they hold for."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.rules: list[dict[str, Any]] = []
        self.open: dict[asyncio.StreamWriter, Connection] = {}
        self._changed = asyncio.Event()

    def order(self, order: dict[str, list[dict[str, Any]]]) -> None:
        self.rules = order["rules"]
        self._changed.set()
        self._changed = asyncio.Event()
        for writer, connection in list(self.open.items()):
            if self.rule("reset", connection):
                writer.transport.abort()

    def rule(self, kind: str, connection: Connection, way: str | None = None) -> Any:
        # A member that cannot reach itself does not find itself in the configuration.
        if connection.side == connection.target:
            return None
        for rule in self.rules:
            if (
                kind in rule
                and rule.get("from") in (None, connection.side)
                and rule.get("to") in (None, connection.target)
                and (way is None or rule.get("way") in (None, way))
                and connection.opened < rule.get("before", math.inf)
            ):
                return rule[kind]
        return None

    async def pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: Connection,
        way: str,
        data: bytes = b"",
    ) -> None:
        with contextlib.suppress(OSError):
            while data := data or await reader.read(1 << 16):
                while self.rule("stall", connection, way):
                    await self._changed.wait()
                if delay := self.rule("delay", connection, way):
                    await asyncio.sleep(delay)
                writer.write(data)
                await writer.drain()
                data = b""
        writer.close()

    async def serve(
        self, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            side, first = await self._side(reader)
            connection = self.open[writer] = Connection(side, target, time.monotonic())
            if self.rule("reset", connection):
                raise ConnectionRefusedError
            answers, onward = await asyncio.open_connection("127.0.0.1", self.ports[target])
            self.open[onward] = connection
            try:
                await asyncio.gather(
                    self.pass_on(reader, onward, connection, "requests", first),
                    self.pass_on(answers, writer, connection, "answers"),
                )
            finally:
                del self.open[onward]
                onward.close()
        except OSError:
            writer.transport.abort()
        finally:
            self.open.pop(writer, None)
            writer.close()

    async def _side(self, reader: asyncio.StreamReader) -> tuple[Side, bytes]:
        """Who opens a connection, and its first bytes: members say which port is theirs."""
        first = await reader.read(1 << 16)
        said = _HOST_INFO.search(first)
        if said and int(said[1]) in self.ports:
            return self.ports.index(int(said[1])), first
        return "client", first


async def main(ports: list[int]) -> None:
    links = Links(ports)
    servers = []
    for target in range(len(ports)):

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int = target
        ) -> None:
            await links.serve(target, reader, writer)

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024))
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin
    )
    # It ends with the process that started it.
    while line := await stdin.readline():
        links.order(json.loads(line))
        print("done", flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main([int(port) for port in sys.argv[1:]]))
