"""``session-store stats``: what agents took, as a table and over time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...text import line
from ..filters import OfProject, OnBranch, WithMetadata, WithTag, metadata_of, moment_given
from ..root import app, options_of, run, show
from ..stores import store_on
from ..terminal.figures import counted, dollars, shortened
from ..terminal.periods import periods
from ..terminal.tables import console
from ..terminal.usage_table import all_tokens, print_usage, spelled

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...queries.statistics import UsageStatistics


_PRICES = (
    "Prices are those of the extra 'prices' (pip install 'beanie-session-store[prices]'), and of a "
    "table of your own: --prices module:TABLE."
)


class Measure(Enum):
    """What the bars of the chart are as long as."""

    COST = "cost"
    TOKENS = "tokens"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of the questions."""

    rows: list[UsageStatistics]
    total: UsageStatistics | None
    days: list[UsageStatistics]
    """By day as well."""


@app.command("stats")
def stats_command(
    context: typer.Context,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP",
            help="A row for each model, project, day, branch, tag or metadata.FIELD; may be "
            "repeated, for each combination. By default model.",
        ),
    ] = None,
    project: OfProject = None,
    tag: WithTag = None,
    branch: OnBranch = None,
    metadata: WithMetadata = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From this day on (UTC): 30d ago, or 2026-11-25.")
    ] = "30d",
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Before this day (UTC).")
    ] = None,
    chart: Annotated[
        Measure | None,
        typer.Option(help="What to draw over time; on a terminal cost, where it is known."),
    ] = None,
) -> None:
    """Add up tokens and cost, and show them over time.

    They are those of --tenant. Days are those on which the agents wrote, in UTC; COST is by the
    agents' own account, EST by the prices of the tokens on their days. Only summaries are
    read, so it takes no longer for long sessions.

    Example: session-store --tenant acme stats --by project --since 7d
    """
    names = ["project_key" if name == "project" else name for name in by or ["model"]]
    groups = list(dict.fromkeys(names))
    now = datetime.now(timezone.utc)
    first, end = _day("--since", since, now), _day("--until", until, now)
    asked: dict[str, Any] = {"since": first, "until": end, "project_key": project}
    asked |= {"tag": tag, "branch": branch, "metadata": metadata_of(metadata)}

    async def command(database: Database) -> Answers:
        store = await store_on(context, database, upgrade=False)
        rows = await store.usage(by=groups, **asked)
        total = await store.usage(by=(), **asked)
        with_day = groups if "day" in groups else ["day", *groups]
        days = await store.usage(by=with_day, **asked) if rows else []
        return Answers(rows, total[0] if total else None, days)

    found = run(context, command)
    options = options_of(context)
    if options.as_json:
        show(context, _as_json(found, groups, first, end), "")
        return
    if not found.rows:
        usage = _heading(options.tenant, first, end)
        typer.echo(f"No {usage}. Give an earlier --since, or fewer filters.", err=True)
        return
    out = console()
    if "day" in groups:
        found.rows.sort(key=lambda row: spelled(row.group["day"]))
    if out.is_terminal:
        out.print(_heading(options.tenant, first, end))
    total = [found.total] if found.total is not None and len(found.rows) > 1 else []
    print_usage(groups, [*found.rows, *total])
    measure = chart or (_usual(found) if out.is_terminal else Measure.NONE)
    if measure is not Measure.NONE:
        _draw(found.days, groups, measure, None if end is not None else now.date())
    if found.total is not None:
        # Where the figures cannot be written, there is nothing to doubt.
        sys.stdout.flush()
        _print_doubts(found.total)


def _print_doubts(total: UsageStatistics) -> None:
    sessions = counted(total.sessions, "session")
    if total.without_cost:
        typer.echo(
            f"Of {sessions}, {total.without_cost:,} have no account of cost (the agent runs yet, "
            "or ended before it wrote one): what they cost is in the estimate alone.",
            err=True,
        )
    if total.with_source_cost:
        typer.echo(
            f"Of {sessions}, {total.with_source_cost:,} are forks whose cost is also what was "
            "spent before in the sessions forked from.",
            err=True,
        )
    if total.unpriced:
        models = ", ".join(line(model, 80) for model in total.unpriced)
        typer.echo(f"No estimate has what {models} cost: no price is known. {_PRICES}", err=True)
    if total.incomplete:
        typer.echo(
            f"The final count of {counted(total.incomplete, 'response')} never came (it was "
            "interrupted, or is a subagent's): their output is more than what is counted.",
            err=True,
        )
    if total.with_older_counts:
        typer.echo(
            f"Of {sessions}, {total.with_older_counts:,} were counted by an older release, which "
            "did not tell for how long the cache keeps what is written to it: 'session-store "
            "verify --repair' counts them anew.",
            err=True,
        )


def _day(option: str, text: str | None, now: datetime) -> date | None:
    moment = moment_given(option, text, now)
    return None if moment is None else moment.date()


def _heading(tenant: str, since: date | None, until: date | None) -> str:
    end = "" if until is None else f", before {until}"
    return f"usage of tenant {line(tenant)} since {since}{end} (UTC)"


def _usual(found: Answers) -> Measure:
    is_known = found.total is not None and (found.total.cost_usd or 0.0) > 0
    return Measure.COST if is_known else Measure.TOKENS


def _draw(
    rows: Sequence[UsageStatistics], groups: Sequence[str], measure: Measure, until: date | None
) -> None:
    from ..terminal.chart import Bar, print_chart

    by_day: dict[date, dict[str, float]] = {}
    series = [group for group in groups if group != "day"]
    for row in rows:
        try:
            day = date.fromisoformat(row.group["day"])
        except (ValueError, TypeError):
            # No entry told the time.
            continue
        # What somebody wrote may be less than nothing.
        cost = row.cost_usd or 0.0
        size = max(cost if measure is Measure.COST else float(all_tokens(row)), 0.0)
        name = " ".join(spelled(row.group[group]) or "-" for group in series)
        parts = by_day.setdefault(day, {})
        parts[name] = parts.get(name, 0.0) + size
    if not any(size for parts in by_day.values() for size in parts.values()):
        return
    labels, period = periods(by_day, until)
    bars: dict[str, dict[str, float]] = {label: {} for label in labels}
    for day, parts in by_day.items():
        bar = bars.get(period(day), {})
        for name, size in parts.items():
            bar[name] = bar.get(name, 0.0) + size
    out = console()
    out.print()
    written = dollars if measure is Measure.COST else _rounded
    title = f"{measure.value} over time"
    print_chart(out, title, [Bar(label, parts) for label, parts in bars.items()], written)


def _rounded(size: float) -> str:
    return shortened(int(size))


def _as_json(
    found: Answers, groups: Sequence[str], since: date | None, until: date | None
) -> dict[str, Any]:
    return {
        "since": since,
        "until": until,
        "by": groups,
        "rows": [asdict(row) for row in found.rows],
        "total": None if found.total is None else asdict(found.total),
        "days": [asdict(row) for row in found.days],
    }
