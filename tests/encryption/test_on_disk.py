"""What is said is in no file of the server: not in data, indexes, log of changes or journal."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import bson
from support.entries import KEY, SUBAGENT, message
from support.server import connected

from beanie_session_store import BeanieSessionStore, EmbeddedMongo, seal_sessions, upgrade_schema
from beanie_session_store.app.database.driver import Database
from beanie_session_store.encryption import Encryption, LocalKeys

_chance = random.Random(7)


class Said:
    """A session that says something else in each place, so that each is found by itself."""

    def __init__(self) -> None:
        self.words: dict[str, bytes] = {}

    def word(self, place: str) -> str:
        # The server compresses what it writes; what is random stays as it is.
        text = _chance.randbytes(24).hex()
        self.words[place] = text.encode()
        return text

    def entries(self) -> list[dict[str, Any]]:
        word = self.word
        call = {"type": "tool_use", "id": word("call"), "name": "Read", "input": {"f": word("in")}}
        result = {"type": "tool_result", "tool_use_id": word("of"), "content": word("result")}
        answer = [{"type": "text", "text": word("answer")}, call]
        said = {"role": "assistant", "id": word("id"), "content": answer}
        return [
            {"type": "summary", "summary": word("summary"), "leafUuid": word("leaf")},
            message(word("prompt"), cwd=f"/{word('cwd')}", gitBranch=word("branch")),
            {**message(), "type": "assistant", "message": said},
            message(message={"role": "user", "content": [result]}, toolUseResult=word("tool")),
            {"type": "custom-title", "customTitle": word("title")},
            {"type": "ai-title", "aiTitle": word("ai title")},
            {"type": "tag", "tag": word("tag")},
            {"type": "last-prompt", "lastPrompt": word("last")},
            {"type": "file", "snapshot": {f"/{word('file')}.txt": 1}, word("field"): True},
            {"type": word("type"), "\0": word("packed"), "many": [word("list")]},
            message("x", more=word("large") + "many words " * 4000),
        ]

    def in_files(self, folder: Path) -> set[str]:
        found: set[str] = set()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                found |= {place for place, word in self.words.items() if word in data}
        return found

    def in_bytes(self, data: bytes) -> set[str]:
        return {place for place, word in self.words.items() if word in data}


async def test_what_is_sealed_is_in_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    encryption = Encryption(LocalKeys.generate(tmp_path / "keys"))
    plain, before, sealed = Said(), Said(), Said()
    with EmbeddedMongo(directory=folder) as mongo:
        async with connected(mongo.url) as client:
            database = client["claude"]
            await upgrade_schema(database)
            # Shows that what is said would be found.
            await BeanieSessionStore.on(database, tenant="plain").append(KEY, plain.entries())
            await BeanieSessionStore.on(database).append(KEY, before.entries())
            store = BeanieSessionStore.on(database, encryption=encryption)
            await seal_sessions(store)
            for key in (KEY, SUBAGENT, {**KEY, "session_id": "new"}):
                await store.append(key, sealed.entries())
            await store.repair(KEY)
            stored = b"".join([each async for each in _documents(database)])
            oplog = b"".join([each async for each in _documents(client["local"])])
    assert plain.in_bytes(stored) == plain.words.keys() - {"packed", "type", "list"}
    assert before.in_bytes(stored) == set()
    assert sealed.in_bytes(stored + oplog) == set()
    assert len(plain.in_files(folder)) > len(plain.words) // 2
    assert sealed.in_files(folder) == set()


async def _documents(database: Database) -> AsyncIterator[bytes]:
    for name in sorted(await database.list_collection_names()):
        async for document in database[name].find():
            yield bson.encode(document)
