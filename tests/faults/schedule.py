"""Which fault comes when, drawn from a seed."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from .cluster import Cluster

_STORM = 150
# What a deposed primary takes at most to hear of it, once the others can be heard again.
_STEP_DOWN_SECONDS = 3.0

Step = tuple[str, float, float]
"""A fault's name, how long it lasts and the pause before it, in seconds."""


def kill_primary(cluster: Cluster, seconds: float) -> None:
    _kill(cluster, cluster.primary(), seconds)


def kill_secondary(cluster: Cluster, seconds: float) -> None:
    _kill(cluster, (cluster.primary() + 1) % 3, seconds)


def step_down(cluster: Cluster, seconds: float) -> None:
    cluster.step_down(cluster.primary(), max(int(seconds), 1))
    time.sleep(seconds)


def freeze_primary(cluster: Cluster, seconds: float) -> None:
    _freeze(cluster, [cluster.primary()], seconds)


def freeze_secondaries(cluster: Cluster, seconds: float) -> None:
    """The primary takes writes that no majority confirms, until it notices and steps down."""
    primary = cluster.primary()
    _freeze(cluster, [index for index in range(3) if index != primary], seconds)


def fill_disk(cluster: Cluster, seconds: float) -> None:
    """See ``Cluster.limit_file_size``."""
    victim = cluster.primary()
    cluster.limit_file_size(victim)
    time.sleep(seconds)
    _kill(cluster, victim, 0)


def isolate_primary(cluster: Cluster, seconds: float) -> None:
    victim = cluster.primary()
    _links(cluster, seconds, {"stall": True, "to": victim}, {"stall": True, "from": victim})


def isolate_primary_from_members(cluster: Cluster, seconds: float) -> None:
    """Clients still reach the old primary, which goes on until it notices."""
    victim = cluster.primary()
    peers = [{"stall": True, "from": index, "to": victim} for index in range(3)]
    _links(cluster, seconds, *peers, {"stall": True, "from": victim})


def lose_requests(cluster: Cluster, seconds: float) -> None:
    victim = cluster.primary()
    rule = {"stall": True, "from": "client", "to": victim, "way": "requests"}
    _links(cluster, seconds, rule)


def lose_answers(cluster: Cluster, seconds: float) -> None:
    victim = cluster.primary()
    rule = {"stall": True, "from": "client", "to": victim, "way": "answers"}
    _links(cluster, seconds, rule)


def members_deaf_one_way(cluster: Cluster, seconds: float) -> None:
    """The primary hears the others, and they do not hear it."""
    _links(cluster, seconds, {"stall": True, "from": cluster.primary()})


def reset_connections(cluster: Cluster, seconds: float) -> None:
    for _ in range(max(int(seconds * 2), 1)):
        _links(cluster, 0.2, {"reset": True, "from": "client", "to": cluster.primary()})
        time.sleep(0.3)


def slow_links(cluster: Cluster, seconds: float) -> None:
    _links(cluster, seconds, {"delay": 0.03})


def slow_members(cluster: Cluster, seconds: float) -> None:
    """A majority takes long to confirm."""
    rules = [{"delay": 0.15, "from": index} for index in range(3)]
    _links(cluster, seconds, *rules)


def connection_storm(cluster: Cluster, seconds: float) -> None:
    clients: list[MongoClient[dict[str, Any]]] = []
    try:
        for _ in range(_STORM):
            clients.append(MongoClient(cluster.url, serverSelectionTimeoutMS=500))
        time.sleep(seconds)
    finally:
        for client in clients:
            client.close()


FAULTS: dict[str, Callable[[Cluster, float], None]] = {
    fault.__name__: fault
    for fault in (
        kill_primary,
        kill_secondary,
        step_down,
        freeze_primary,
        freeze_secondaries,
        fill_disk,
        isolate_primary,
        isolate_primary_from_members,
        lose_requests,
        lose_answers,
        members_deaf_one_way,
        reset_connections,
        slow_links,
        slow_members,
        connection_storm,
    )
}


DEPOSING = frozenset(
    {
        "freeze_primary",
        "freeze_secondaries",
        "isolate_primary",
        "isolate_primary_from_members",
        "members_deaf_one_way",
    }
)
"""After these a primary may not know for a moment that another one was elected."""


def plan(seed: str) -> list[Step]:
    """Faults in random order, all kinds of them before one comes again."""
    rng = random.Random(seed)
    steps: list[Step] = []
    for _ in range(4):
        names = list(FAULTS)
        rng.shuffle(names)
        steps += [(name, rng.uniform(0.5, 5), rng.uniform(0.2, 2)) for name in names]
    return steps


def play(cluster: Cluster, steps: list[Step], until: float, log: Path) -> Counter[str]:
    """Put the faults on one after the other until the time (monotonic seconds)."""
    done: Counter[str] = Counter()
    while steps and time.monotonic() < until:
        name, seconds, pause = steps.pop(0)
        time.sleep(pause)
        start = time.monotonic()
        FAULTS[name](cluster, seconds)
        done[name] += 1
        with log.open("a") as lines:
            print(f"{start:.3f} {time.monotonic():.3f} {name}", file=lines)
    return done


def deposed_times(log: Path) -> list[tuple[float, float]]:
    """When a deposed primary may have answered, from what ``play`` noted."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [
        (float(start), float(end) + _STEP_DOWN_SECONDS)
        for start, end, name in lines
        if name in DEPOSING
    ]


def _kill(cluster: Cluster, victim: int, seconds: float) -> None:
    cluster.kill(victim)
    time.sleep(seconds)
    cluster.restart(victim)


def _freeze(cluster: Cluster, victims: list[int], seconds: float) -> None:
    for victim in victims:
        cluster.freeze(victim)
    try:
        time.sleep(seconds)
    finally:
        for victim in victims:
            cluster.thaw(victim)


def _links(cluster: Cluster, seconds: float, *rules: dict[str, Any]) -> None:
    cluster.links(*rules)
    try:
        time.sleep(seconds)
    finally:
        cluster.links()
