"""What holds for plain sessions holds for encrypted ones: the same properties, with keys."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from counting.test_counting import (
    test_any_story_is_counted_as_the_independent_count_does as any_story_is_counted,
)
from counting.test_totals import KEY, TotalsModel, counted, naive
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from writing.test_exactly_once import (
    test_random_replays_never_lose_or_double as random_replays_never_lose_or_double,
)
from writing.test_lossless_entries import (
    test_any_json_comes_back_and_is_summarised_as_the_sdk_would as any_json_comes_back,
)
from writing.test_lossless_entries import (
    test_deeply_nested_json_comes_back as deeply_nested_json_comes_back,
)
from writing.test_store_model import (
    test_the_store_does_what_a_dict_of_lists_does as the_store_does_what_a_dict_does,
)

from beanie_session_store import BeanieSessionStore, Verification
from beanie_session_store.app.database.driver import Database
from beanie_session_store.encryption import Encryption, LocalKeys


@pytest.fixture(autouse=True)
def _all_stores_encrypt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    encryption = Encryption(LocalKeys.generate(tmp_path / "keys"), required=True)
    plain = BeanieSessionStore.__init__

    def encrypting(self: Any, **arguments: Any) -> None:
        plain(self, **{**arguments, "encryption": encryption})

    monkeypatch.setattr(BeanieSessionStore, "__init__", encrypting)


def test_any_json_comes_back(mongo_url: str, database_name: str) -> None:
    any_json_comes_back(mongo_url, database_name, 10)
    deeply_nested_json_comes_back(mongo_url, database_name)


async def test_replays_are_stored_once(database: Database) -> None:
    await random_replays_never_lose_or_double(BeanieSessionStore())


def test_the_store_does_what_a_dict_of_lists_does(mongo_url: str, database_name: str) -> None:
    the_store_does_what_a_dict_does(mongo_url, database_name, 6)


def test_any_story_is_counted(mongo_url: str, database_name: str) -> None:
    any_story_is_counted(mongo_url, database_name, 8)


class SealedTotals(TotalsModel):
    """The same, asking the store: a document by itself says no texts."""

    def check(self) -> None:
        summary = self.run(self.stores[0].summary(KEY))
        if summary is None:
            assert not any(self.entries.values())
            return
        assert counted(summary) == naive(self.entries)
        found = self.run(self.stores[0].verify(KEY))
        assert found == Verification(sum(map(len, self.entries.values())), ())


def test_totals_are_those_of_the_entries(mongo_url: str, database_name: str) -> None:
    loop = SealedTotals.loop = asyncio.new_event_loop()
    connected = BeanieSessionStore.connect(mongo_url, database=database_name)
    loop.run_until_complete(connected.__aenter__())
    try:
        bounded = settings(
            max_examples=6,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            database=None,
            print_blob=False,
        )
        run_state_machine_as_test(SealedTotals, settings=bounded)
    finally:
        loop.run_until_complete(connected.__aexit__(None, None, None))
        loop.close()
