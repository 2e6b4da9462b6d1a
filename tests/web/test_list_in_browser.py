"""What the script does to the list and the figures: days and times of the reader's zone, keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from support.browser import Served, launched, opened, served
from support.database import Databases
from support.pages import account, answer, prompt

from beanie_session_store import BeanieSessionStore

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

# Each a few hours after the other, so that days end between them in any zone.
TIMES = [datetime(2026, 3, 1 + n // 4, n % 4 * 6 + 1, 30, tzinfo=timezone.utc) for n in range(9)]


@pytest.fixture(scope="module")
def name(databases: Databases) -> Iterator[str]:
    with databases.migrated() as found:
        yield found


@pytest.fixture(scope="module")
def browser(name: str) -> Iterator[Browser]:
    with launched() as found:
        yield found


async def write(store: BeanieSessionStore) -> None:
    for number, at in enumerate(TIMES):
        key = {"project_key": "p", "session_id": f"s{number}"}
        text = prompt(f"Session {number}.", at=at)
        said = [text, answer("Done", "Bash", at=at), account(1 + number)]
        async with store._doing("be told the time") as connection:
            await store.append(key, said)
            # As an import leaves it: the transcript is older than its storing.
            of_it = {"tenant": store.tenant, **key}
            stored = {"mtime": int(at.timestamp() * 1000), "active_at": at}
            await connection.summaries.collection.update_one(of_it, {"$set": stored})


@pytest.fixture(scope="module")
def pages(browser: Browser, mongo_url: str, name: str) -> Iterator[Served]:
    with served(mongo_url, name, who="user_id") as found:
        found.run(write(found.store))
        yield found


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with opened(browser, viewport={"width": 1280, "height": 900}) as found:
        yield found


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles", "UTC"])
def test_days_and_times_are_those_of_the_reader(browser: Browser, pages: Served, zone: str) -> None:
    with opened(browser, timezone_id=zone) as context:
        page = context.new_page()
        page.goto(f"{pages.url}/")
        rows = page.locator("table.sessions tbody tr").all_inner_texts()
        foot = page.locator("#zone").inner_text()
    expected: list[str] = []
    for number in reversed(range(len(TIMES))):
        there = TIMES[number].astimezone(ZoneInfo(zone))
        heading = f"{there:%A}, {there.day} {there:%B}"
        if heading not in expected:
            expected.append(heading)
        expected.append(f"Session {number}. {there:%H:%M}")
    shown = [
        re.sub(r"(Session \d\.).*?(\d\d:\d\d).*", r"\1 \2", " ".join(row.split())) for row in rows
    ]
    # Of another year it says so.
    assert [re.sub(r" \d{4}$", "", each) for each in shown] == expected
    assert zone in foot


def test_keys_go_through_the_list_and_between_the_pages(
    context: BrowserContext, pages: Served
) -> None:
    page = context.new_page()
    page.goto(f"{pages.url}/")
    here = "document.activeElement.textContent"
    page.keyboard.press("j")
    assert page.evaluate(here) == "Session 8."
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.evaluate(here) == "Session 7."
    page.keyboard.press("Enter")
    page.wait_for_url("**/s/p/s7")
    page.keyboard.press("g")
    page.keyboard.press("u")
    page.wait_for_url("**/figures")
    page.keyboard.press("g")
    page.keyboard.press("l")
    page.wait_for_url(f"{pages.url}/")
    page.keyboard.press("/")
    # In a field they are letters.
    page.keyboard.type("glu?5")
    assert page.locator("#q").input_value() == "glu?5"
    assert not page.locator("#help").is_visible()


def test_keys_can_be_turned_off_and_stay_so(context: BrowserContext, pages: Served) -> None:
    page = context.new_page()
    page.goto(f"{pages.url}/")
    page.keyboard.press("?")
    page.locator("#keys-on").uncheck()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    page.goto(f"{pages.url}/figures")
    page.keyboard.press("g")
    page.keyboard.press("l")
    # The way to turn them on again is left.
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    assert page.url.endswith("/figures")


def test_figures_are_chosen_and_kept_as_a_file(context: BrowserContext, pages: Served) -> None:
    page = context.new_page()
    page.goto(f"{pages.url}/figures")
    page.fill("#since", "2026-02-27")
    page.fill("#until", "2026-03-04")
    page.select_option("#measure", "tokens")
    page.click("text=Apply")
    page.wait_for_url("**/figures?since=2026-02-27&until=2026-03-04&measure=tokens")
    assert page.locator(".sums dd").first.inner_text() == "$45.00"
    assert page.locator("svg[role=img]").evaluate("e => e.getBoundingClientRect().height") > 100
    bars = page.locator("svg[role=img] rect.f1")
    assert bars.count() == 3
    heights = [bar.bounding_box() for bar in bars.all()]
    assert all(box is not None and box["height"] > 0 for box in heights)
    with page.expect_download() as download:
        page.locator(".chart .links a").first.click()
    assert download.value.suggested_filename == "day-2026-02-27-2026-03-03.csv"
    assert len(download.value.path().read_text().splitlines()) == 4
