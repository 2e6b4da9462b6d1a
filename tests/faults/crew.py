"""The writer processes of a round: one that a crash point kills is replaced by another."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from . import worker
from .crash import POINTS
from .processes import forking

PROCESSES = 8
_TASKS = 4
_PAUSE_SECONDS = 0.06
# An operation may take 25 s of tries and 30 s more until the driver finds a server, three times.
_LAST_OPERATION_SECONDS = 200.0

# What teams put into connection strings; the guarantees must not depend on it.
_OPTIONS = [
    "",
    "",
    "&w=1&journal=false",
    "&readPreference=secondaryPreferred&readConcernLevel=local",
    "&retryWrites=false&retryReads=false",
    "&connectTimeoutMS=2000&socketTimeoutMS=3000&heartbeatFrequencyMS=1000",
    "&serverSelectionTimeoutMS=5000&heartbeatFrequencyMS=500&socketTimeoutMS=1500",
    "&maxPoolSize=2",
]


@dataclass
class _Hand:
    process: BaseProcess
    name: str
    point: str


class Crew:
    """Hires the processes, replaces the killed ones until ``stop``, and lets them end."""

    def __init__(
        self,
        url: str,
        database: str,
        directory: Path,
        seed: str,
        start: float,
        stop: float,
        *,
        is_huge: bool,
    ) -> None:
        self.crashes: Counter[str] = Counter()
        self.problems: list[str] = []
        self._url = url
        self._directory = directory
        self._common = {
            **{"database": database, "seed": seed, "start_at": start, "stop_at": stop},
            "huge": is_huge,
        }
        self._stop = stop
        self._rng = random.Random(f"{seed}/crew")
        self._points: list[str] = []
        self._hands: list[_Hand] = []
        self._count = 0
        self._thread = threading.Thread(target=self._replace)

    def start(self) -> None:
        self._hands = [self._hire(place) for place in range(PROCESSES)]
        self._thread.start()

    def finish(self) -> None:
        """Wait for the last operations to end."""
        self._thread.join()
        deadline = time.monotonic() + _LAST_OPERATION_SECONDS
        for hand in self._hands:
            hand.process.join(max(deadline - time.monotonic(), 0.1))
            if hand.process.exitcode is None:
                self.problems.append(f"{hand.name}: an operation never ended")
                hand.process.kill()
                hand.process.join()
            else:
                self._bury(hand)

    def _hire(self, place: int) -> _Hand:
        point, nth = "", 0
        # Half of the writers die, each at another point; the others see it all to the end.
        if place % 2:
            self._points = self._points or self._rng.sample(POINTS, len(POINTS))
            point = self._points.pop()
            is_frequent = point.split()[1] in ("update", "insert", "commit")
            nth = self._rng.randint(1, 60 if is_frequent else 3)
        self._count += 1
        name = f"w{place}-{self._count}"
        job = {
            **self._common,
            "name": name,
            "url": self._url + _OPTIONS[place],
            "record": str(self._directory / name),
            "tasks": _TASKS,
            "pause": _PAUSE_SECONDS,
            "clock_skew": self._rng.choice((0, 0, -3600, 86400, 0.5)),
            "crash": [point, nth] if point else None,
        }
        process = forking().Process(target=worker.start, args=(job,))
        process.start()
        return _Hand(process, name, point)

    def _replace(self) -> None:
        while time.monotonic() < self._stop:
            for place, hand in enumerate(self._hands):
                if hand.process.exitcode is not None:
                    self._bury(hand)
                    self._hands[place] = self._hire(place)
            time.sleep(0.2)

    def _bury(self, hand: _Hand) -> None:
        code = hand.process.exitcode
        if code == -signal.SIGKILL and hand.point:
            self.crashes[hand.point] += 1
        elif code:
            log = (self._directory / f"{hand.name}.log").read_text()
            self.problems.append(f"{hand.name} ended with {code}: {log[-1500:]}")
