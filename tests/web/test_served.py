"""What ``session-store serve`` shows is for who has its token, on this machine, and nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
from pathlib import Path

import httpx
import pytest
from support.command import MAIN, SessionStoreCommand
from support.entries import KEY
from support.pages import prompt
from support.processes import PREPARED
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.jobs import following
from beanie_session_store.app.web.served import kept_of, new_token, served_pages

TOKEN = new_token()
KEPT = kept_of(TOKEN)
OWN = "http://127.0.0.1:8765"


def client(store: BeanieSessionStore, **options: object) -> httpx.AsyncClient:
    app = served_pages(store, TOKEN, 8765)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=OWN, **options)  # type: ignore[arg-type]


async def test_the_token_opens_the_pages_and_leaves_the_address(store: BeanieSessionStore) -> None:
    await store.append(KEY, [prompt("hello")])
    async with client(store) as browser:
        opened = await browser.get(f"/?branch=main&token={TOKEN}")
        assert (opened.status_code, opened.headers["location"]) == (303, "/?branch=main")
        cookie = opened.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert TOKEN not in cookie
        assert "SameSite=strict" in cookie
        page = await browser.get("/")
        assert page.status_code == 200
        assert "hello" in page.text
        assert TOKEN not in page.text


async def test_an_address_with_the_token_leads_nowhere_else(store: BeanieSessionStore) -> None:
    async with client(store) as browser:
        for path in ("//evil.example/", "/\\evil.example", "///evil.example", "/%5Cevil.example"):
            answer = await browser.get(f"{OWN}{path}?token={TOKEN}")
            there = answer.headers.get("location", "/")
            assert there.startswith("/")
            assert not there.startswith(("//", "/\\"))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"params": {"token": ""}},
        {"params": {"token": TOKEN[:-1]}},
        {"params": {"token": TOKEN + "x"}},
        {"params": {"token": "²"}},
        {"cookies": {"session-store-8765": "x"}},
        {"cookies": {"session-store-1": KEPT}},
        # What one of the two opens with is nothing to the other.
        {"cookies": {"session-store-8765": TOKEN}},
        {"params": {"token": KEPT}},
    ],
)
async def test_without_the_token_there_is_nothing(
    store: BeanieSessionStore, given: dict[str, dict[str, str]]
) -> None:
    await store.append(KEY, [prompt("a secret")])
    async with client(store, cookies=given.get("cookies")) as browser:
        for path in ("/", "/live", "/figures", "/s/project/session", "/s/project/session/live"):
            answer = await browser.get(path, params=given.get("params"))
            assert answer.status_code == 403
            assert "secret" not in answer.text
            assert "needs its token" in answer.text
            assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8765"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost@evil.example"},
        {"host": ""},
        {"host": "0.0.0.0:8765"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "https://127.0.0.1:8765"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    ],
)
async def test_what_another_page_asks_for_is_refused_with_the_token_too(
    store: BeanieSessionStore, headers: dict[str, str]
) -> None:
    async with client(store, cookies={"session-store-8765": KEPT}) as browser:
        for path in ("/", f"/?token={TOKEN}", "/live"):
            answer = await browser.get(path, headers=headers)
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:8765"},
        {"host": "[::1]:8765"},
        {"host": "127.0.0.1"},
        {"origin": OWN},
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
        # A link from a chat, which finds its way with the token or the cookie alone.
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)
async def test_what_the_person_asks_for_is_answered(
    store: BeanieSessionStore, headers: dict[str, str]
) -> None:
    async with client(store, cookies={"session-store-8765": KEPT}) as browser:
        assert (await browser.get("/", headers=headers)).status_code == 200


async def test_nothing_can_be_changed(store: BeanieSessionStore) -> None:
    async with client(store, cookies={"session-store-8765": KEPT}) as browser:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert (await browser.request(method, "/s/project/session")).status_code == 405


def line_of(text: str, session: str) -> str:
    return json.dumps({**prompt(text), "sessionId": session}) + "\n"


async def test_what_the_agent_goes_on_to_write_is_imported(
    store: BeanieSessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "ROUND_SECONDS", 0.05)
    project = tmp_path / "projects" / "-srv"
    project.mkdir(parents=True)
    (project / "one.jsonl").write_text(line_of("first", "one"))
    done = asyncio.Event()
    failures: list[Exception] = []
    task = asyncio.create_task(
        following.follow_transcripts(
            store, project.parent, on_done=done.set, on_failure=failures.append
        )
    )

    async def until(session: str, count: int, **rest: str) -> None:
        key = {"project_key": "-srv", "session_id": session, **rest}
        while len(await store.load(key) or ()) != count:
            assert not task.done()
            await asyncio.sleep(0.02)

    async def grows() -> None:
        await done.wait()
        await until("one", 1)
        with (project / "one.jsonl").open("a") as file:
            file.write(line_of("second", "one"))
        await until("one", 2)
        agent = project / "one" / "subagents"
        agent.mkdir(parents=True)
        (agent / "agent-a1.jsonl").write_text(line_of("sub", "one"))
        (project / "two.jsonl").write_text(line_of("other", "two"))
        await until("two", 1)
        await until("one", 1, subpath="subagents/agent-a1")
        # A folder that is away for a while is no end.
        shutil.move(project.parent, tmp_path / "away")
        while not failures:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        shutil.move(tmp_path / "away", project.parent)
        (project / "three.jsonl").write_text(line_of("other", "three"))
        await until("three", 1)

    try:
        await asyncio.wait_for(grows(), WATCHDOG_SECONDS)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_line_is_the_address_and_an_interrupt_ends_it(
    mongo_url: str, database: Database, store: BeanieSessionStore, how: signal.Signals
) -> None:
    await store.append(KEY, [prompt("hello")])
    process = await asyncio.create_subprocess_exec(
        # Whoever runs the tests behind something else ignores interrupts, and hands that on.
        *(PREPARED, "-c", f"{INTERRUPTIBLE}; {MAIN}", "serve", "--port", "0"),
        env={**os.environ, "SESSION_STORE_MONGODB_URL": mongo_url}
        | {"SESSION_STORE_DATABASE": database.name},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), WATCHDOG_SECONDS)
        address = line.decode().strip()
        assert address.startswith("http://127.0.0.1:")
        async with httpx.AsyncClient(follow_redirects=True, timeout=WATCHDOG_SECONDS) as browser:
            assert "hello" in (await browser.get(address)).text
            # A page that is open live does not hold it up.
            async with browser.stream("GET", address.partition("?")[0] + "live") as stream:
                assert stream.status_code == 200
                process.send_signal(how)
                code = await asyncio.wait_for(process.wait(), WATCHDOG_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
        output, errors = await process.communicate()
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 143}[how]
    assert b"Traceback" not in errors
    assert errors in (b"", b"error: terminated\n")
    assert output == b""


async def test_a_port_that_is_taken_is_said_in_a_line(mongo_url: str, database_name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = await SessionStoreCommand(mongo_url, database_name)("serve", "--port", str(port))
    assert ended.code == 1
    assert f"port {port} of 127.0.0.1 cannot be used" in ended.errors
    assert "--port" in ended.errors
