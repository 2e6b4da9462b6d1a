"""What the README shows works as shown."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import PREPARED

from beanie_session_store.app.database.driver import IS_MOTOR
from beanie_session_store.app.loopback.messages_api import LoopbackMessagesApi
from beanie_session_store.demo.agent import Host
from beanie_session_store.demo.script import obedient_script

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def python_blocks(document: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)


BLOCKS = python_blocks(README)
MOTOR_BLOCKS = python_blocks(ROOT / "docs" / "compatibility.md")
LIVE_BLOCKS = python_blocks(ROOT / "docs" / "live-tail.md")
OPERATING_BLOCKS = python_blocks(ROOT / "docs" / "operating.md")
USING_BLOCKS = python_blocks(ROOT / "docs" / "using.md")
# Others go on from something.
ALL_BLOCKS = [
    block
    for block in BLOCKS + MOTOR_BLOCKS + LIVE_BLOCKS + OPERATING_BLOCKS + USING_BLOCKS
    if "asyncio.run(" in block or "FastAPI(" in block
]

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
import sys
sys.path.insert(0, {folder!r})
from fastapi.testclient import TestClient
import block

with TestClient(block.app) as client:
    assert client.get("/health/livez").json() == {{"live": True}}
    assert client.get("/health/readyz").json() == {{"ready": True}}
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


@pytest.mark.parametrize("number", range(len(ALL_BLOCKS)))
def test_readme_block_runs(number: int, tmp_path: Path, environment: dict[str, str]) -> None:
    # A database of the block's own, so that blocks do not meet.
    name = f"readme_{tmp_path.name}_{number}"[:60]
    code = ALL_BLOCKS[number]
    if ("AsyncMongoClient" if IS_MOTOR else "AsyncIOMotorClient") in code:
        pytest.skip("it shows the other driver")
    for shown in ('"claude"', '"app"]', '"test"'):
        code = code.replace(shown, f'"{name}"' + ("]" if "]" in shown else ""))
    if "FastAPI(" in code:
        # The example serves from /srv, which every machine of this kind has.
        (tmp_path / "block.py").write_text(code)
        driver = tmp_path / "client.py"
        visit = LIVE_CLIENT if "text/event-stream" in code else FASTAPI_CLIENT
        if "HealthChecks" in code:
            visit = HEALTH_CLIENT
        driver.write_text(visit.format(folder=str(tmp_path)))
        assert run(driver, environment).endswith("done\n")
        return
    program = tmp_path / "block.py"
    program.write_text(code)
    output = run(program, environment)
    assert ("print(" in code) == bool(output.strip())


def test_readme_has_the_examples_it_promises() -> None:
    shown = "\n".join(BLOCKS)
    for name in ("lifespan", "connect(", "EmbeddedMongo()", "TranscriptEntry.Settings"):
        assert name in shown


def test_the_documents_show_either_driver() -> None:
    assert any("AsyncMongoClient[" in block for block in BLOCKS)
    assert any("AsyncIOMotorClient(" in block for block in MOTOR_BLOCKS)


def test_every_error_is_in_the_readme() -> None:
    import beanie_session_store

    errors = [name for name in beanie_session_store.__all__ if name.endswith("Error")]
    assert len(errors) > 10
    missing = [name for name in errors if f"`{name}`" not in README.read_text()]
    assert not missing
