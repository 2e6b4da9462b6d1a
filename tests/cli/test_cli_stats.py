"""``session-store stats``: what was used, in the forms of a terminal, a pipe and a script."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from support.command import SessionStoreCommand
from support.cookbook import TENANT, write_sessions
from support.entries import message
from support.server import profiled

from beanie_session_store import BeanieSessionStore, SessionSummary
from beanie_session_store.app.cli.terminal.periods import periods
from beanie_session_store.app.database.driver import Database, collection_of

SINCE = ("--since", "2026-11-01", "--until", "2026-11-26")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = "\x1b[2Jmodel [bold red]x[/] \u202e"


@pytest.fixture
async def command(mongo_url: str, database: Database) -> SessionStoreCommand:
    await write_sessions()
    return SessionStoreCommand(mongo_url, database.name)


def answered(day: str, model: str, output: int, **fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": output}
    body = {"role": "assistant", "id": f"m{output}", "model": model, "usage": usage, "content": []}
    return message(type="assistant", timestamp=f"{day}T12:00:00.000Z", message=body, **fields)


def table(printed: str) -> list[list[str]]:
    return [line.split() for line in printed.splitlines()]


async def test_a_pipe_gets_whole_numbers_and_nothing_else(command: SessionStoreCommand) -> None:
    done = await command("stats", "--tenant", TENANT, *SINCE)
    assert done.code == 0
    assert done.errors.startswith("No estimate has what haiku, opus cost: no price is known.")
    assert table(done.output) == [
        [
            "MODEL",
            "SESSIONS",
            "REPLIES",
            "INPUT",
            "OUTPUT",
            "TO-CACHE",
            "CACHED",
            "COST",
            "EST",
            "NO-COST",
        ],
        # No price is known of these names, and what is not known is not free.
        ["opus", "3", "6", "6000", "1000", "0", "0", "1.350000", "-", "0"],
        ["haiku", "1", "3", "3000", "140", "0", "0", "0.020000", "-", "0"],
        ["all", "3", "9", "9000", "1140", "0", "0", "1.370000", "-", "0"],
    ]


async def test_groups_are_combined_and_filtered(command: SessionStoreCommand) -> None:
    asked = ("stats", "--tenant", TENANT, *SINCE)
    by_project = table((await command(*asked, "--by", "project", "--by", "model")).output)
    assert [row[:3] for row in by_project[1:]] == [
        ["-srv", "opus", "2"],
        ["-app", "opus", "1"],
        ["-srv", "haiku", "1"],
        ["all", "-", "3"],
    ]
    by_day = table((await command(*asked, "--by", "day")).output)
    assert [row[0] for row in by_day[1:]] == ["2026-11-18", "2026-11-24", "all"]
    by_user = table((await command(*asked, "--by", "metadata.user_id")).output)
    assert [row[:2] for row in by_user] == [
        ["USER_ID", "SESSIONS"],
        ["u1", "2"],
        ["u2", "1"],
        ["all", "3"],
    ]
    for option, count in (
        (("--project", "-app"), 1),
        (("--branch", "main"), 2),
        (("--tag", "bug"), 1),
        (("--metadata", "user_id=u1"), 2),
    ):
        found = await command("--json", *asked, *option)
        assert found.json["total"]["sessions"] == count
    twice = await command("--json", *asked, "--by", "model", "--by", "model")
    assert twice.json["by"] == ["model"]
    later = await command("--json", *asked[:3], "--since", "2026-11-20", "--until", "2026-11-26")
    assert [row["sessions"] for row in later.json["rows"]] == [2]


async def test_json_has_the_rows_their_sum_and_the_days(command: SessionStoreCommand) -> None:
    found = (await command("--json", "stats", "--tenant", TENANT, *SINCE)).json
    assert (found["since"], found["until"], found["by"]) == ("2026-11-01", "2026-11-26", ["model"])
    assert [row["group"] for row in found["rows"]] == [{"model": "opus"}, {"model": "haiku"}]
    assert found["total"]["cost_usd"] == pytest.approx(1.37)
    days = {(row["group"]["day"], row["group"]["model"]): row["output"] for row in found["days"]}
    assert days == {
        ("2026-11-18", "opus"): 500,
        ("2026-11-18", "haiku"): 140,
        ("2026-11-24", "opus"): 500,
    }
    nothing = await command("--json", "stats", "--tenant", "nobody")
    assert (nothing.code, nothing.json["rows"], nothing.json["total"]) == (0, [], None)


@pytest.mark.parametrize("columns", [80, 200])
async def test_a_terminal_gets_a_chart_as_wide_as_it_is(
    command: SessionStoreCommand, columns: int
) -> None:
    shown = await command.on_terminal(columns, "stats", "--tenant", TENANT, *SINCE)
    assert "\x1b[36m" in shown
    lines = ESCAPES.sub("", shown).splitlines()
    assert all(cell_len(line) <= columns for line in lines), lines
    assert lines[0] == "usage of tenant acme since 2026-11-01, before 2026-11-26 (UTC)"
    assert "$1.35" in lines[2]
    chart = lines[lines.index("cost over time") + 1 :]
    assert [line[:10] for line in chart[:7]] == [f"2026-11-{day}" for day in range(18, 25)]
    assert chart[1] == "2026-11-19"
    # The longest bar takes what the label and the cost leave.
    assert max(map(cell_len, chart)) >= columns - 3
    assert chart[0].endswith("█ $0.52")
    assert [line.split() for line in chart[7:]] == [
        ["██", "opus", "$1.35"],
        ["██", "haiku", "$0.02"],
    ]
    assert "\x1b[35m" in shown.splitlines()[-1]


async def test_a_narrow_terminal_cuts_groups_and_no_number(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    key: Any = {"project_key": "-home-somebody-a-directory-with-a-long-name", "session_id": "s"}
    await store.append(key, [answered("2026-11-20", "claude-sonnet-4-5-20250929", 123_456_789)])
    by = ("--by", "project", "--by", "model", "--chart", "none")
    for columns in (60, 80, 200):
        shown = await command.on_terminal(columns, "stats", *SINCE, *by, NO_COLOR="1")
        *_, heading, row = shown.splitlines()
        assert len(row) <= columns
        assert ("TOKENS" in heading) == (columns < 200)
        assert "  123.5M  " in row
        assert ("…" in row) == (columns < 200)
        assert "20250929" in row


async def test_without_colours_the_parts_of_a_bar_differ_all_the_same(
    command: SessionStoreCommand,
) -> None:
    asked = ("stats", "--tenant", TENANT, *SINCE, "--chart", "tokens")
    bare = await command.on_terminal(80, *asked, NO_COLOR="1")
    assert "\x1b" not in bare
    assert "█▓▓" in bare
    piped = await command(*asked)
    assert "█▓▓" in piped.output
    assert "▓▓ haiku  3.1k" in piped.output
    plain = await command.process(*asked, PYTHONIOENCODING="ascii")
    assert "#==" in plain.output
    assert plain.output.isascii()
    assert "█" not in (await command.on_terminal(80, *asked[:-1], "none"))


async def test_names_of_models_reach_no_terminal_as_commands(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    key: Any = {"project_key": "p", "session_id": "s"}
    await store.append(key, [answered("2026-11-20", HOSTILE, 5)])
    piped = await command("stats", *SINCE, "--chart", "tokens")
    shown = await command.on_terminal(200, "stats", *SINCE)
    for printed in (piped.output, ESCAPES.sub("", shown)):
        assert "␛[2Jmodel [bold red]x[/] \ufffd" in printed
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", printed)


async def test_many_models_are_put_together_in_the_chart(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    key: Any = {"project_key": "p", "session_id": "s"}
    batch = [answered("2026-11-20", f"model-{number}", 100 * number) for number in range(1, 11)]
    await store.append(key, batch)
    printed = (await command("stats", *SINCE, "--chart", "tokens")).output
    legend = [line.split()[1:] for line in printed.splitlines()[-7:]]
    assert legend[0] == ["model-10", "1.0k"]
    assert legend[-1] == ["others", "1.0k"]


async def test_what_has_no_day_is_in_the_table_alone(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    key: Any = {"project_key": "p", "session_id": "s"}
    await store.append(key, [answered("never", "opus", 5)])
    done = await command("stats", "--since", "1970-01-01", "--by", "day", "--chart", "tokens")
    # Bounds are days, and it has none.
    assert (done.code, done.output) == (0, "")
    assert done.errors == (
        "No usage of tenant default since 1970-01-01 (UTC). Give an earlier --since, or fewer "
        "filters.\n"
    )


async def test_a_cost_below_nothing_does_no_harm(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    key: Any = {"project_key": "p", "session_id": "s"}
    await store.append(key, [answered("2026-11-20", "opus", 5), answered("2026-11-20", "haiku", 6)])
    rows = {"totals.usage.0.cost_usd": 1.0, "totals.usage.1.cost_usd": -1.0, "totals.cost_usd": 0.0}
    await collection_of(SessionSummary).update_one({"tenant": "default"}, {"$set": rows})
    done = await command("stats", *SINCE, "--chart", "cost")
    assert done.code == 0
    assert done.errors.startswith("No estimate has what haiku, opus cost: no price is known.")
    assert "2026-11-20  █" in done.output
    assert "-1.000000" in done.output


async def test_sessions_without_an_account_of_cost_are_counted(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    """The agent ended before it wrote one: what they cost is unknown, and not nothing."""
    for number, costs in enumerate((0.5, 0.25, None, None, None)):
        account = {"totalCostUSD": costs, "modelUsage": {"opus": {"costUSD": costs}}}
        await store.append(
            {"project_key": f"p{number % 2}", "session_id": f"s{number}"},
            [answered("2026-11-20", "opus", 5)]
            + ([{"type": "cost-state", "startTime": 1, **account}] if costs else []),
        )
    asked = (*SINCE, "--by", "project")
    done = await command("stats", *asked)
    told = "Of 5 sessions, 3 have no account of cost"
    assert told in done.errors
    assert [[row[0], *row[-3:]] for row in table(done.output)] == [
        ["PROJECT", "COST", "EST", "NO-COST"],
        ["p0", "0.500000", "-", "2"],
        ["p1", "0.250000", "-", "1"],
        ["all", "0.750000", "-", "3"],
    ]
    rows = (await command("--json", "stats", *asked)).json["rows"]
    assert [(row["cost_usd"], row["without_cost"]) for row in rows] == [(0.5, 2), (0.25, 1)]
    shown = await command.on_terminal(200, "stats", *asked, NO_COLOR="1")
    assert "NO-COST" in shown
    narrow = await command.on_terminal(60, "stats", *asked, NO_COLOR="1")
    assert "NO-COST" not in narrow


async def test_only_summaries_are_read(command: SessionStoreCommand, database: Database) -> None:
    operations: list[dict[str, Any]] = []
    async with profiled(database, operations):
        # This process already knows the schema, and would not look it up.
        done = await command.process("stats", "--tenant", TENANT, *SINCE)
    assert done.code == 0
    # The kinds and indexes of the others are looked at, as ever.
    about = {"listCollections", "listIndexes"}
    read = {op["ns"].partition(".")[2] for op in operations if not about & op["command"].keys()}
    assert read == {"claude_transcript_summaries", "claude_transcript_migrations"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--by", "shoe"), "cannot be grouped by 'shoe'"),
        (("--by", "metadata.$where"), "plain name"),
        (("--since", "soon"), "--since: 'soon' is no time"),
        (("--since", "0001-01-01T00:00+05:00"), "is no time"),
        (("--until", "2026-13-01"), "--until: '2026-13-01' is no time"),
        (("--project", ""), "'--project': it is given but empty"),
        (("--chart", "pie"), "'pie' is not one of"),
    ],
)
async def test_what_was_asked_wrongly_is_one_line(
    command: SessionStoreCommand, arguments: tuple[str, ...], text: str
) -> None:
    done = await command("stats", *arguments)
    assert (done.code, done.output, done.errors.count("\n")) == (2, "", 1)
    assert text in done.errors


@pytest.mark.parametrize(
    ("first", "last", "count", "shown"),
    [
        (date(2026, 11, 25), date(2026, 11, 25), 1, "2026-11-25"),
        (date(2026, 10, 26), date(2026, 11, 25), 31, "2026-11-25"),
        (date(2026, 10, 25), date(2026, 11, 25), 6, "2026-11-23"),
        (date(2026, 1, 1), date(2026, 7, 31), 31, "2026-07-27"),
        (date(2025, 1, 1), date(2026, 11, 25), 23, "2026-11"),
        (date(2000, 1, 31), date(2026, 11, 25), 27, "2026"),
        (date(1, 1, 1), date(9999, 12, 31), 31, "9999"),
    ],
)
def test_a_chart_has_31_bars_at_most_and_none_is_passed_over(
    first: date, last: date, count: int, shown: str
) -> None:
    names, name = periods([first, last], None)
    assert (len(names), names[-1], name(last)) == (count, shown, shown)
    assert names == sorted(set(names))
    assert first == date(1, 1, 1) or names[0] == name(first)


async def test_estimates_are_by_a_table_of_the_teams_own(
    store: BeanieSessionStore,
    command: SessionStoreCommand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key: Any = {"project_key": "p", "session_id": "s"}
    cut = answered("2026-11-20", "acme-1", 100_000)
    cut["message"]["stop_reason"] = None
    await store.append(key, [cut, answered("2026-11-20", "acme-2", 5)])
    (tmp_path / "money_prices.py").write_text(
        "from beanie_session_store import PriceTable, TokenPrice\n"
        'TABLE = PriceTable({"acme-1": TokenPrice(0, 5)})\n'
        "OTHER = 5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    asked = ("stats", *SINCE, "--prices", "money_prices:TABLE")
    done = await command(*asked)
    shown = [row[-3:-1] for row in table(done.output)[1:]]
    assert shown == [["-", "0.500000"], ["-", "-"], ["-", "0.500000"]]
    assert "No estimate has what acme-2 cost" in done.errors
    assert "The final count of 1 response never came" in done.errors
    (total,) = [(await command("--json", *asked)).json["total"]]
    assert (total["cost_usd"], total["estimated_usd"], total["incomplete"]) == (None, 0.5, 1)
    assert total["unpriced"] == ["acme-2"]
    sessions = (await command("--json", "sessions", "--prices", "money_prices:TABLE")).json
    (session,) = sessions["sessions"]
    assert (session["cost_usd"], session["estimated_usd"]) == (None, 0.5)
    assert (session["unpriced"], session["incomplete"]) == (["acme-2"], 1)
    for wrong in ("money_prices:OTHER", "money_prices:NONE", "no_such_module:X", "x"):
        refused = await command("stats", "--prices", wrong)
        assert (refused.code, refused.output) == (2, "")
        assert wrong in refused.errors
