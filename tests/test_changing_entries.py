"""What a caller does to its entries while an append is under way does not matter."""

from __future__ import annotations

import asyncio

import pytest
from support.entries import assert_summary_is_the_fold

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
