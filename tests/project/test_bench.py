"""The benchmark measures stores that store, over a network that is slow, and reports it all."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pymongo import MongoClient

from beanie_session_store.bench import chart, report
from beanie_session_store.bench.entries import TURN_ENTRIES, EntrySource
from beanie_session_store.bench.measures import Samples, interleaved, ratio
from beanie_session_store.bench.peers.contender import Contender
from beanie_session_store.bench.peers.floor import Floor
from beanie_session_store.bench.peers.mongodb_package import MongodbPackage
from beanie_session_store.bench.peers.opened import opened
from beanie_session_store.bench.peers.ours import Ours
from beanie_session_store.bench.peers.pr1014 import PullRequest1014
from beanie_session_store.bench.peers.same_writes import SameWrites
from beanie_session_store.bench.proxy import delayed
from beanie_session_store.bench.results import Chart, Section, Verdict
from beanie_session_store.bench.servers import Servers, _postgres, _redis

ROOT = Path(__file__).parents[2]
MONGODB = (Floor, SameWrites, Ours, PullRequest1014, MongodbPackage)
LISTED = {"ours", "pr1014", "mongodb_package", "redis"}


@pytest.fixture(scope="module")
def servers(mongo_url: str) -> Iterator[Servers]:
    with _redis() as redis_port, _postgres() as postgres_port:
        yield Servers(mongo_url, redis_port, postgres_port)


@pytest.fixture
async def contenders(servers: Servers) -> AsyncIterator[list[Contender]]:
    async with opened(servers, MONGODB) as found:
        yield found


async def test_every_contender_gives_back_what_it_stored(contenders: list[Contender]) -> None:
    source = EntrySource()
    key, other = source.session(), source.session()
    batches = [source.batch(size) for size in (TURN_ENTRIES, 1, 60)]
    expected = [entry for batch in batches for entry in batch]
    for contender in contenders:
        for batch in batches:
            await contender.append(key, batch)
            await contender.append(other, source.batch(1))
        assert await contender.load(key) == expected, contender.name


async def test_cloned_sessions_are_listed_and_hold_what_the_original_does(
    contenders: list[Contender],
) -> None:
    source = EntrySource()
    batch = source.batch(TURN_ENTRIES)
    for project in ("-srv-one", "-srv-two"):
        key = EntrySource(seed=2).session(project)
        names = [source.session()["session_id"] for _ in range(3)]
        everyone = sorted([key["session_id"], *names])
        for contender in contenders:
            await contender.append(key, batch)
            await contender.clone(key, names)
            for session_id in everyone:
                clone = await contender.load({**key, "session_id": session_id})
                assert clone == batch, contender.name
            if contender.name in LISTED:
                listed = await contender.list_sessions(project)
                assert sorted(each["session_id"] for each in listed) == everyone, contender.name
                folds = await contender.list_session_summaries(project)
                assert sorted(each["session_id"] for each in folds) == everyone, contender.name
                first, *others = [fold["data"] for fold in folds]
                assert first
                assert others == [first] * 3, contender.name


async def test_all_store_and_read_over_the_slow_network(servers: Servers) -> None:
    source = EntrySource()
    key, batch = source.session(), source.batch(500)
    with servers.slowed(1) as slowed:
        assert slowed.mongodb != servers.mongodb
        async with opened(slowed, MONGODB) as contenders:
            for contender in contenders:
                await contender.append(key, batch)
                assert await contender.load(key) == batch, contender.name


def test_the_slow_network_holds_back_every_round_trip(mongo_url: str) -> None:
    with MongoClient(mongo_url) as direct:
        direct.admin.command("ping")
        port = direct.primary[1]
    with delayed(port, 80) as slow, MongoClient(port=slow, directConnection=True) as client:
        client.admin.command("ping")
        begin = time.monotonic()
        client.admin.command("ping")
        # It cannot be sooner, whatever the machine does meanwhile.
        assert time.monotonic() - begin >= 0.08


def test_batches_have_the_asked_size_and_new_uuids() -> None:
    source = EntrySource()
    seen: set[str] = set()
    for size in (1, TURN_ENTRIES, 500):
        batch = source.batch(size)
        assert len(batch) == size
        uuids = [entry["uuid"] for entry in batch if "uuid" in entry]
        assert len(set(uuids)) == len(uuids)
        assert not seen.intersection(uuids)
        seen.update(uuids)
    assert len(source.light(100)) == 100


async def test_each_contender_takes_one_turn_in_every_round() -> None:
    taken: list[str] = []

    def turn(name: str):
        async def take() -> float:
            taken.append(name)
            return float(len(taken))

        return take

    found = await interleaved({name: turn(name) for name in "abc"}, rounds=20, warm_up=2)
    rounds = ["".join(taken[at : at + 3]) for at in range(0, len(taken), 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 1, "always in the same order"
    assert [len(samples.values) for samples in found.values()] == [20, 20, 20]
    assert min(min(samples.values) for samples in found.values()) > 6, "warm-up was counted"


def test_a_ratio_is_of_medians_and_its_interval_shows_the_spread() -> None:
    steady, noisy = Samples((2.0,) * 20), Samples((1.0, 1.0, 1.0, 9.0) * 5)
    assert ratio(steady, steady).value == 1
    found = ratio(steady, noisy)
    assert (found.value, found.high) == (2.0, 2.0)
    assert found.low <= found.value


def test_report_says_which_targets_were_missed_and_the_chart_is_valid() -> None:
    samples = {"ours": Samples((1.0, 2.0, 3.0)), "a & b": Samples((4.0,))}
    section = Section("Speed", "All of it.", ["", "ms"], [["ours", "2"]])
    section.verdicts = [Verdict("fast", "2.0", True), Verdict("faster", "0.5", False)]
    text = report.markdown({"cores": "2"}, [section], "results.svg")
    assert "| fast | 2.0 | reached |" in text
    assert "| faster | 0.5 | **not reached** |" in text
    assert "| ours | 2 |" in text
    root = ElementTree.fromstring(chart.svg([Chart("Speed", "ms", {"near": samples})], "ours"))
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ours", "a & b", "near"} <= set(texts)


@pytest.mark.soak
def test_a_quick_run_writes_its_report(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--only", "disk", "--output", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "RESULTS.md").read_text()
    assert "bytes per entry" in text
    assert "mongodb_package" in text
    ElementTree.parse(tmp_path / "results.svg")
