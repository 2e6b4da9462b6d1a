"""Usage and cost: as charts with their tables, and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from http import HTTPStatus
from typing import TypeAlias

from starlette.responses import RedirectResponse, Response

from .charts import Share, chart_over_time, rate_scale, shares
from .figure_filters import FigureFilters
from .list_filters import who_parameter
from .refusals import Refused
from .responses import attachment, page
from .usage_csv import csv_of_tools, csv_of_usage
from .usage_figures import (
    MOST_LIVE,
    TOO_FEW_CALLS,
    UsageGroup,
    tools_of,
    usage_figures,
    usage_groups,
)
from .viewer import PageRoute, Viewer

Table: TypeAlias = tuple[str, str, str, list[tuple[UsageGroup, Share]]]
"""Its heading, its name in addresses, what its rows are called, and the rows."""

_MOST_ROWS = 50
_TABLES = {"day": "day", "model": "model", "project": "project_key"}


async def figures(viewer: Viewer) -> Response:
    """Usage and cost of some days."""
    wanted = FigureFilters.of(viewer)
    if list(viewer.request.query_params.multi_items()) != wanted.query:
        return RedirectResponse(viewer.links.figures(wanted.query), HTTPStatus.SEE_OTHER)
    found = await usage_figures(viewer.store, wanted, datetime.now(timezone.utc))
    rates = [tool.error_rate for tool in found.tools if tool.calls >= TOO_FEW_CALLS]
    return page(
        viewer,
        "figures.html",
        wanted=wanted,
        who_parameter=viewer.who and who_parameter(viewer.who),
        projects=await viewer.store.projects(),
        found=found,
        chart=chart_over_time(found.days, wanted),
        tables=[
            ("By model", "model", "Model", _with_shares(found.models, wanted)),
            ("By project", "project", "Project", _with_shares(found.projects, wanted)),
            *([_whose(viewer.who, found.whose, wanted)] if viewer.who else []),
        ],
        most_rows=_MOST_ROWS,
        too_few=TOO_FEW_CALLS,
        most_live=MOST_LIVE,
        rate_scale=rate_scale(rates),
    )


def _whose(who: str, groups: Sequence[UsageGroup], wanted: FigureFilters) -> Table:
    return (f"By {who}", _table_of(who), who, _with_shares(groups, wanted))


async def as_csv(viewer: Viewer) -> Response:
    """One table of the figures."""
    wanted = FigureFilters.of(viewer)
    name = viewer.request.path_params["table"]
    groups = {
        **_TABLES,
        **({_table_of(viewer.who): f"metadata.{viewer.who}"} if viewer.who else {}),
    }
    if name == "tools":
        body = csv_of_tools(await tools_of(viewer.store, wanted))
    elif name in groups:
        body = csv_of_usage(name, await usage_groups(viewer.store, wanted, groups[name]))
    else:
        raise Refused(
            HTTPStatus.NOT_FOUND, "There is no such table", f"There are {', '.join(groups)}, tools."
        )
    return attachment(body, f"{name}-{wanted.since}-{wanted.last}.csv", "text/csv")


def _table_of(who: str) -> str:
    return f"metadata.{who}" if who in {*_TABLES, "tools"} else who


def _with_shares(
    groups: Sequence[UsageGroup], wanted: FigureFilters
) -> list[tuple[UsageGroup, Share]]:
    """The largest first, each with its bar."""
    if wanted.measure == "tokens":
        groups = sorted(groups, key=lambda group: -group.tokens)
    return list(zip(groups, shares(groups, wanted.measure), strict=True))


routes = [
    PageRoute("/figures", figures, reads_contents=False),
    PageRoute("/figures/{table:path}.csv", as_csv, reads_contents=False),
]
