"""What the README and docs show works as shown."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import PREPARED
from typed.blocks import blocks_of, documents

from beanie_session_store.app.database.driver import IS_MOTOR
from beanie_session_store.app.loopback.messages_api import LoopbackMessagesApi
from beanie_session_store.demo.agent import Host
from beanie_session_store.demo.script import obedient_script

ROOT = Path(__file__).parents[2]

# Its blocks are files of one folder, and run so by tests/testing/test_testing_plugin.py.
_RUN_ELSEWHERE = {"testing.md"}


def programs() -> Iterator[tuple[str, str]]:
    """Each block that is a program or an application, by where it stands."""
    for document in documents(ROOT):
        if document.name in _RUN_ELSEWHERE:
            continue
        for block in blocks_of(document.read_text()):
            if "asyncio.run(" in block.module or "FastAPI(" in block.module:
                yield f"{document.relative_to(ROOT)}:{block.line}", block.module


PROGRAMS = dict(programs())

# Drives the FastAPI example the way its users would, over HTTP, with its lifespan.
FASTAPI_CLIENT = """
import sys
sys.path.insert(0, {folder!r})
from fastapi.testclient import TestClient
import block

with TestClient(block.app) as client:
    ask = "/tenants/{{}}/ask"
    first = client.post(ask.format("acme"), params={{"user_id": "u1", "prompt": "PLAIN hello"}})
    assert first.status_code == 200, first.text
    session_id = first.json()["session_id"]
    assert first.json()["project_key"] == "-srv"
    again = client.post(
        ask.format("acme"),
        params={{"user_id": "u1", "prompt": "PLAIN and again", "session_id": session_id}},
    )
    assert again.json()["session_id"] == session_id
    (listed,) = client.get("/tenants/acme/sessions").json()
    assert listed["session_id"] == session_id
    assert client.get("/tenants/other/sessions").json() == []
    theirs = {{"user_id": "u2", "prompt": "PLAIN go on", "session_id": session_id}}
    assert client.post(ask.format("other"), params=theirs).status_code == 404
print("done")
"""

HEALTH_CLIENT = """
import sys, time
sys.path.insert(0, {folder!r})
from fastapi.testclient import TestClient
import block

with TestClient(block.app) as client:
    assert client.get("/health/livez").json() == {{"live": True}}
    for _ in range(60):
        ready = client.get("/health/readyz").json()
        if ready == {{"ready": True}}:
            break
        # On a busy machine it is not at once, and an answer is kept for a moment.
        time.sleep(1)
    assert ready == {{"ready": True}}
print("done")
"""

# Twice, as after a restart: what was begun is gone on with.
GETTING_STARTED_CLIENT = """
import sys
sys.path.insert(0, {folder!r})
from fastapi.testclient import TestClient
import block

def ask(client, **more):
    return client.post("/ask", params={{"tenant": "acme", "prompt": "PLAIN hello", **more}})

with TestClient(block.app) as client:
    first = ask(client)
    assert first.status_code == 200, first.text
    session_id = first.json()["session_id"]
with TestClient(block.app) as client:
    assert ask(client, session_id=session_id).json()["session_id"] == session_id
    assert ask(client, session_id=session_id, tenant="umbrella").status_code == 404
    pages = client.get("/sessions/")
    assert pages.status_code == 200 and "PLAIN hello" in pages.text
print("done")
"""

# Behind the login that the document has, which knows somebody or nobody.
PAGES_CLIENT = """
import asyncio, os, sys
sys.path.insert(0, {folder!r})
import httpx
from beanie import init_beanie
from beanie_session_store import DOCUMENT_MODELS, upgrade_schema
from beanie_session_store.app.storage.client import open_database
import block

async def main():
    async with open_database(os.environ["MONGODB_URL"], {name!r}) as database:
        await upgrade_schema(database)
        await init_beanie(database=database, document_models=DOCUMENT_MODELS)
        transport = httpx.ASGITransport(app=block.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            user = await block.current_user(None)
            assert (await http.get("/sessions/")).status_code == (200 if user else 401)

asyncio.run(main())
print("done")
"""

# Reads it as a browser does, of a server on a port of its own; it ends as soon as it has seen all.
LIVE_CLIENT = """
import asyncio, json, socket, sys
sys.path.insert(0, {folder!r})
import httpx, uvicorn
from beanie_session_store import BeanieSessionStore
import block

KEY = {{"project_key": "-srv", "session_id": "s1"}}
PATH = "/tenants/acme/projects/-srv/sessions/s1/live"

async def ids(http, count, **headers):
    found = []
    async with http.stream("GET", PATH, headers=headers) as response:
        async for line in response.aiter_lines():
            if line.startswith("id:"):
                found.append(int(line[3:]))
            if line.startswith("data:"):
                json.loads(line[5:])
                if len(found) == count:
                    return found

async def main():
    server = uvicorn.Server(uvicorn.Config(block.app, log_level="warning", ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{{listener.getsockname()[1]}}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=None) as http:
            while not server.started:
                await asyncio.sleep(0.05)
            store = BeanieSessionStore(tenant="acme")
            await store.append(KEY, [{{"type": "mode"}}] * 3)
            for unknown in (PATH.replace("s1", "s2"), PATH.replace("acme", "other")):
                assert (await http.get(unknown)).status_code == 404
            watching = asyncio.create_task(ids(http, 5))
            await store.append(KEY, [{{"type": "tag"}}] * 2)
            assert await watching == [1, 2, 3, 4, 5]
            assert await ids(http, 2, **{{"Last-Event-ID": "3"}}) == [4, 5]
        server.should_exit = True
        await serving

asyncio.run(main())
print("done")
"""


@pytest.fixture
def environment(tmp_path: Path, mongo_url: str) -> Iterator[dict[str, str]]:
    """What the block sees: a clean home, the loopback API and a server."""
    (tmp_path / "tmp").mkdir()
    with LoopbackMessagesApi(obedient_script) as api:
        yield Host(tmp_path, api_url=api.url).environment() | {"MONGODB_URL": mongo_url}


PROGRAM = """
import runpy, sys, warnings
warnings.filterwarnings("error", category=DeprecationWarning, module="__main__")
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def run(program: Path, environment: dict[str, str]) -> str:
    finished = subprocess.run(
        [PREPARED, "-c", PROGRAM, str(program)],
        env=environment,
        cwd=program.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def client_of(code: str) -> str:
    """The program that visits a documented application as its users would."""
    if "text/event-stream" in code:
        return LIVE_CLIENT
    if "HealthChecks" in code:
        return HEALTH_CLIENT
    if "EmbeddedMongo" in code:
        return GETTING_STARTED_CLIENT
    return PAGES_CLIENT if "session_pages" in code else FASTAPI_CLIENT


@pytest.mark.parametrize("where", PROGRAMS)
def test_readme_block_runs(where: str, tmp_path: Path, environment: dict[str, str]) -> None:
    # A database of the block's own, so that blocks do not meet.
    name = f"readme_{tmp_path.name}"[:60]
    code = PROGRAMS[where]
    if ("AsyncMongoClient" if IS_MOTOR else "AsyncIOMotorClient") in code:
        pytest.skip("it shows the other driver")
    for shown in ('"claude"', '"app"]', '"test"'):
        code = code.replace(shown, f'"{name}"' + ("]" if "]" in shown else ""))
    if "FastAPI(" in code:
        # The example serves from /srv, which every machine of this kind has.
        (tmp_path / "block.py").write_text(code)
        driver = tmp_path / "client.py"
        driver.write_text(client_of(code).format(folder=str(tmp_path), name=name))
        assert run(driver, environment).endswith("done\n")
        return
    program = tmp_path / "block.py"
    program.write_text(code)
    output = run(program, environment)
    assert ("print(" in code) == bool(output.strip())


def test_the_documents_have_the_examples_they_promise() -> None:
    shown = "\n".join(PROGRAMS.values())
    for name in ("lifespan", "connect(", "EmbeddedMongo()", "TranscriptEntry.Settings"):
        assert name in shown
    assert len(PROGRAMS) > 20


def test_the_documents_show_either_driver() -> None:
    assert any("AsyncMongoClient[" in code for code in PROGRAMS.values())
    assert any("AsyncIOMotorClient(" in code for code in PROGRAMS.values())
