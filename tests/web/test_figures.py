"""Figures: what agents accounted for, what is estimated, what is unknown, and how it is drawn."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from support.pages import MOUNT, account, answer, days_ago, failed, pages_of, prompt, rows_of

from beanie_session_store import BeanieSessionStore, UsageStatistics
from beanie_session_store.app.pricing.price_list import context_of
from beanie_session_store.app.pricing.price_table import PriceTable
from beanie_session_store.app.pricing.token_price import TokenPrice
from beanie_session_store.app.web.charts import BOTTOM, TOP, chart_over_time, rate_scale, shares
from beanie_session_store.app.web.costs import Cost
from beanie_session_store.app.web.figure_filters import FigureFilters
from beanie_session_store.app.web.usage_csv import csv_of_usage
from beanie_session_store.app.web.usage_figures import NOTHING, UsageGroup
from beanie_session_store.app.web.wording import (
    ago,
    day,
    dollars,
    percent,
    shortened,
)

OPUS, SONNET = "claude-opus-4-5", "claude-sonnet-4-5"


def key(session: str, project: str = "-srv-shop") -> dict[str, str]:
    return {"project_key": project, "session_id": session}


def table(body: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body)))


async def fill(store: BeanieSessionStore) -> None:
    """Two sessions with an account, one without, one of a model without a price, one of old."""
    mine = BeanieSessionStore(metadata={"user_id": "u1"})
    yours = BeanieSessionStore(metadata={"user_id": "u2"})
    calls = answer("x", *["Bash"] * 25, at=days_ago(1), tokens=(1000, 100, 0, 9000))
    await mine.append(key("a"), [prompt("A"), calls, failed(calls), failed(calls, 1), account(2.5)])
    await mine.append(key("b", "q"), [prompt("B"), answer("x", model=SONNET), account(1, SONNET)])
    # 100,000 at 5 and 10,000 at 25 dollars a million.
    await yours.append(
        key("c"), [prompt("C"), answer("x", "Read", at=days_ago(2), tokens=(100_000, 10_000, 0, 0))]
    )
    unknown = answer("x", model="no-such-model", at=days_ago(2))
    # A known part of what is not known whole is no estimate.
    await yours.append(key("d"), [prompt("D"), unknown, answer("y", tokens=(100_000, 0, 0, 0))])
    await yours.append(key("e"), [prompt("E", at=days_ago(90)), answer("x", at=days_ago(90))])
    await BeanieSessionStore(tenant="other").append(key("f"), [prompt("F"), answer("x", "Theirs")])


async def test_what_is_accounted_for_estimated_and_unknown_is_told_apart(
    store: BeanieSessionStore,
) -> None:
    await fill(store)
    async with pages_of(store, who="user_id") as client:
        page = (await client.get("/figures")).text
        csvs = {
            name: (await client.get(f"/figures/{name}.csv")).text
            for name in ("day", "model", "project", "user_id", "tools")
        }
    words = " ".join(page.split())
    assert (
        '<span class="sr">partly estimated </span>$4.25</span> <span class="unknown">+1'
        '<span class="sr"> session of unknown cost</span></span></dd>'
        "<dd>$3.50 agents\u2019 own, $0.75 estimated</dd>"
    ) in words
    assert "<dt>Unknown</dt><dd>1 session</dd>" in words
    assert "<dt>Sessions</dt><dd>4</dd><dd>$1.42 each, 4 live now</dd>" in words
    assert "<dt>Tool calls</dt><dd>26</dd><dd>7.7 % failed</dd>" in words

    by_project = {row["project"]: row for row in table(csvs["project"])}
    assert by_project == {
        "-srv-shop": {
            **by_project["-srv-shop"],
            **{"sessions": "3", "own_usd": "2.500000", "unaccounted_usd": "0.750000"},
            **{"unknown_sessions": "1", "input": "201010", "cache_read": "9000"},
        },
        "q": {
            **by_project["q"],
            **{"sessions": "1", "own_usd": "1.000000", "unaccounted_usd": ""},
            **{"unknown_sessions": "0", "input": "10"},
        },
    }
    by_model = {row["model"]: row for row in table(csvs["model"])}
    assert by_model[OPUS]["own_usd"] == "2.500000"
    assert by_model[OPUS]["unaccounted_usd"] == "0.750000"
    assert by_model["no-such-model"]["unknown_sessions"] == "1"
    # Not a cost of nothing, neither of them.
    assert by_model["no-such-model"]["estimated_usd"] == ""
    assert by_model["no-such-model"]["own_usd"] == ""
    assert by_model["no-such-model"]["unpriced_models"] == "no-such-model"
    whose = {row["user_id"]: row for row in table(csvs["user_id"])}
    assert (whose["u1"]["own_usd"], whose["u1"]["unaccounted_usd"]) == ("3.500000", "")
    assert (whose["u2"]["own_usd"], whose["u2"]["unaccounted_usd"]) == ("", "0.750000")
    by_day = table(csvs["day"])
    assert [row["day"] for row in by_day] == sorted(row["day"] for row in by_day)
    assert sum(float(row["own_usd"] or 0) for row in by_day) == 3.5
    assert sum(float(row["unaccounted_usd"] or 0) for row in by_day) == 0.75
    tools = table(csvs["tools"])
    assert [(row["tool"], row["calls"], row["errors"]) for row in tools] == [
        ("Bash", "25", "2"),
        ("Read", "1", "0"),
    ]
    assert tools[0]["error_rate"] == "0.080000"

    rows = {row[0]: row[1:] for row in rows_of(page)}
    assert rows["Bash"][:3] == ["25 calls", "2 failed", "8.0 % errors"]
    assert rows["Read"][:3] == ["1 calls", "0 failed", "too few to say"]
    assert "Theirs" not in page


@pytest.mark.parametrize(
    ("query", "sessions"),
    [
        ("", 4),
        ("since=2000-01-01&until=2009-01-01", 0),
        ("project=q", 1),
        ("project=nothing", 0),
        ("user_id=u1", 2),
        ("project=-srv-shop&user_id=u2&measure=tokens", 2),
    ],
)
async def test_figures_are_of_the_sessions_that_are_asked_for(
    store: BeanieSessionStore, query: str, sessions: int
) -> None:
    await fill(store)
    async with pages_of(store, who="user_id", contents=False) as client:
        page = await client.get(f"/figures?{query}")
        assert page.status_code == 200
        assert f"<dt>Sessions</dt><dd>{sessions}</dd>" in page.text
        assert ("Nothing was used" in page.text) == (sessions == 0)
        found = table((await client.get(f"/figures/project.csv?{query}")).text)
        assert sum(int(row["sessions"]) for row in found) == sessions


async def test_days_are_the_last_28_unless_others_are_named(store: BeanieSessionStore) -> None:
    today = datetime.now(timezone.utc).date()
    until, since = today + timedelta(days=1), today - timedelta(days=27)
    async with pages_of(store, who="user_id") as client:
        page = (await client.get("/figures")).text
        assert f'name="since" type="date" value="{since}"' in page
        assert f'name="until" type="date" value="{until}"' in page
        assert "Filters: last 28 days" in page
        # As a form sends it.
        sent = await client.get(
            f"/figures?since={since}&until={until}&project=&user_id=&measure=cost"
        )
        assert (sent.status_code, sent.headers["location"]) == (303, f"{MOUNT}/figures")
        for query in ("since=2026-02-30", "until=x", "since=0001-01-01", "since=9999-12-31"):
            assert (await client.get(f"/figures?{query}")).status_code == 400, query
        for query in ("since=2026-01-02&until=2026-01-02", "since=2026-01-02&until=2026-01-01"):
            answered = await client.get(f"/figures?{query}")
            assert answered.status_code == 400
            assert "There are no such days" in answered.text
        for query in ("until=0001-01-05", "since=9999-12-01&until=9999-12-31"):
            assert (await client.get(f"/figures?{query}")).status_code == 200, query


async def test_tools_are_of_the_sessions_that_used_something_on_these_days(
    store: BeanieSessionStore,
) -> None:
    # Imported now, all of them.
    for name, days in (("Old", 200), ("Mid", 100), ("New", 1)):
        at = days_ago(days)
        await store.append(key(name), [prompt("A", at=at), answer("x", name, at=at)])
    both = [prompt("B", at=days_ago(200)), answer("x", "Long", at=days_ago(200))]
    await store.append(key("both"), [*both, answer("y", at=days_ago(100))])
    first, end = days_ago(101).date(), days_ago(99).date() + timedelta(days=1)
    async with pages_of(store) as client:
        for query, names in (
            ("", {"New"}),
            (f"?since={first}&until={end}", {"Mid", "Long"}),
            (f"?since={days_ago(300).date()}", {"Old", "Mid", "New", "Long"}),
        ):
            found = table((await client.get(f"/figures/tools.csv{query}")).text)
            assert {row["tool"] for row in found} == names
            page = (await client.get(f"/figures{query}")).text
            assert all(f"<bdi>{name}</bdi>" in page for name in names)


@pytest.mark.parametrize("table_name", ["nothing", "user_id", "day.csv", "../day", "metadata.x"])
async def test_a_table_that_is_none_is_not_found(
    store: BeanieSessionStore, table_name: str
) -> None:
    async with pages_of(store) as client:
        assert (await client.get(f"/figures/{table_name}.csv")).status_code == 404


@pytest.mark.parametrize("who", ["day", "tools", "since", "q", "a/b", "naïve name"])
async def test_a_field_of_any_name_can_be_chosen(store: BeanieSessionStore, who: str) -> None:
    await BeanieSessionStore(metadata={who: "u1"}).append(key("a"), [prompt("A"), answer("x")])
    async with pages_of(store, who=who) as client:
        page = (await client.get("/figures")).text
        csv_link = next(
            part.split('"')[0]
            for part in page.split('href="')
            if ".csv" in part
            and "/day.csv" not in part
            and part.count(".csv") == 1
            and not any(f"/{name}.csv" in part for name in ("model", "project", "tools"))
        )
        found = (await client.get(csv_link.removeprefix(MOUNT))).text
        assert found.splitlines()[1].startswith("u1,1,1,")
        parameter = who if who not in ("since", "q") else f"metadata.{who}"
        for value, count in (("u1", 1), ("u2", 0)):
            narrowed = (await client.get("/figures", params={parameter: value})).text
            assert f"<dt>Sessions</dt><dd>{count}</dd>" in narrowed
            listed = (await client.get("/", params={parameter: value})).text
            assert ("1 shown" in listed) == bool(count)


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("-srv-shop", "-srv-shop"),
        ("=1+1", "'=1+1"),
        ("-1+1", "'-1+1"),
        ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"),
        ("+x", "'+x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ('a,"b"', 'a,"b"'),
        ("a\nb", "a\nb"),
        ("", ""),
        ("\ud800\u202e", "\ufffd\ufffd"),
    ],
)
def test_no_name_is_a_formula_to_a_spreadsheet(name: str, cell: str) -> None:
    body = csv_of_usage("project", [UsageGroup(name, NOTHING, Cost())]).decode()
    (_, row) = csv.reader(io.StringIO(body, newline=""))
    assert row[0] == cell
    assert row[-5:] == ["", "", "", "0", ""]


def group(name: str, own: float = 0.0, estimated: float = 0.0, unknown: int = 0) -> UsageGroup:
    return UsageGroup(name, NOTHING, Cost(own, estimated, estimated != 0, unknown))


def wanted(since: date, until: date, measure: str = "cost") -> FigureFilters:
    return FigureFilters(None, since, until, measure=measure, today=until)


FIRST = date(2026, 11, 1)


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    groups = [group("2026-11-02", 30, 10), group("2026-11-03", 20, 0, 2), group("", 99)]
    chart = chart_over_time(groups, wanted(FIRST, date(2026, 11, 5)))
    assert [round(y, 1) for y, _ in chart.lines] == [184.0, 141.0, 98.0, 55.0, 12.0]
    assert [says for _, says in chart.lines] == ["$0", "$10", "$20", "$30", "$40"]
    whole = BOTTOM - TOP
    lower = [bar.lower_height for bar in chart.bars]
    assert lower == [0, whole * 0.75, whole * 0.5, 0]
    assert [bar.upper_height for bar in chart.bars] == [0, whole * 0.25, 0, 0]
    assert [bar.unknown for bar in chart.bars] == [0, 0, 2, 0]
    assert chart.bars[1].upper_top == TOP
    assert chart.bars[2].label == "3 November 2026: $20.00, 2 unknown"
    for left, right in zip(chart.bars, chart.bars[1:], strict=False):
        assert left.x + left.width < right.x
    assert chart.bars[0].x >= 0
    assert chart.bars[-1].x + chart.bars[-1].width <= 100
    assert chart.says == (
        "Cost by day from 1 November 2026 to 4 November 2026: $60.00 in all, most in 2 November "
        "2026 with $40.00. The table below has every day."
    )


@pytest.mark.parametrize(
    ("days", "of", "bars"),
    [(1, "day", 1), (28, "day", 28), (92, "day", 92), (93, "week", 15), (700, "month", 23)],
)
def test_a_chart_has_bars_that_one_can_tell_apart(days: int, of: str, bars: int) -> None:
    end = FIRST + timedelta(days=days)
    groups = [group(str(FIRST + timedelta(days=n)), 1.0) for n in range(days)]
    chart = chart_over_time(groups, wanted(FIRST, end))
    assert (chart.of, len(chart.bars)) == (of, pytest.approx(bars, abs=1))
    ticks = [bar.tick for bar in chart.bars if bar.tick]
    assert 1 <= len(ticks) <= 5
    assert len(ticks) == len(set(ticks))
    assert dollars(days) in chart.says


@pytest.mark.parametrize(
    "amounts", [[0.0], [0.004], [1.0, 999_999.0], [1e12], [-3.0, 1.0], [1e-9], [0.1 + 0.2]]
)
def test_no_amount_leaves_the_chart(amounts: Sequence[float]) -> None:
    groups = [
        group(str(FIRST + timedelta(days=n)), amount, amount) for n, amount in enumerate(amounts)
    ]
    chart = chart_over_time(groups, wanted(FIRST, FIRST + timedelta(days=len(amounts))))
    assert 2 <= len(chart.lines) <= 7
    for bar in chart.bars:
        assert TOP <= bar.lower_top <= BOTTOM
        assert TOP - 0.1 <= bar.upper_top <= BOTTOM
        assert bar.lower_height >= 0
        assert bar.upper_height >= 0
    for share in shares(groups, "cost"):
        assert 0 <= share.lower + share.upper <= 100.01


def test_tokens_are_new_ones_and_those_from_the_cache() -> None:
    usage = UsageStatistics({}, 1, 1, 10, 20, 30, 940, None, 1, 0)
    both = [UsageGroup("2026-11-01", usage, Cost()), UsageGroup("2026-11-02", NOTHING, Cost())]
    chart = chart_over_time(both, wanted(FIRST, date(2026, 11, 3), "tokens"))
    bar = chart.bars[0]
    assert bar.lower_height == pytest.approx(0.06 * (BOTTOM - TOP), abs=0.1)
    assert bar.lower_height + bar.upper_height == BOTTOM - TOP
    assert [says for _, says in chart.lines][-1] == "1.00k"
    assert [(each.lower, each.upper) for each in shares(both, "tokens")] == [(6.0, 94.0), (0, 0)]


@pytest.mark.parametrize(
    ("rates", "scale"), [([], 0.05), ([0.0], 0.05), ([0.06, 0.01], 0.1), ([0.9], 1.0), ([1.0], 1.0)]
)
def test_a_scale_of_error_rates_holds_them_all(rates: Sequence[float], scale: float) -> None:
    assert rate_scale(rates) == scale


def test_a_price_is_that_of_few_tokens_and_of_its_day() -> None:
    price_of = PriceTable().price_of
    price = price_of(OPUS, "2026-11-01")
    assert price is not None
    assert price == TokenPrice(5.0, 25.0, 6.25, 10.0, 0.5)
    # So many at once in one response would cost more; these are of many responses.
    usage = UsageStatistics({}, 1, 900, 10**9, 0, 0, 0, None, 1, 0)
    assert price.of(usage) == pytest.approx(5000)
    sonnet = price_of(SONNET)
    assert sonnet is not None
    assert sonnet.of(usage) == pytest.approx(3000)
    for model in ("no-such-model", "<synthetic>", "", "\ud800", "x" * 10_000):
        assert price_of(model, "2026-11-01") is None
        assert context_of(model) is None
    assert price_of(OPUS, "no day") is not None
    assert context_of(OPUS) == 200_000


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (Cost(), (False, False, 0.0)),
        (Cost(6.84), (False, False, 6.84)),
        (Cost(0, 6.84, True), (False, False, 6.84)),
        (Cost(6, 0.84, True), (False, True, 6.84)),
        (Cost(unknown=1), (True, False, 0.0)),
        (Cost(1, unknown=1), (False, False, 1.0)),
    ],
)
def test_a_cost_says_how_it_is_known(cost: Cost, said: tuple[bool, bool, float]) -> None:
    assert (cost.is_unknown, cost.is_partly_estimated, cost.usd) == said
    assert cost + Cost() == cost
    assert (cost + replace(cost, unknown=0)).unknown == cost.unknown


NOW = datetime(2026, 11, 27, 10, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            [shortened(n) for n in (0, 999, 1000, 9_994, 9_995)],
            ["0", "999", "1.00k", "9.99k", "10.0k"],
        ),
        ([shortened(n) for n in (96_400, 999_499, 999_500)], ["96.4k", "999k", "1.00M"]),
        ([shortened(n) for n in (2_410_000, 870_900_000, 10**15)], ["2.41M", "871M", "1000T"]),
        (
            [dollars(x) for x in (0, 0.004, 6.84, 1234.5)],
            ["$0.00", "< $0.01", "$6.84", "$1,234.50"],
        ),
        ([dollars(x) for x in (-0.004, -1)], ["> \N{MINUS SIGN}$0.01", "\N{MINUS SIGN}$1.00"]),
        ([percent(x) for x in (0, 0.0437, 1)], ["0.0 %", "4.4 %", "100.0 %"]),
        (
            [ago(NOW - timedelta(seconds=n), NOW) for n in (-5, 4, 700)],
            ["0 s ago", "4 s ago", "11 min ago"],
        ),
        (
            [day(NOW - timedelta(days=n), NOW) for n in (0, 1, 2, 400)],
            [
                "Today, 27 November",
                "Yesterday, 26 November",
                "Wednesday, 25 November",
                "Thursday, 23 October 2025",
            ],
        ),
    ],
)
def test_figures_are_written_as_people_read_them(said: Any, expected: Any) -> None:
    assert said == expected
