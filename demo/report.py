"""The story in the terminal, readable at a glance in 80 columns."""

from __future__ import annotations

from collections import Counter

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from .agent import Entry
from .checks import Check
from .stored import Tally
from .story import Chapter, Story, messages_of, tool_results

WIDTH = 80


def show(console: Console, story: Story, found: list[Check], server: str) -> None:
    first, second = story.first, story.second
    tools = [(_name(subpath), _tools(entries)) for subpath, entries in first.stored.items()]
    console.print(_host("Host A", "an empty home", first, tools))
    console.print(_stored(first, server))
    request = [("asked", _request(second))] if second.first_request else []
    away = "another empty home, notes.txt deleted"
    console.print(_host("Host B", away, second, request))
    console.print(_checks(found))


def _host(name: str, where: str, chapter: Chapter, more: list[tuple[str, str]]) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    answer = ("answer", f"[green]{escape(chapter.run.result or 'none')}[/]")
    for label, text in [("prompt", escape(chapter.prompt)), *more, answer]:
        grid.add_row(label, text)
    title = f"[bold]{name}[/] · {where} · {chapter.seconds:.1f} s"
    return Panel(grid, title=title, title_align="left", border_style="cyan", width=WIDTH)


def _name(subpath: str) -> str:
    return "subagent" if subpath else "tool"


def _tools(entries: list[Entry]) -> str:
    """The first tool call of a transcript and what came of it."""
    messages = messages_of(entries)
    blocks = [b for m in messages if isinstance(m["content"], list) for b in m["content"]]
    commands = [b["input"].get("command", "") for b in blocks if b.get("type") == "tool_use"]
    results = tool_results(messages).splitlines()
    return escape(f"{commands[0]} → {results[0]}") if commands and results else "none"


def _request(chapter: Chapter) -> str:
    messages = (chapter.first_request or {}).get("messages", [])
    before = [message for message in messages if message.get("role") != "system"][:-1]
    return f"the model's first request carried {len(before)} messages of host A's"


def _stored(chapter: Chapter, server: str) -> Panel:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("transcript", overflow="fold")
    for heading in ("entries", "without uuid", "JSON bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    tallies = [Tally.of(subpath, entries) for subpath, entries in chapter.stored.items()]
    for tally in tallies:
        name = tally.subpath or "main"
        table.add_row(name, str(tally.entries), str(tally.without_uuid), f"{tally.json_bytes:,}")
    kinds: Counter[str] = sum((tally.kinds for tally in tallies), Counter())
    counted = "  ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    subagents = sum(1 for tally in tallies if tally.subpath)
    heading = (
        f"sessions {len(chapter.sessions)}   subagents {subagents}   "
        f"session [bold]{chapter.run.session_id}[/]\n"
    )
    body = Group(heading, table, f"\n[dim]by kind[/]  {escape(counted)}")
    title = f"[bold]Stored[/] · {escape(server)}"
    return Panel(body, title=title, title_align="left", border_style="magenta", width=WIDTH)


def _checks(found: list[Check]) -> Table:
    table = Table.grid(padding=(0, 1))
    for check in found:
        table.add_row("[green]✓[/]" if check.holds else "[bold red]✗[/]", check.claim)
    return table
