"""The members of a replica set, as the driver reaches them from here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..database.driver import Client, Record

_SECONDS = 5.0
_POLL_SECONDS = 0.05

_ADVICE = (
    (("ssl", "tls"), "Agree on TLS: tls=true, and tlsCAFile=... for an authority of your own."),
    (("closed", "reset"), "It hangs up: perhaps it wants TLS (tls=true), or is no MongoDB server."),
    (("replica set",), "Correct replicaSet=... in the connection string."),
    (
        ("refused", "connect call failed"),
        "Nothing listens there: start mongod, or correct host and port.",
    ),
    (
        ("not known", "name resolution", "getaddrinfo", "nodename"),
        "The name is not known here: correct it, or let the names that the members of a replica "
        "set have for each other (rs.conf()) resolve on this machine too.",
    ),
    (("",), "It does not answer in time: look at firewalls, allow lists and the network between."),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """A server that is not reached."""

    address: str
    what: str
    """The driver's words, on one line."""
    advice: str

    def __str__(self) -> str:
        return f"{self.address}: {self.what}"


@dataclass(frozen=True, slots=True)
class Members:
    """A replica set."""

    name: str
    with_data: tuple[str, ...]
    arbiters: tuple[str, ...]
    primary: str | None
    """As the members themselves have it."""
    is_direct: bool
    """Whether the client talks to one member only, whatever is elected."""
    away: tuple[Problem, ...]

    @property
    def survives_a_loss(self) -> bool:
        """Whether a majority can have a write while one member with data is away."""
        votes = len(self.with_data) + len(self.arbiters)
        return len(self.with_data) - 1 >= votes // 2 + 1

    def __str__(self) -> str:
        count = len(self.with_data)
        text = f"replica set {self.name} of {count} member{'s'[: count != 1]}"
        if self.arbiters:
            text += f" and {len(self.arbiters)} arbiter{'s'[: len(self.arbiters) != 1]}"
        return text if self.primary is None else f"{text}, primary {self.primary}"


async def look_around(client: Client, hello: Record) -> Members:
    """The replica set that a member tells of, once each of them was tried."""
    is_direct = client.topology_description.topology_type_name == "Single"
    deadline = time.monotonic() + _SECONDS
    while _untried(client) and time.monotonic() < deadline:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(_POLL_SECONDS)
    return Members(
        name=hello["setName"],
        with_data=(*hello.get("hosts", ()), *hello.get("passives", ())),
        arbiters=tuple(hello.get("arbiters", ())),
        primary=hello.get("primary") or _known_primary(client),
        is_direct=is_direct,
        away=() if is_direct else problems(client),
    )


def problems(client: Client) -> tuple[Problem, ...]:
    """The servers that the client knows of and cannot use."""
    return tuple(
        _problem(description)
        for description in _descriptions(client)
        if description.server_type_name == "Unknown" and description.error is not None
    )


def joined_advice(problems: Sequence[Problem]) -> str:
    """What to do about all of them."""
    return " ".join(dict.fromkeys(problem.advice for problem in problems))


def advice_on(what: str) -> str:
    """What to do about a server that is not reached, by the driver's words for it."""
    said = what.lower()
    return next(advice for words, advice in _ADVICE if any(word in said for word in words))


def _problem(description: Any) -> Problem:
    host, port = description.address
    # The driver begins with the address, and goes on with its settings.
    what = str(description.error).split(" (configured timeouts")[0].removeprefix(f"{host}:{port}: ")
    what = " ".join(what.split())[:200]
    return Problem(f"{host}:{port}", what, advice_on(what))


def _untried(client: Client) -> bool:
    return any(
        each.server_type_name == "Unknown" and each.error is None for each in _descriptions(client)
    )


def _known_primary(client: Client) -> str | None:
    for each in _descriptions(client):
        if each.server_type_name == "RSPrimary":
            return "{}:{}".format(*each.address)
    return None


def _descriptions(client: Client) -> Iterator[Any]:
    descriptions = client.topology_description.server_descriptions()
    yield from (descriptions[address] for address in sorted(descriptions))
