"""The pages in a real Chromium: read, filtered, found in, watched live, and harmless."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from claude_agent_sdk import project_key_for_directory
from support.agent import COMMAND_OUTPUT, FIRST_PROMPT, Workplace
from support.browser import Served, Watched, launched, opened, served
from support.conversation import Conversation, shop
from support.database import Databases
from support.hostile import HOSTILE, everywhere

from beanie_session_store.app.web.session_rows import anchor_of
from beanie_session_store.demo.agent import Target

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

_numbers = itertools.count(1)


def new_key() -> dict[str, str]:
    return {"project_key": "-srv-shop", "session_id": f"s{next(_numbers)}"}


@pytest.fixture(scope="module")
def name(databases: Databases) -> Iterator[str]:
    with databases.migrated() as found:
        yield found


@pytest.fixture(scope="module")
def browser(name: str) -> Iterator[Browser]:
    """It comes behind the database, for nothing else runs an event loop here beside it."""
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def pages(browser: Browser, mongo_url: str, name: str) -> Iterator[Served]:
    with served(mongo_url, name, who="user_id") as found:
        yield found


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with opened(browser, viewport={"width": 1440, "height": 900}) as found:
        yield found


def store_all(pages: Served, key: dict[str, str], transcripts: dict[str, list[Any]]) -> None:
    for subpath, entries in transcripts.items():
        pages.append({**key, "subpath": subpath} if subpath else key, entries)


@pytest.fixture(scope="module")
def whole(pages: Served) -> dict[str, str]:
    """A session with something of everything."""
    key = new_key()
    store_all(pages, key, shop())
    return key


ENTRY_IDS = "[...document.querySelectorAll('.entry[id]')].map((each) => +each.id.slice(1))"
TOO_WIDE = """[...document.querySelectorAll('main *, footer *')]
    .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
    .map((each) => each.outerHTML.slice(0, 150)).slice(-3)"""
TOUCH = """[...document.querySelectorAll('a, summary, img, [tabindex]')].forEach((each) => {
    each.dispatchEvent(new MouseEvent('mouseover', {bubbles: true, composed: true}));
    each.dispatchEvent(new FocusEvent('focus', {composed: true}));
})"""
UNFOLD = "document.querySelectorAll('details').forEach((each) => each.open = true)"

_WIDE, _TABLET, _PHONE = ({"width": width, "height": 900} for width in (1440, 768, 390))
LOOKS = [
    pytest.param(_WIDE, "light", 4, id="wide"),
    pytest.param(_WIDE, "light", 0, id="wide-all", marks=pytest.mark.soak),
    pytest.param(_WIDE, "dark", 0, id="wide-dark", marks=pytest.mark.soak),
    pytest.param(_TABLET, "light", 0, id="tablet", marks=pytest.mark.soak),
    pytest.param(_PHONE, "dark", 0, id="phone", marks=pytest.mark.soak),
]
"""Sizes, colours, and how many pages; 0 is all of them."""


def addresses(pages: Served, key: dict[str, str]) -> list[str]:
    """One of each page."""
    session = pages.session(key)
    figures_only = pages.url.replace("/sessions", "/figures-only")
    return [
        pages.url + "/",
        session + "/e/12",
        pages.url + "/figures?since=2026-11-20&until=2026-11-30",
        session,
        pages.url + "/?q=nothing+has+this&tag=x",
        pages.url + "/?q=charged&in=said",
        session + "?find=charge&hit=2",
        session + "?in=subagents/agent-a1",
        session + "-none",
        figures_only + "/",
        figures_only + "/s/-srv-shop/s1",
    ]


@pytest.mark.parametrize(("size", "scheme", "most"), LOOKS)
def test_axe_finds_nothing_on_any_page(
    browser: Browser,
    pages: Served,
    whole: dict[str, str],
    size: Any,
    scheme: Any,
    most: int,
    tmp_path: Path,
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    options = {"rules": {"target-size": {"enabled": True}}}
    found: dict[str, str] = {}
    with opened(browser, viewport=size, color_scheme=scheme, reduced_motion="reduce") as context:
        page = context.new_page()
        exported = tmp_path / "exported.html"
        exported.write_bytes(context.request.get(f"{pages.session(whole)}/export.html").body())
        looked_at = addresses(pages, whole)[: most or None]
        for address in looked_at if most else [*looked_at, exported.as_uri()]:
            page.goto(address)
            # What is folded is not looked at.
            page.evaluate(UNFOLD)
            for violation in axe.run(page, options=options).response["violations"]:
                nodes = "; ".join(node["html"][:160] for node in violation["nodes"][:3])
                found[f"{address[len(pages.url) :]} {violation['id']}"] = nodes
    assert not found


def test_no_page_scrolls_sideways_on_a_small_phone(
    browser: Browser, pages: Served, whole: dict[str, str]
) -> None:
    wider: dict[str, list[str]] = {}
    with opened(browser, viewport={"width": 320, "height": 640}) as context:
        page = context.new_page()
        for address in addresses(pages, whole):
            page.goto(address)
            page.evaluate(UNFOLD)
            width = page.evaluate("document.documentElement.scrollWidth")
            if width > 320:
                wider[address[len(pages.url) :]] = page.evaluate(TOO_WIDE)
    assert not wider


def test_a_session_is_found_filtered_and_read(
    context: BrowserContext, pages: Served, whole: dict[str, str]
) -> None:
    watched = Watched.of(context.new_page())
    page = watched.page
    page.goto(pages.url + "/")
    page.locator("input[type=search]").first.fill("charged")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=charged**")
    page.locator("table.sessions th a").first.click()
    page.wait_for_url("**/s/**")
    assert "charged twice" in page.locator("h1").inner_text()
    # A failure shows unopened; its subagent is in its place.
    assert page.locator(".fails").first.is_visible()
    assert page.get_by_text("One way is left: actions.py:29").first.count()
    # Find goes through what is folded, and the subagent's text.
    page.locator(".find input[type=search], input[name=find]").first.fill("idempotency")
    page.keyboard.press("Enter")
    page.wait_for_url("**find=idempotency**")
    assert page.locator("mark >> visible=true").count()
    address = page.url
    page.keyboard.press("n")
    page.wait_for_function("(before) => location.href !== before", arg=address)
    watched.assert_harmless(pages.url)


def test_a_link_to_an_entry_opens_what_it_is_folded_into(
    context: BrowserContext, pages: Served, whole: dict[str, str]
) -> None:
    page = context.new_page()
    # 14: the output of the tests that failed.
    page.goto(pages.session(whole) + "?at=12#e12")
    entry = page.locator("#e12")
    assert entry.is_visible()
    assert entry.bounding_box()["y"] < 900  # type: ignore[index]
    # A bare one works by the script.
    page.goto(pages.session(whole) + "#e12")
    page.wait_for_function("() => document.getElementById('e12')?.checkVisibility()")


def test_all_of_it_is_there_without_the_script(
    browser: Browser, pages: Served, whole: dict[str, str]
) -> None:
    with opened(browser, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(pages.url + "/")
        page.locator("table.sessions th a").first.click()
        page.locator("input[name=find]").first.fill("GatewayTimeout")
        page.keyboard.press("Enter")
        page.wait_for_url("**find=GatewayTimeout**")
        assert page.locator("mark >> visible=true").count()


def test_every_feature_is_reached_by_keys_alone(
    context: BrowserContext, pages: Served, whole: dict[str, str]
) -> None:
    page = context.new_page()
    page.goto(pages.url + "/")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/s/**")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.closest('.turn') !== null")
    before = page.locator(".call > .body > details[open]").count()
    page.keyboard.press("o")
    assert page.locator(".call > .body > details[open]").count() != before
    page.keyboard.press("f")
    assert page.evaluate("document.activeElement.closest('.fails') !== null")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    page.keyboard.press("/")
    page.keyboard.type("charge")
    page.keyboard.press("Enter")
    page.wait_for_url("**find=charge**")
    page.keyboard.press("g")
    page.keyboard.press("u")
    page.wait_for_url("**/figures")
    page.keyboard.press("g")
    page.keyboard.press("l")
    page.wait_for_url(re.compile("/sessions/$"))


def talk(count: int, name: str = "main") -> list[Any]:
    """Turns of a person who asks and an agent that answers."""
    conversation = Conversation(name, at=datetime.now(timezone.utc), step=0)
    for number in range(count):
        conversation.prompt(f"question {number}")
        conversation.text(f"answer {number}\n\n" + "word " * 200)
    return conversation.entries


def test_what_comes_is_shown_below_and_the_place_of_the_reader_stays(
    context: BrowserContext, pages: Served
) -> None:
    key = new_key()
    entries = talk(12)
    pages.append(key, entries[:20])
    watched = Watched.of(context.new_page())
    page = watched.page
    page.goto(pages.session(key))
    page.wait_for_selector("body[data-connection=live]")
    page.evaluate("scrollTo(0, 600)")
    page.wait_for_function("() => !document.getElementById('stay').checked")
    place = page.evaluate("scrollY")
    pages.append(key, entries[20:21])
    page.wait_for_function("() => document.getElementById('e21')")
    pages.append(key, entries[21:])
    page.wait_for_function("() => document.getElementById('e24')")
    below = page.locator("#new-below")
    assert re.fullmatch(r"\d new entr(y|ies) below", below.inner_text())
    assert page.evaluate("scrollY") == place
    assert page.locator("#e24").count() == 1
    order = page.evaluate(
        "[...document.querySelectorAll('.entry[id]')].map((e) => +e.id.slice(1)).filter(Boolean)"
    )
    assert order == sorted(set(order))
    below.click()
    page.wait_for_function("() => document.getElementById('new-below').hidden")
    assert "question 11" in page.locator("#e23").inner_text()
    watched.assert_harmless(pages.url)


def test_a_call_runs_and_then_has_its_outcome_in_its_place(
    context: BrowserContext, pages: Served
) -> None:
    key = new_key()
    main = Conversation()
    main.prompt("Run the tests")
    pages.append(key, main.entries)
    page = context.new_page()
    page.goto(pages.session(key))
    page.wait_for_selector("body[data-connection=live]")
    count = len(main.entries)
    main.call("Bash", {"command": "pytest -q"}, "41 passed in 2 s")
    call, result = main.entries[count:]
    pages.append(key, [call])
    page.wait_for_selector("#e2")
    assert "41 passed" not in page.locator("#e2").inner_text()
    pages.append(key, [result])
    page.wait_for_function("() => document.getElementById('e2').textContent.includes('41 passed')")
    assert page.locator("[id='e2']").count() == 1


def test_who_comes_back_misses_nothing(context: BrowserContext, pages: Served) -> None:
    key = new_key()
    entries = talk(4)
    pages.append(key, entries[:2])
    page = context.new_page()
    page.goto(pages.session(key))
    page.wait_for_selector("body[data-connection=live]")
    pages.append(key, entries[2:4])
    page.wait_for_selector("#e4", state="attached")
    pages.cut()
    page.wait_for_selector("body[data-connection=lost]")
    assert "Nothing is missed" in page.locator("#live-bar").inner_text()
    pages.append(key, entries[4:])
    page.wait_for_selector("#e8", state="attached")
    for number in range(1, 9):
        assert page.locator(f"[id='e{number}']").count() == 1


def test_a_session_that_is_deleted_says_so_and_asks_for_nothing_more(
    context: BrowserContext, pages: Served
) -> None:
    key = new_key()
    pages.append(key, talk(2))
    watched = Watched.of(context.new_page())
    page = watched.page
    page.goto(pages.session(key))
    page.wait_for_selector("body[data-connection=live]")
    pages.run(pages.store.delete(key))
    page.wait_for_selector("#gone", state="visible")
    assert "This session was erased." in page.locator("#gone").inner_text()
    # What is on the screen stays, but leads nowhere.
    assert page.get_by_text("question 1").first.is_visible()
    asked = len(watched.requests)
    page.wait_for_timeout(2_500)
    assert len(watched.requests) == asked


def test_the_list_moves_in_place_and_offers_what_is_new(
    context: BrowserContext, pages: Served
) -> None:
    key, later = new_key(), new_key()
    entries = talk(3)
    pages.append(key, entries[:2])
    page = context.new_page()
    page.goto(pages.url + "/")
    page.wait_for_selector("body[data-connection=live]")
    row = page.locator(f"#{anchor_of(key)}")
    turns = row.locator("td.n").first
    assert turns.inner_text() == "1"
    pages.append(key, entries[2:])
    page.wait_for_function(
        "(id) => document.querySelector(`#${id} td.n`).innerText === '3'",
        arg=anchor_of(key),
    )
    assert row.locator(".live").is_visible()
    pages.append(later, talk(1, "later"))
    page.get_by_text("1 more session has begun.").wait_for()
    page.get_by_text("Show them").click()
    page.locator(f"#{anchor_of(later)}").wait_for()
    pages.run(pages.store.delete(key))
    page.locator(f"#{anchor_of(key)}").get_by_text("deleted").wait_for()


def test_windows_come_as_they_are_reached_and_no_more_than_a_few_stay(
    context: BrowserContext, pages: Served
) -> None:
    key = new_key()
    conversation = Conversation()
    for number in range(1_200):
        conversation.prompt(f"question {number}")
    pages.append(key, conversation.entries)
    watched = Watched.of(context.new_page())
    page = watched.page
    page.goto(pages.session(key) + "?at=1#e1")
    page.wait_for_function(
        """() => {
            scrollTo(0, document.documentElement.scrollHeight);
            return document.getElementById('e1200');
        }""",
        polling=60,
    )
    assert page.locator("#e1200").count() == 1
    ids = page.evaluate("[...document.querySelectorAll('.entry[id]')].map((e) => +e.id.slice(1))")
    assert len(ids) <= 1_000
    assert ids == sorted(set(ids))
    # Back up it is all there again.
    page.wait_for_function(
        """() => {
            const waits = [...document.querySelectorAll('.seam')].some((each) => {
                const { top, bottom } = each.getBoundingClientRect();
                return bottom > 0 && top < innerHeight;
            });
            // Else it is past a window before that has come.
            if (!waits) scrollBy(0, -800);
            return !waits && scrollY === 0 && document.getElementById('e1');
        }""",
        polling=20,
    )
    ids = page.evaluate("[...document.querySelectorAll('.entry[id]')].map((e) => +e.id.slice(1))")
    assert ids == sorted(set(ids))
    assert {1, 2, 199, 200} <= set(ids)
    watched.assert_harmless(pages.url)


def test_windows_that_are_reached_at_once_all_come(browser: Browser, pages: Served) -> None:
    key = new_key()
    conversation = Conversation()
    for number in range(400):
        conversation.prompt(f"question {number}")
    pages.append(key, conversation.entries)
    with opened(browser, viewport={"width": 1440, "height": 60_000}) as context:
        page = context.new_page()
        # Both ends of what is there are in view.
        page.goto(pages.session(key) + "?at=200#e200")
        for end in ("#e1", "#e400"):
            page.wait_for_selector(end, state="attached")


def test_hostile_transcripts_run_nothing_and_load_nothing(
    context: BrowserContext, pages: Served
) -> None:
    """The browser's own console and network log say so."""
    watched = Watched.of(context.new_page())
    page = watched.page
    looked = 0
    # All of them in one session, and the rest of the kinds one by one in soak.
    text = "\n\n".join(HOSTILE.values())
    key = new_key()
    for subpath, entries in everywhere(text).items():
        pages.append({**key, "subpath": subpath} if subpath else key, entries)
    session = pages.session(key)
    for address in (
        f"{pages.url}/",
        f"{session}?from=1",
        f"{session}?in=subagents/agent-a1",
        f"{session}?find=script&hit=1",
        f"{session}/e/6",
        f"{session}/e/10",
        f"{pages.url}/figures",
    ):
        page.goto(address)
        page.evaluate(UNFOLD)
        # Whatever waits for a pointer, a focus or a load has had its chance.
        page.evaluate(TOUCH)
        looked += page.locator("body *").count()
    # What comes live goes the same way.
    page.goto(session)
    page.wait_for_selector("body[data-connection=live]")
    more = Conversation("more")
    more.prompt(text)
    more.text(text)
    pages.append(key, more.entries)
    page.get_by_text("<script>alert(1)</script>").last.wait_for(state="attached")
    page.wait_for_timeout(300)
    assert looked > 1_000
    assert page.evaluate("window.frames.length") == 0
    watched.assert_harmless(pages.url)


@pytest.mark.agent
@pytest.mark.soak
def test_a_real_agent_is_watched_while_it_works(
    context: BrowserContext, pages: Served, mongo_url: str, name: str, tmp_path: Path
) -> None:
    page = context.new_page()
    page.goto(pages.url + "/?project=" + project_key_for_directory(tmp_path / "project"))
    page.wait_for_selector("body[data-connection=live]")
    work = Workplace(tmp_path, Target(mongo_url, name))
    Path(work.project).mkdir()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(asyncio.run, work.turn(FIRST_PROMPT))
        page.get_by_text("Show them").click()
        page.locator("table.sessions th a").first.click()
        page.wait_for_selector("body[data-connection=live]")
        running.result()
    (session,) = {each["session_id"] for each in turn_keys(pages, work)}
    stored = pages.run(
        pages.store.summary({"project_key": work.project_key, "session_id": session})
    )
    assert stored is not None
    # The tool's output, the subagent below its call, and the end: without a reload.
    page.get_by_text(COMMAND_OUTPUT).first.wait_for(state="attached")
    page.get_by_text("deep 42").first.wait_for(state="attached")
    ids = page.evaluate(ENTRY_IDS)
    assert len(ids) == len(set(ids)) > 8
    live = page.locator(".talk").inner_text()
    page.reload()
    # What was put together piece by piece is what a page has at once.
    assert page.evaluate(ENTRY_IDS) == ids
    assert {*words_of(page.locator(".talk").inner_text())} <= {*words_of(live)} | {"ago", "s"}


def turn_keys(pages: Served, work: Workplace) -> list[Any]:
    async def found() -> list[Any]:
        return list((await pages.store.sessions(project_key=work.project_key)).sessions)

    return [each.key() for each in pages.run(found())]


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-zA-Z]{3,}", text)
