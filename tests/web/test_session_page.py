"""The page of a session: all that was said, in its order, and nothing left out in silence."""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime, timedelta, timezone
from html import unescape
from typing import Any

import pytest
from support.conversation import Conversation, shop
from support.pages import MOUNT, pages_of, shape_of

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import Database

KEY = {"project_key": "-srv-shop", "session_id": "session"}
PAGE = "/s/-srv-shop/session"


@pytest.fixture
async def shopped(store: BeanieSessionStore) -> BeanieSessionStore:
    """A store with a session of everything."""
    await stored(store, shop())
    return store


async def stored(store: BeanieSessionStore, transcripts: dict[str, list[dict[str, Any]]]) -> None:
    for subpath, entries in transcripts.items():
        await store.append({**KEY, "subpath": subpath} if subpath else KEY, entries)


async def got(store: BeanieSessionStore, path: str = "", **options: Any) -> str:
    async with pages_of(store, **options) as client:
        answer = await client.get(PAGE + path)
    assert answer.status_code == 200, answer.text
    return answer.text


def seen(html: str) -> str:
    """The words of a page in their order."""
    text = re.sub(r"</?(?:bdi|code|em|strong|b|i|mark)\b[^>]*>", "", html)
    text = re.sub(r"<svg.*?</svg>|<[^>]+>", " ", text, flags=re.S)
    return re.sub(r" ([,.;])", r"\1", " ".join(unescape(text).split()))


def piece(html: str, seq: int) -> str:
    """The HTML of an entry's piece, up to the next piece."""
    found = re.search(
        rf'<div class="[^"]*" id="e{seq}".*?(?=<div class="entry|</section>)', html, re.S
    )
    assert found is not None, seq
    return found.group()


LINES = {
    6: "Grep GatewayTimeout in shop, *.py 4 files",
    8: "Read shop/gateway.py lines 60 to 120 61 lines",
    10: "Bash pytest tests -q -x failed, exit 1 · 1 failed, 2 passed · 33 lines · 7.0 s",
    12: "To-do 1 of 3 done, now: Write a test 3 items",
    14: "ledger (MCP) find_charges: order=88213, day=2026-11-24 1 line · 7.0 s",
    16: "Edit shop/charge.py +2 \N{MINUS SIGN}1",
    28: "Bash docker compose run --rm sandbox refused by u1",
    30: "Bash make sandbox and 2 more lines",
    32: "Question May admins charge again? → Only with a second admin answered by u1",
    34: "Plan Second admin, 2 steps approved by u1",
    36: "WebSearch “idempotency key reuse”",
    38: "WebFetch docs.gateway.example: What does lookup answer? HTTP 200 · 41 kB",
    40: "Write docs/x.md, new +3 lines",
    42: "FutureTool something new 2 lines · 7.0 s",
}


async def test_each_call_folds_to_a_line_that_says_what_matters(
    shopped: BeanieSessionStore,
) -> None:
    shopped = BeanieSessionStore(metadata={"user_id": "u1"})
    await shopped.set_metadata(KEY, {"user_id": "u1"})
    html = await got(shopped, who="user_id")
    for seq, line in LINES.items():
        assert line in seen(piece(html, seq)), seq
    assert "12,480 lines, 226 kB" in seen(piece(html, 30))
    for seq in (10, 23, 28):
        assert f'class="entry call fails" id="e{seq}"' in html


async def test_the_conversation_is_in_its_order_with_what_stands_beside_it(
    shopped: BeanieSessionStore,
) -> None:
    html = await got(shopped)
    words = seen(html)
    told = [
        "Turn 1",
        "Some customers were charged twice. Keep `charge_order` as it is.",
        "Added by the agent Reminder: 2 files were opened in the editor",
        "Thinking A timeout leaves it unknown.",
        "Assistant claude-opus-4-5 09:02:39",
        "Subagent reviewer",
        "Asked by the assistant",
        "One way is left: actions.py:29 has no idempotency key.",
        "What changed",
        "Hooks at the end of the turn: 2 ran, none objected",
        "went back to here. Left behind: 1 turn, 4 messages (entries 22 to 25)",
        "Rename the states while you are there.",
        "Turn 3",
        "This is what support sees. Why?",
        "Picture, image/svg+xml, 6 bytes, not shown: this type can run. Download",
        "Tried again. Overloaded (529); attempt 2 of 10 after 4.0 s",
        "Compacted: 168,412 tokens of context became 21,306 (automatic)",
        "What the agent went on from",
        "Turn 4",
        "Entry of kind next-years-kind, 68 bytes, not known to this version",
        "Sent once.",
        "1 of them, about the session itself, is not shown: 1 mode.",
    ]
    places = [words.find(each, words.find("Find in this session")) for each in told]
    assert -1 not in places, told[places.index(-1)]
    assert places == sorted(places)
    # One heading of the first level, one of the second for each turn that goes on.
    levels = [tag[0] for tag in shape_of(html) if isinstance(tag, tuple) and tag[0] in ("h1", "h2")]
    assert levels.count("h1") == 1
    assert "<h3>What changed</h3>" in html
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    # Each entry of the main transcript has its place.
    assert {f"e{seq}" for seq in range(1, 50)} <= set(ids)


async def test_the_table_of_turns_tells_what_each_came_to(shopped: BeanieSessionStore) -> None:
    html = await got(shopped)
    table = seen(re.search(r'<nav class="turns".*?</nav>', html, re.S)[0])
    assert "4 turns, 1 subagent" in table
    assert "7 tools, 1 failed" in table
    assert "left behind · 1 tool, 1 failed" in table
    assert "Subagent reviewer: Review the charge path 1 tool" in table
    assert "compacted: 168k became 21.3k" in table
    assert html.count('<rect class="hot"') == 4


async def test_what_is_clamped_is_counted_and_reached(shopped: BeanieSessionStore) -> None:
    html = await got(shopped)
    log = piece(html, 30)
    assert "12,468 lines" in log
    assert "are not shown here." in log
    assert f'href="{MOUNT}{PAGE}/e/31">Show all 12,480 lines' in log
    failed = piece(html, 10)
    assert "14 lines" not in failed
    assert "13 lines" in failed
    assert "E the second call has no idempotency key" in failed
    async with pages_of(shopped) as client:
        whole = await client.get(f"{PAGE}/e/31")
        last = await client.get(f"{PAGE}/e/31?page=7")
    assert "Lines 1 to 2,000 of 12,480" in seen(whole.text)
    assert "Page 1 of 7" in seen(whole.text)
    assert "Lines 12,001 to 12,480 of 12,480" in seen(last.text)
    assert "charge 12479" in last.text


async def test_pages_of_an_entry_together_are_all_of_it(store: BeanieSessionStore) -> None:
    text = "\n".join(f"{number} " + "wide " * (number % 700) for number in range(5_000))
    talk = Conversation()
    talk.call("Bash", {"command": "x"}, text)
    talk.call("Bash", {"command": "y"}, "z" * 700_000)
    await stored(store, {"": talk.entries})
    for seq, whole in ((2, text), (4, "z" * 700_000)):
        parts: list[str] = []
        async with pages_of(store) as client:
            while True:
                page = await client.get(f"{PAGE}/e/{seq}?page={len(parts) + 1}")
                parts.append(
                    re.search(r'<pre class="whole"[^>]*>\n(.*?)</pre>', page.text, re.S)[1]
                )
                assert len(page.content) < 400_000
                if 'rel="next"' not in page.text:
                    break
        assert "".join(parts) == whole
        assert len(parts) > 2


async def test_an_entry_is_given_as_it_is_stored_and_as_text(shopped: BeanieSessionStore) -> None:
    stored_entries = await shopped.load(KEY)
    async with pages_of(shopped) as client:
        for seq, entry in enumerate(stored_entries or (), 1):
            answer = await client.get(f"{PAGE}/e/{seq}.json")
            assert answer.json() == entry
            assert answer.headers["content-disposition"].startswith("attachment")
        text = await client.get(f"{PAGE}/e/31/text")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.headers["content-disposition"].startswith("attachment")
    assert text.text.count("charge") == 12_480


async def test_pictures_come_from_our_own_address_and_of_safe_types_alone(
    store: BeanieSessionStore,
) -> None:
    def picture(media_type: str, data: bytes) -> dict[str, Any]:
        source = {
            "type": "base64",
            "media_type": media_type,
            "data": base64.b64encode(data).decode(),
        }
        return {"type": "image", "source": source}

    safe = {
        "image/png": b"\x89PNG\r\n\x1a\n" + bytes(20),
        "image/jpeg": b"\xff\xd8\xff" + bytes(20),
        "image/gif": b"GIF89a" + bytes(20),
        "image/webp": b"RIFF\0\0\0\0WEBP" + bytes(20),
    }
    odd = [
        picture("image/svg+xml", b"<svg onload=alert(1)>"),
        # It says that it is safe, and is none.
        picture("image/png", b"<html><script>alert(1)</script>"),
        picture("text/html", b"<script>alert(1)</script>"),
    ]
    elsewhere = {"type": "image", "source": {"type": "url", "url": "http://evil.example/x.png"}}
    talk = Conversation()
    talk.prompt(*(picture("image/svg+xml", data) for data in safe.values()), *odd, elsewhere)
    talk.call("Read", {"file_path": "x.png"}, [picture("x", b"GIF89a"), *odd[:1]])
    await stored(store, {"": talk.entries})
    html = await got(store)
    assert re.findall(r'<img src="([^"]+)"', html) == [
        f"{MOUNT}{PAGE}/e/{seq}/image/{number}"
        for seq, number in ((1, 0), (1, 1), (1, 2), (1, 3), (3, 0))
    ]
    assert html.count("not shown: this type can run") == 4
    assert "http://evil.example/x.png" in seen(html)
    async with pages_of(store) as client:
        for number, kind in enumerate(safe):
            answer = await client.get(f"{PAGE}/e/1/image/{number}")
            assert answer.headers["content-type"] == kind
            assert answer.content == safe[kind]
            assert "sandbox" in answer.headers["content-security-policy"]
        for path in ("1/image/4", "1/image/5", "1/image/6", "3/image/1"):
            answer = await client.get(f"{PAGE}/e/{path}")
            assert answer.headers["content-type"] == "application/octet-stream"
            assert answer.headers["content-disposition"].startswith("attachment")
            assert answer.headers["x-content-type-options"] == "nosniff"
        for path in ("1/image/7", "1/image/x", "1/image/99", "2/image/0", "9/image/0"):
            assert (await client.get(f"{PAGE}/e/{path}")).status_code == 404


@pytest.mark.parametrize(
    ("words", "search", "entries"),
    [
        ("idempotency", "everything", [9, 11, 16, 20, 36, 54]),
        ("IDEMPOTENCY", "answers", [20, 54]),
        ("idempotency", "calls", [9, 11, 16, 36]),
        ("idempotency", "failures", [11]),
        ("charge 6240", "everything", [31]),
        ("why?", "prompts", [26]),
        ("next-years", "everything", []),
        ("nobody knows", "everything", [48]),
    ],
)
async def test_find_goes_through_all_that_is_stored(
    shopped: BeanieSessionStore, words: str, search: str, entries: list[int]
) -> None:
    async with pages_of(shopped) as client:
        answer = await client.get(PAGE, params={"find": words, "in": search})
        found: list[int] = []
        while answer.status_code == 303:
            where = answer.headers["location"]
            found.append(int(where.rpartition("#e")[2]))
            answer = await client.get(where.removeprefix(MOUNT))
            assert answer.status_code == 200
            assert f'id="e{found[-1]}"' in answer.text
            assert f"{len(found)} of {len(entries)}" in seen(answer.text)
            following = re.search(r'data-step="next" href="([^"]+)"', answer.text)
            if following is None:
                break
            step = following[1].replace("&amp;", "&").removeprefix(MOUNT)
            answer = await client.get(step)
            assert answer.status_code == 200
            found.append(int(step.rpartition("#e")[2]))
            while (more := re.search(r'data-step="next" href="([^"]+)"', answer.text)) is not None:
                step = more[1].replace("&amp;", "&").removeprefix(MOUNT)
                found.append(int(step.rpartition("#e")[2]))
                answer = await client.get(step)
            break
    assert found == entries
    if not entries:
        assert "No hits" in seen(answer.text)


async def test_what_is_found_is_marked_and_what_folds_it_says_so(
    shopped: BeanieSessionStore,
) -> None:
    html = await got(shopped, "?find=idempotency&hit=2")
    failed = piece(html, 10)
    assert "<details open>" in failed
    assert "<mark>idempotency</mark>" in failed
    assert "1 hit" in seen(failed)
    assert "1 hit" in seen(piece(html, 8))
    assert 'aria-current="true"' in html


@pytest.mark.parametrize(
    ("path", "first", "has_before", "has_after"),
    [
        # It was written just now, so the end is what one comes to see.
        ("", 481, True, False),
        ("?from=1", 1, False, True),
        ("?at=300", 281, True, True),
        ("?from=300", 300, True, True),
        ("?to=268", 149, True, True),
        ("?at=t90", 160, True, True),
        ("?from=590", 590, True, False),
        ("?at=99999", 481, True, False),
        ("?at=x&from=y&to=-1&hit=z&turns=", 481, True, False),
    ],
)
async def test_a_window_is_where_it_is_asked_for_and_says_what_is_not_loaded(
    long_talk: BeanieSessionStore, path: str, first: int, has_before: bool, has_after: bool
) -> None:
    html = await got(long_talk, path)
    ids = [int(each) for each in re.findall(r'<div class="entry[^"]*" id="e(\d+)"', html)]
    assert ids[0] == first
    assert ids == sorted(ids)
    assert len(ids) <= 120
    assert ('data-seam="before"' in html) is has_before
    assert ('data-seam="after"' in html) is has_after
    assert ("The end. The last entry is number 600" in seen(html)) is not has_after


async def test_windows_joined_at_their_seams_are_the_whole_session(
    long_talk: BeanieSessionStore,
) -> None:
    for side, path in (("after", "?from=1"), ("before", "?to=600")):
        found: list[int] = []
        html = await got(long_talk, path)
        while True:
            ids = [int(each) for each in re.findall(r'<div class="entry[^"]*" id="e(\d+)"', html)]
            found = found + ids if side == "after" else ids + found
            seam = re.search(rf'data-seam="{side}" data-window="([^"]+)"', html)
            if seam is None:
                break
            path = seam[1].removeprefix(MOUNT + PAGE)
            assert path.startswith("/window?")
            html = await got(long_talk, path)
        assert found == list(range(1, 601))


@pytest.fixture
async def long_talk(store: BeanieSessionStore) -> BeanieSessionStore:
    """A session of 300 turns, each a prompt and an answer, of the last ten minutes."""
    talk = Conversation(at=datetime.now(timezone.utc) - timedelta(seconds=601), step=1)
    for number in range(300):
        talk.prompt(f"Ask {number}")
        talk.text(f"Answer {number}")
    await stored(store, {"": talk.entries})
    return store


async def test_a_window_ends_before_it_is_too_large(store: BeanieSessionStore) -> None:
    talk = Conversation(step=1)
    for number in range(80):
        talk.text(f"Answer {number} " + "word " * 2_000)
    await stored(store, {"": talk.entries})
    html = await got(store)
    assert len(html) < 400_000
    assert 'data-seam="after"' in html
    assert len(re.findall(r'<div class="entry', html)) >= 10


async def test_a_call_and_its_answer_stay_together_over_a_seam(store: BeanieSessionStore) -> None:
    talk = Conversation(step=1)
    for number in range(119):
        talk.text(str(number))
    talk.call("Bash", {"command": "ls"}, "one\ntwo")
    await stored(store, {"": talk.entries})
    first = await got(store, "?from=1")
    assert "2 lines" in seen(piece(first, 120))
    second = await got(store, "?from=121")
    assert "Answer" in seen(piece(second, 121))
    assert "to the call of entry 120" in seen(piece(second, 121))


async def test_a_subagent_is_on_a_page_of_its_own_and_found_by_its_entries(
    shopped: BeanieSessionStore,
) -> None:
    html = await got(shopped, "?in=agent-a1")
    assert "Subagent reviewer of: Some customers were charged twice." in seen(html)
    assert "It made 1 tool call, in 4 messages." in seen(html)
    assert "export.jsonl?in=agent-a1" in html
    assert 'id="e54"' in html
    assert 'id="e2"' not in html
    assert f"{MOUNT}{PAGE}?at=18#e18" in html
    html = await got(shopped, "?at=54")
    assert 'class="entry text here" id="e54"' in html
    assert 'id="e18"' in html
    async with pages_of(shopped) as client:
        for wrong in ("agent-a2", "..", "x" * 2_000, "a%00b", "%ED%A0%80"):
            assert (await client.get(f"{PAGE}?in={wrong}")).status_code == 404, wrong


async def test_a_subagent_whose_call_is_not_known_is_reached(store: BeanieSessionStore) -> None:
    agent = Conversation("lost")
    agent.entries.append({"type": "agent_metadata", "agentType": "explorer", "toolUseId": "gone"})
    agent.text("nobody asked")
    await stored(store, {"subagents/workflows/run/agent-lost": agent.entries})
    for with_main in (False, True):
        if with_main:
            await stored(store, shop())
        html = await got(store, "?from=1")
        assert "Subagents whose call is not known" in seen(html)
        link = re.search(r'<ul class="strays"><li><a href="([^"]+)"', html)
        assert link is not None
        own = await got(store, link[1].removeprefix(MOUNT + PAGE))
        assert "nobody asked" in own


async def test_a_long_subagent_says_how_much_of_it_is_elsewhere(store: BeanieSessionStore) -> None:
    main = Conversation()
    call = main.call("Agent", {"subagent_type": "explorer", "description": "Look"}, "done")
    agent = Conversation("b")
    agent.entries.append({"type": "agent_metadata", "agentType": "explorer", "toolUseId": call})
    for number in range(70):
        agent.text(f"step {number}")
    await stored(store, {"": main.entries, "subagents/agent-b": agent.entries})
    html = await got(store)
    assert "58 more entries are not shown here. Show all of this subagent" in seen(html)
    assert 'class="entry call agent" id="e1"' in html
    own = await got(store, "?at=60")
    assert "Subagent explorer of:" in seen(own)
    assert 'class="entry text here" id="e60"' in own


async def test_subagents_nest_without_end_and_none_stands_in_itself(
    store: BeanieSessionStore,
) -> None:
    transcripts: dict[str, list[dict[str, Any]]] = {}
    talk = Conversation()
    for level in range(12):
        call = talk.call("Agent", {"description": f"Level {level}"}, f"done {level}")
        transcripts[f"subagents/agent-{level}" if level else ""] = talk.entries
        talk = Conversation(f"l{level}")
        talk.entries.append(
            {"type": "agent_metadata", "agentType": f"kind{level}", "toolUseId": call}
        )
    # The last one says that the call of the first is its own as well.
    loop = Conversation("loop")
    loop.entries.append({"type": "agent_metadata", "toolUseId": "toolu-loop-0"})
    loop.call("Agent", {"description": "Itself"}, "done")
    transcripts["subagents/agent-loop"] = loop.entries
    await stored(store, transcripts)
    html = await got(store)
    assert "level 3" in seen(html)
    assert "Not shown here." in seen(html)
    assert html.count("Subagent") < 60


async def test_a_call_runs_or_the_session_ends_there(
    store: BeanieSessionStore,
) -> None:
    now = datetime.now(timezone.utc)
    for name, began in (("now", now), ("yesterday", now - timedelta(days=1))):
        talk = Conversation(at=began - timedelta(seconds=20))
        talk.prompt("Run the tests")
        talk.call("Bash", {"command": "pytest tests/mail -q"})
        await store.append({**KEY, "session_id": name}, talk.entries)
    async with pages_of(store) as client:
        running = await client.get("/s/-srv-shop/now")
        ended = await client.get("/s/-srv-shop/yesterday")
    assert re.search(r"pytest tests/mail -q running, \d+(\.\d)? s", seen(running.text))
    assert 'class="live"' in running.text
    # Imported just now, and said a day ago.
    html = ended.text
    assert "no result: the session ends here" in seen(html)
    assert 'class="live"' not in html


async def test_exports_are_downloads_of_all_of_it(shopped: BeanieSessionStore) -> None:
    async with pages_of(shopped) as client:
        lines = await client.get(f"{PAGE}/export.jsonl")
        agent = await client.get(f"{PAGE}/export.jsonl?in=agent-a1")
        pages = [await client.get(f"{PAGE}/export.{ending}") for ending in ("md", "html")]
    assert [json.loads(each) for each in lines.text.splitlines()] == await shopped.load(KEY)
    assert [json.loads(each) for each in agent.text.splitlines()] == await shopped.load(
        {**KEY, "subpath": "subagents/agent-a1"}
    )
    for answer in (lines, agent, *pages):
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert "charged twice" in answer.text
    assert "sandbox" in pages[1].headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["", "/window", "/e/1", "/e/1.json", "/e/1/text", "/e/1/image/0"]
    + [f"/export.{ending}" for ending in ("md", "html", "jsonl")],
)
async def test_another_tenants_session_is_none_and_figures_alone_open_nothing(
    shopped: BeanieSessionStore, path: str
) -> None:
    async with pages_of(BeanieSessionStore(tenant="other")) as client:
        there = await client.get(PAGE + path)
        nowhere = await client.get(f"/s/-srv-shop/nowhere{path}")
    assert there.status_code == nowhere.status_code == 404
    assert there.text.replace("session", "") == nowhere.text.replace("nowhere", "").replace(
        "session", ""
    )
    async with pages_of(shopped, contents=False) as client:
        refused = await client.get(PAGE + path)
    assert refused.status_code == 403
    assert "charged" not in refused.text


async def test_an_entry_that_cannot_be_read_costs_the_others_nothing(
    shopped: BeanieSessionStore, database: Database
) -> None:
    entries = database["claude_transcript_entries"]
    await entries.update_one(
        {"seq": 20}, {"$unset": {"entry": ""}, "$set": {"packed": b"\x01junk"}}
    )
    await entries.update_one({"seq": 10}, {"$unset": {"entry": ""}, "$set": {"packed": b"\x09"}})
    await entries.update_one({"seq": 8}, {"$unset": {"entry": ""}, "$set": {"chunks": 3}})
    # By something else than the store.
    await entries.update_one({"seq": 14}, {"$set": {"entry": "Sent once"}})
    html = await got(shopped)
    for seq in (8, 10, 14, 20):
        assert f"Entry {seq} could not be shown" in seen(piece(html, seq))
    assert "Sent once." in html
    found = await got(shopped, "?find=Sent+once&hit=1")
    assert "1 of 1" in seen(found)
    async with pages_of(shopped) as client:
        assert (await client.get(f"{PAGE}/e/14")).status_code == 500
        answer = await client.get(f"{PAGE}/e/20.json")
    assert answer.status_code == 500
    assert "Entry 20 cannot be read" in answer.text
