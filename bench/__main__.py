"""``python -m bench``: the store beside its peers, on servers of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from . import chart, machine, report
from .peers.ours import Ours
from .plan import Plan, Size
from .results import Section
from .sections import (
    append,
    cpu,
    disk,
    growth,
    imports,
    listing,
    load,
    pages,
    parse,
    sweep,
    transcript,
    writers,
)

SECTIONS = {
    "append": append.run,
    "writers": writers.run,
    "cpu": cpu.run,
    "load": load.run,
    "parse": parse.run,
    "transcript": transcript.run,
    "pages": pages.run,
    "listing": listing.run,
    "growth": growth.run,
    "disk": disk.run,
    "imports": imports.run,
    "sweep": sweep.run,
}
_HERE = Path(__file__).parent


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="A few samples of everything, to see that it runs.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="The largest sizes too, and more samples.")
    ] = False,
    only: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"One of {', '.join(SECTIONS)}.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Directory for RESULTS.md and results.svg; by default that of the benchmark, "
            "or none with --quick or --only."
        ),
    ] = None,
) -> None:
    """Measure the store and its peers side by side, on servers started for it alone."""
    if only is not None and only not in SECTIONS:
        raise typer.BadParameter(f"no section {only!r}; there are {', '.join(SECTIONS)}")
    if quick and full:
        raise typer.BadParameter("--quick and --full contradict each other")
    console = Console(highlight=False)
    size = Size.QUICK if quick else Size.FULL if full else Size.DEFAULT
    plan = Plan(size, console.print)
    if output is None and not quick and not only:
        output = _HERE
    found = machine.described()
    sections: list[Section] = []
    for name, run in SECTIONS.items():
        if only not in (None, name):
            continue
        section = asyncio.run(run(plan))
        section.note += f" Load average at the end: {machine.load_average()}."
        sections.append(section)
        show(console, section)
        # After each section, for a run takes long and may be cut short.
        if output:
            write(output, found, sections)


def show(console: Console, section: Section) -> None:
    """Print a section for the terminal."""
    table = Table(*section.columns, title=section.title)
    for row in section.rows:
        table.add_row(*row)
    console.print(table)
    for verdict in section.verdicts:
        answer = "reached" if verdict.is_reached else "not reached"
        console.print(f"{answer}: {verdict.target}: {verdict.measured}")


def write(directory: Path, found: dict[str, str], sections: list[Section]) -> None:
    """Write the report and its chart."""
    directory.mkdir(parents=True, exist_ok=True)
    charts = [each for section in sections for each in section.charts]
    (directory / "results.svg").write_text(chart.svg(charts, Ours.name))
    (directory / "RESULTS.md").write_text(report.markdown(found, sections, "results.svg"))


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app(prog_name="python -m bench")
