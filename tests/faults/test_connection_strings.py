"""No option of a connection string weakens what is promised, or stands in its way."""

from __future__ import annotations

import pytest
from pymongo import MongoClient
from support.entries import KEY, assert_summary_is_the_fold, turn
from support.server import Commands, connected

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import Database, bind_models
from beanie_session_store.models import DOCUMENT_MODELS

OPTIONS = [
    "w=0",
    "w=1&journal=false",
    "w=1&wtimeoutMS=1",
    "retryWrites=false&retryReads=false",
    "readConcernLevel=local",
    "readConcernLevel=available",
    "readConcernLevel=linearizable",
    "readPreference=secondaryPreferred&maxStalenessSeconds=120",
    "maxPoolSize=1",
]


@pytest.mark.parametrize("options", OPTIONS)
async def test_writes_are_durable_and_replays_recognised_whatever_the_url_says(
    database: Database, mongo_url: str, options: str
) -> None:
    commands = Commands()
    url = f"{mongo_url}&{options}"
    async with connected(url, event_listeners=[commands]) as client:
        await bind_models(client[database.name], DOCUMENT_MODELS)
        store = BeanieSessionStore()
        await store.append(KEY, turn(1))
        again = turn(2)
        await store.append(KEY, again)
        await store.append(KEY, again)
        assert (await store.load(KEY) or [])[6:] == again
        await assert_summary_is_the_fold(store)
        await store.delete(KEY)
        assert await store.load(KEY) is None
    commits = [sent for name, sent in commands.sent if name == "commitTransaction"]
    assert commits
    assert {commit["writeConcern"]["w"] for commit in commits} == {"majority"}
    with MongoClient(mongo_url) as client:
        assert client[database.name]["claude_transcript_entries"].count_documents({}) == 0
