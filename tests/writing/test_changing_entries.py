"""What a caller does to its entries while an append is under way does not matter."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from support.entries import KEY, assert_summary_is_the_fold, turn

from beanie_session_store import BeanieSessionStore


@pytest.mark.parametrize("prompt", ["short", "\ud83d" * 1000], ids=["native", "packed"])
@pytest.mark.parametrize("is_known", [False, True], ids=["first append", "later append"])
async def test_the_summary_is_the_fold_of_what_is_stored(
    store: BeanieSessionStore, prompt: str, is_known: bool
) -> None:
    for turns in range(12):
        key = {"project_key": "project", "session_id": f"session-{turns}"}
        if is_known:
            await store.append(key, [{"type": "mode"}])
        entry = {"type": "last-prompt", "lastPrompt": prompt}
        appended = asyncio.create_task(store.append(key, [entry]))
        for _ in range(turns):
            await asyncio.sleep(0)
        entry["lastPrompt"] = "changed"
        await appended
        await assert_summary_is_the_fold(store, key)


@pytest.mark.parametrize("text", ["short", "\ud83d" * 1000], ids=["native", "packed"])
@pytest.mark.parametrize("is_packed_before", [False, True])
async def test_what_is_stored_is_what_was_handed_over(
    store: BeanieSessionStore, text: str, is_packed_before: bool
) -> None:
    """Several wait for the turn of their session, so it takes a while until each is stored."""
    await store.append(KEY, turn(0))
    before = {"type": "mode", "mode": "\ud83d" * 100_000 if is_packed_before else "plain"}
    batches: list[list[dict[str, Any]]] = [
        [before],
        *([{"type": "user", "uuid": f"{n}", "message": {"content": text}}] for n in range(6)),
    ]
    expected = copy.deepcopy(batches)
    appends = [asyncio.create_task(store.append(KEY, batch)) for batch in batches]
    # Until each call has begun: where tasks are not eager, one turn of the loop later.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for batch in batches:
        batch[0]["message"] = {"content": "changed"}
        batch[0]["uuid"] = "another"
        batch.append({"type": "never"})
    await asyncio.gather(*appends)
    loaded = await store.load(KEY) or []
    assert loaded[6:] == [batch[0] for batch in expected]
    await assert_summary_is_the_fold(store)


async def test_a_batch_that_changes_before_its_retry_is_stored_as_it_was(
    store: BeanieSessionStore,
) -> None:
    """Another store's appends make the first try of each miss."""
    other = BeanieSessionStore()
    await store.append(KEY, turn(0))
    expected: list[Any] = []
    for number in range(5):
        await other.append(KEY, [{"type": "mode", "mode": f"{number}"}])
        batch: list[dict[str, Any]] = [{"type": "last-prompt", "lastPrompt": f"asked {number}"}]
        append = asyncio.create_task(store.append(KEY, batch))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        batch[0]["lastPrompt"] = "changed"
        await append
        expected += [{"type": "mode", "mode": f"{number}"}]
        expected += [{"type": "last-prompt", "lastPrompt": f"asked {number}"}]
    assert (await store.load(KEY) or [])[6:] == expected
    await assert_summary_is_the_fold(store)
