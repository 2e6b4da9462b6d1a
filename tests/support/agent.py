"""Sessions written by the real agent, on hosts of their own, for the tests to look at."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claude_agent_sdk import project_key_for_directory
from pymongo import MongoClient

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.loopback.messages_api import LoopbackMessagesApi
from beanie_session_store.demo.agent import Entry, Host, Run, Target, read_lines
from beanie_session_store.demo.script import obedient_script
from beanie_session_store.demo.stored import Transcripts, load_all

Json = dict[str, Any]

COMMAND_OUTPUT = "forty-two is 42"
FIRST_PROMPT = (
    "Run `echo forty-two is $((40 + 2))`. SURROGATE. Then DELEGATE: run `echo deep $((6 * 7))`"
)
SECOND_PROMPT = "RECALL what it printed"
AGAIN = "Run `echo again $((20 + 1))`"
AGAIN_OUTPUT = "again 21"


@dataclass(frozen=True)
class Batch:
    """One call of ``append`` that the store accepted from the SDK."""

    key: Any
    entries: list[Entry]


@dataclass(frozen=True)
class Turn:
    """One run of the agent: what it asked the model, and what was stored after it."""

    run: Run
    requests: list[Json] = field(repr=False)
    batches: list[Batch] = field(repr=False)
    stored: Transcripts = field(repr=False)


@dataclass(frozen=True)
class Workplace:
    """A project directory, a database and a model, for any number of hosts."""

    directory: Path
    target: Target

    @property
    def project(self) -> str:
        return str(self.directory / "project")

    @property
    def project_key(self) -> str:
        return project_key_for_directory(self.project)

    def key(self, session_id: str) -> Any:
        return {"project_key": self.project_key, "session_id": session_id}

    async def turn(self, prompt: str, **options: Any) -> Turn:
        """Run the agent on a new host with an empty home, which must go well."""
        home = self.directory / f"host-{uuid.uuid4().hex[:8]}"
        home.mkdir()
        record = home / "appended.jsonl"
        with LoopbackMessagesApi(obedient_script) as api:
            run = Host(home, api.url).run(
                prompt,
                store=self.target,
                cwd=Path(self.project),
                record=record,
                permission_mode="bypassPermissions",
                **options,
            )
        assert not run.is_error, run.result
        assert run.mirror_errors == ()
        async with self.store() as store:
            stored = await load_all(store, self.key(run.session_id))
        batches = [Batch(**line) for line in read_lines(record)]
        return Turn(run, api.requests, batches, stored)

    def store(self) -> Any:
        target = self.target
        return BeanieSessionStore.connect(
            target.url, database=target.database, tenant=target.tenant
        )


@contextmanager
def workplace(directory: Path, mongo_url: str) -> Iterator[Workplace]:
    """A workplace with a database of its own, dropped at the end."""
    database = f"test_agent_{uuid.uuid4().hex[:16]}"
    place = Workplace(directory.resolve(), Target(mongo_url, database))
    Path(place.project).mkdir()
    yield place
    with MongoClient(mongo_url) as client:
        client.drop_database(database)


def exactly(entries: Any) -> list[str]:
    """Entries as text, for a comparison that tells 1 from 1.0 and from true."""
    return [json.dumps(entry, sort_keys=True) for entry in entries]


def texts(request: Json) -> str:
    """All that a request says to the model, as one text."""
    return json.dumps(request["messages"], ensure_ascii=False)
