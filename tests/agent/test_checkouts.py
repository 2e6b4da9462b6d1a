"""A session that is resumed in the host's own configuration folder, and leaves nothing there."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ResultMessage,
    SystemMessage,
    project_key_for_directory,
    query,
)
from support.entries import message
from support.processes import PREPARED
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    BeanieSessionStore,
    InvalidOptionsError,
    SessionBusyError,
    UnknownSessionError,
    session_key,
)
from beanie_session_store.app.agent import checkouts
from beanie_session_store.app.agent.runs import Resumed
from beanie_session_store.app.loopback.messages_api import LoopbackMessagesApi
from beanie_session_store.demo.agent import Host
from beanie_session_store.demo.script import obedient_script

SECRET = "xylophone-73"
COMMAND, AGENT, SKILL = "greet", "reviewer", "deploy"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder.resolve()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's configuration folder, with what a team keeps in it."""
    folder = tmp_path / "home" / ".claude"
    for name, text in {
        f"commands/{COMMAND}.md": "Say hello.\n",
        f"agents/{AGENT}.md": f"---\nname: {AGENT}\ndescription: Reviews\n---\nReview.\n",
        f"skills/{SKILL}/SKILL.md": f"---\nname: {SKILL}\ndescription: Deploys\n---\nDo.\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (tmp_path / "home" / "tmp").mkdir()
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(folder))
    return folder


@pytest.fixture
async def key(store: BeanieSessionStore, work: Path) -> dict[str, str]:
    """The key of a session that is stored."""
    key = {"project_key": project_key_for_directory(work), "session_id": str(uuid.uuid4())}
    await store.append(key, [message(SECRET)])
    await store.append(key | {"subpath": "subagents/agent-a1"}, [message(SECRET)])
    return key


def left(folder: Path) -> list[str]:
    """What says what was said, or is a mark."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and (SECRET.encode() in path.read_bytes() or path.suffix == ".checkout")
    ]


@pytest.fixture
def host(config: Path) -> Iterator[dict[str, str]]:
    """The environment of the real agent, with a model on loopback."""
    with LoopbackMessagesApi(obedient_script) as api:
        yield Host(config.parent, api.url).environment() | {"CLAUDE_CONFIG_DIR": str(config)}


async def ask(prompt: str, options: ClaudeAgentOptions) -> tuple[str, dict[str, bool]]:
    """The id of the session, and which of the host's the agent had."""
    session_id, had = "", {}
    async for said in query(prompt=prompt, options=options):
        if isinstance(said, SystemMessage) and said.subtype == "init":
            had = {
                COMMAND: COMMAND in said.data["slash_commands"],
                AGENT: AGENT in said.data["agents"],
                SKILL: SKILL in said.data["skills"],
            }
        if isinstance(said, ResultMessage):
            session_id = said.session_id
    return session_id, had


@pytest.mark.agent
async def test_a_resumed_run_has_what_the_host_has_and_mirrors_nothing_twice(
    store: BeanieSessionStore, config: Path, work: Path, host: dict[str, str]
) -> None:
    wanted = ClaudeAgentOptions(
        cwd=work, env=host, setting_sources=["user"], max_turns=4, session_store=store
    )
    session_id, had = await ask(f"DELEGATE: run `echo {SECRET}`", wanted)
    assert had == {COMMAND: True, AGENT: True, SKILL: True}
    # What the SDK itself makes of it; if this fails, it has changed, and docs/resuming.md with it.
    wanted.resume = session_id
    _, had = await ask("PLAIN lost", wanted)
    assert had == {COMMAND: False, AGENT: False, SKILL: False}
    wanted.resume = None
    shutil.rmtree(config / "projects")

    key = {"project_key": project_key_for_directory(work), "session_id": session_id}
    before = await store.load(key) or []
    async with store.checkout(key, wanted) as options:
        again, had = await ask(f"PLAIN {SECRET} again", options)
    assert again == session_id
    assert had == {COMMAND: True, AGENT: True, SKILL: True}
    after = await store.load(key) or []
    assert after[: len(before)] == before
    assert sum(f"{SECRET} again" in json.dumps(each) for each in after[len(before) :]) >= 1
    ids = Counter(each["uuid"] for each in after if "uuid" in each)
    assert set(ids.values()) == {1}
    assert (await store.verify(key)).is_sound
    assert left(config) == []
    assert not list((config / "projects").rglob(f"{session_id}*"))
    assert (config / "commands" / f"{COMMAND}.md").exists()


@pytest.mark.agent
async def test_a_fork_of_the_run_is_stored_and_not_left_either(
    store: BeanieSessionStore, config: Path, work: Path, host: dict[str, str], key: dict[str, str]
) -> None:
    wanted = ClaudeAgentOptions(cwd=work, env=host, max_turns=2, fork_session=True)
    async with store.checkout(key, wanted) as options:
        fork, _ = await ask(f"PLAIN {SECRET} forked", options)
    assert fork != key["session_id"]
    assert SECRET in json.dumps(await store.load({**key, "session_id": fork}))
    assert left(config) == []


async def test_the_session_is_there_meanwhile_and_gone_whatever_happens(
    store: BeanieSessionStore, config: Path, work: Path, key: dict[str, str]
) -> None:
    project = config / "projects" / key["project_key"]

    async def run() -> None:
        async with store.checkout(key, ClaudeAgentOptions(cwd=work)) as options:
            assert options.resume == key["session_id"]
            assert (project / f"{key['session_id']}.jsonl").is_file()
            assert (project / key["session_id"] / "subagents" / "agent-a1.jsonl").is_file()
            assert options.session_store is not None
            assert await options.session_store.load(session_key(**key)) is None
            for kind in ("todos", "file-history"):
                (config / kind).mkdir(exist_ok=True)
                (config / kind / f"{key['session_id']}-1").write_text(SECRET)
            raise RuntimeError("in the middle")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="in the middle"):
            await run()
        assert left(config) == []
        assert not project.exists()


async def test_two_at_once_are_refused_on_one_host_and_others_go_on(
    store: BeanieSessionStore, config: Path, work: Path, key: dict[str, str]
) -> None:
    other = {**key, "session_id": str(uuid.uuid4())}
    await store.append(other, [message(SECRET)])
    wanted = ClaudeAgentOptions(cwd=work)
    async with store.checkout(key, wanted):
        with pytest.raises(SessionBusyError, match="checked out"):
            async with store.checkout(key, wanted):
                pass
        async with store.checkout(other, wanted):
            pass
        # Neither of them took away what the first one has.
        assert len(left(config)) == 3
    assert left(config) == []


KILLED = """
import asyncio, os, signal, sys
from claude_agent_sdk import ClaudeAgentOptions
from beanie_session_store import BeanieSessionStore

async def main(url, database, tenant, project_key, session_id, work):
    async with BeanieSessionStore.connect(url, database=database, tenant=tenant) as store:
        key = {"project_key": project_key, "session_id": session_id}
        async with store.checkout(key, ClaudeAgentOptions(cwd=work)) as options:
            fork = {**key, "session_id": "6f1c5e2a-0000-4000-8000-000000000001"}
            await options.session_store.append(fork, [{"type": "mode"}])
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_killed_run_left_is_gone_when_the_next_one_begins(
    store: BeanieSessionStore,
    config: Path,
    work: Path,
    key: dict[str, str],
    mongo_url: str,
    database_name: str,
) -> None:
    arguments = [mongo_url, database_name, store.tenant, *key.values(), str(work)]
    process = await asyncio.create_subprocess_exec(PREPARED, "-c", KILLED, *arguments)
    assert await process.wait() == -9
    fork = config / "projects" / key["project_key"] / "6f1c5e2a-0000-4000-8000-000000000001.jsonl"
    fork.write_text(SECRET)
    assert len(left(config)) == 4
    other = {**key, "session_id": str(uuid.uuid4())}
    await store.append(other, [message("something else")])
    async with store.checkout(other, ClaudeAgentOptions(cwd=work)):
        assert [Path(name).suffix for name in left(config)] == [".checkout"]
    assert left(config) == []


async def test_what_is_not_to_be_checked_out_is_refused_and_nothing_changed(
    store: BeanieSessionStore, config: Path, work: Path, key: dict[str, str], tmp_path: Path
) -> None:
    def wanted(**fields: Any) -> ClaudeAgentOptions:
        return ClaudeAgentOptions(**{"cwd": work} | fields)

    unknown = {**key, "session_id": str(uuid.uuid4())}
    cases: list[tuple[dict[str, str], Any, type[Exception], str]] = [
        (unknown, wanted(), UnknownSessionError, "There is no"),
        ({**key, "session_id": "s1"}, wanted(), UnknownSessionError, "UUID"),
        (key, wanted(cwd=tmp_path), InvalidOptionsError, "set cwd"),
        (key, None, InvalidOptionsError, "set cwd"),
        (key, {"cwd": work}, InvalidOptionsError, "not dict"),
        (key | {"subpath": "subagents/agent-a1"}, wanted(), InvalidOptionsError, "subagent"),
        (key, wanted(resume=unknown["session_id"]), InvalidOptionsError, "another session"),
        (key, wanted(continue_conversation=True), InvalidOptionsError, "another session"),
        (key, wanted(session_store=BeanieSessionStore()), InvalidOptionsError, "another session_"),
    ]
    for asked, options, error, said in cases:
        with pytest.raises(error, match=said):
            async with store.checkout(asked, options):
                pass
    assert left(config) == []
    # One of the host's own stays as it is.
    own = config / "projects" / key["project_key"] / f"{key['session_id']}.jsonl"
    own.parent.mkdir(parents=True)
    own.write_text("mine\n")
    with pytest.raises(InvalidOptionsError, match="Import it"):
        async with store.checkout(key, wanted()):
            pass
    assert own.read_text() == "mine\n"
    assert left(config) == []
    own.unlink()
    own.symlink_to("of mine, elsewhere")
    with pytest.raises(InvalidOptionsError, match="Import it"):
        async with store.checkout(key, wanted()):
            pass
    assert own.is_symlink()


async def test_what_comes_meanwhile_is_not_taken_away(
    store: BeanieSessionStore,
    config: Path,
    work: Path,
    key: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = config / "projects" / key["project_key"] / f"{key['session_id']}.jsonl"
    todo = config / "todos" / f"{key['session_id']}-1"
    lay_out = checkouts.lay_out

    def after_the_hosts_agent(projects: Path, resumed: Resumed) -> None:
        for path in (own, todo):
            path.parent.mkdir(parents=True)
            path.write_text("mine")
        lay_out(projects, resumed)

    monkeypatch.setattr(checkouts, "lay_out", after_the_hosts_agent)
    with pytest.raises(InvalidOptionsError, match="there already"):
        async with store.checkout(key, ClaudeAgentOptions(cwd=work)):
            pass
    assert (own.read_text(), todo.read_text()) == ("mine", "mine")
    assert left(config) == []


async def test_nothing_is_left_where_the_run_is_cancelled_before_it_begins(
    store: BeanieSessionStore,
    config: Path,
    work: Path,
    key: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    lay_out = checkouts.lay_out

    def slowly(projects: Path, resumed: Resumed) -> None:
        begun.set()
        assert go_on.wait(WATCHDOG_SECONDS)
        lay_out(projects, resumed)

    async def run() -> None:
        async with store.checkout(key, ClaudeAgentOptions(cwd=work)):
            pass

    monkeypatch.setattr(checkouts, "lay_out", slowly)
    running = asyncio.ensure_future(run())
    assert await asyncio.to_thread(begun.wait, WATCHDOG_SECONDS)
    running.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert left(config) == []
    # Nor is it busy.
    await run()
