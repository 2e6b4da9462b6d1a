"""The size of a session never shows: its windows are as large, and all of it is reached."""

from __future__ import annotations

import asyncio
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support.conversation import Conversation
from support.pages import MOUNT, pages_of

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.web.outlines import AT_ONCE

KEY: Any = {"project_key": "-srv-shop", "session_id": "session"}
PAGE = "/s/-srv-shop/session"
_MOST_BYTES = 500_000
_MOST_MIB = 150
_LINES = "10:07:41 worker-2 | charge 96110-1 key 07de settled after a timeout\n"


def places(html: str) -> list[int]:
    """The positions of the pieces of a page."""
    return [int(each) for each in re.findall(r'<div class="entry[^"]*" id="e(\d+)"', html)]


def resident() -> float:
    """Memory that this process has now, in MiB; 0 where that is not told."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(each for each in status.read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize(
    ("turns", "lines"), [(200, 3), pytest.param(5_000, 100, marks=pytest.mark.soak)]
)
async def test_a_long_session_is_reached_everywhere(
    store: BeanieSessionStore, turns: int, lines: int
) -> None:
    talk = Conversation(step=1)
    for number in range(turns):
        talk.prompt(f"Do step {number}")
        for part in range(6):
            talk.call(
                "Bash", {"command": f"make {number}-{part}"}, _LINES * lines + f"end {number}"
            )
        talk.text(f"Step **{number}** is done.\n\n- {_LINES}- {_LINES}")
        if len(talk.entries) >= 700:
            await store.append(KEY, talk.entries)
            talk.entries.clear()
    await store.append(KEY, talk.entries)
    last = 14 * turns
    assert last > AT_ONCE
    async with pages_of(store) as client:
        await client.get("/")
        before = resident()
        first = await client.get(PAGE)
        assert places(first.text)[:3] == [1, 2, 4]
        assert len(first.content) < _MOST_BYTES
        assert "Turn 1" in first.text
        assert "are being counted" in first.text
        # Waited for, it is there; and then for all who come.
        counted = await client.get(f"{PAGE}?turns=1")
        assert f"{turns:,} turns" in counted.text
        for number in (1, turns // 3, turns // 2, turns):
            answer = await client.get(f"{PAGE}?at=t{number}")
            assert f'id="t{number}"' in answer.text
            assert f"Do step {number - 1}<" in answer.text
            assert len(answer.content) < _MOST_BYTES
            seq = 14 * number - 4
            answer = await client.get(f"{PAGE}?at={seq}")
            assert f'id="e{seq}"' in answer.text
        end = await client.get(f"{PAGE}?to={last}")
        assert f"The end. The last entry is number {last:,}" in " ".join(end.text.split())
        found = await client.get(f"{PAGE}?find=end+{turns - 1}&hit=6")
        assert "6 of 6" in " ".join(found.text.split())
        hit = re.search(r'href="([^"]+hit=5[^"]*)"', found.text)
        assert hit is not None
        assert f"#e{14 * turns - 3}" in hit[1]
        # Many at once are as one.
        answers = await asyncio.gather(
            *(client.get(f"{PAGE}?at={n}") for n in range(1, last, last // 9))
        )
        assert {answer.status_code for answer in answers} == {200}
        grown = resident() - before
        assert grown < _MOST_MIB


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(
    "megabytes", [2, pytest.param(30, marks=pytest.mark.soak)], ids=lambda size: f"{size} MB"
)
async def test_one_large_entry_does_not_break_the_page(
    store: BeanieSessionStore, smaller_limits: int, megabytes: int, is_packed: bool
) -> None:
    # Not to be compressed to a few bytes, as logs of the same line are.
    lines = megabytes * 1_000_000 // 65
    log = "".join(f"{sha256(str(n).encode()).hexdigest()}\n" for n in range(lines))
    output = ("\ud83d" if is_packed else "") + log + "the last line"
    talk = Conversation()
    talk.prompt("Look")
    talk.call("Bash", {"command": "cat log"}, output, structured={"stdout": output})
    talk.text("That is long.")
    talk.prompt(output)
    talk.text("So is that.")
    await store.append(KEY, talk.entries)
    async with pages_of(store) as client:
        page = await client.get(f"{PAGE}?from=1")
        assert page.status_code == 200
        assert len(page.content) < 100_000
        assert places(page.text) == [1, 2, 4, 5, 6]
        # What is left out is said, and counted where all of it was read.
        assert page.text.count("shown here.") == 2
        assert f'href="{MOUNT}{PAGE}/e/3">Show all of entry 3</a>' in page.text
        whole = await client.get(f"{PAGE}/e/3")
        assert f"of {lines + 1:,}" in whole.text
        assert len(whole.content) < _MOST_BYTES
        final = await client.get(f"{PAGE}/e/3?page=999999")
        assert "the last line" in final.text
        found = await client.get(f"{PAGE}?find=the+last+line&hit=1")
        assert "1 of 2" in " ".join(found.text.split())
        text = await client.get(f"{PAGE}/e/3/text")
        assert len(text.content) > megabytes * 1_000_000 * 0.99
        assert (await client.get(f"{PAGE}/e/3.json")).json() == (await store.load(KEY) or [])[2]
