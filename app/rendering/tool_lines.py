"""What the line of a folded call says of each tool: on what it worked, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast
from urllib.parse import urlsplit

from .amounts import byte_size, counted, seconds
from .folded_calls import MINUS, TIMES, FoldedCall, LinePart, Told


@dataclass(frozen=True, slots=True)
class ToolLine:
    """What a tool's line says."""

    what: Sequence[LinePart]
    outcome: Sequence[Told] = field(default_factory=tuple[Told, ...])
    label: str = ""
    """Where it is not the tool's own name."""
    mark: str = ""


_Line: TypeAlias = Callable[[FoldedCall], ToolLine]


def tool_line(call: FoldedCall) -> ToolLine:
    """What is said of a call, whatever tool it is of."""
    known = _LINES.get(call.name)
    if known is not None:
        return known(call)
    if call.name.startswith("mcp__"):
        return _mcp(call)
    return ToolLine(_unknown_arguments(call), _size_of(call))


def path_shown(path: str, cwd: str) -> str:
    """A path from the session's directory on."""
    directory = cwd.rstrip("/") + "/"
    return path[len(directory) :] if len(directory) > 1 and path.startswith(directory) else path


def _bash(call: FoldedCall) -> ToolLine:
    first, *others = call.text("command").strip().split("\n")
    what = [LinePart(first, True)]
    if others:
        what.append(LinePart(f" and {counted(len(others), 'more line')}"))
    told: list[Told] = []
    last = call.output.rstrip().rpartition("\n")[2].strip(" =─-")
    last = re.sub(r" in [\d.]+ ?s(?:econds)?$", "", last)
    if (
        call.is_whole
        and call.lines > 1
        and 0 < len(last) <= _TELLING
        and any(c.isalpha() for c in last)
    ):
        told.append(Told(last))
    return ToolLine(what, [*told, *_size_of(call)])


def _bash_output(call: FoldedCall) -> ToolLine:
    shell = call.text("bash_id", "shell_id", "task_id")
    status = call.told("status")
    state = {"running": "still running", "completed": "ended", "failed": "ended"}.get(str(status))
    code = call.number("exitCode")
    told = [Told(f"{counted(call.lines, 'line')}")]
    if state:
        told.append(Told(state))
    if code:
        told.append(Told(f"exit {code}", "failed"))
    return ToolLine([LinePart(f"shell {shell}")], told)


def _kill_shell(call: FoldedCall) -> ToolLine:
    return ToolLine(
        [LinePart(f"shell {call.text('shell_id', 'bash_id', 'task_id')}")], [Told("ended")]
    )


def _read(call: FoldedCall) -> ToolLine:
    what = [LinePart(path_shown(call.text("file_path", "notebook_path", "path"), call.cwd), True)]
    offset, limit = call.input.get("offset"), call.input.get("limit")
    if type(offset) is int and type(limit) is int:
        what.append(LinePart(f" lines {offset} to {offset + limit - 1}"))
    elif type(offset) is int:
        what.append(LinePart(f" from line {offset}"))
    elif isinstance(pages := call.input.get("pages"), str):
        what.append(LinePart(f" pages {pages}"))
    if call.pictures:
        size = [call.number("file", "dimensions", f"original{each}") for each in _SIDES]
        shown = f"picture {size[0]} {TIMES} {size[1]}" if all(size) else "picture"
        return ToolLine(what, [Told(shown)])
    lines = call.number("file", "numLines")
    return ToolLine(what, [Told(counted(call.lines if lines is None else lines, "line"))])


def _edit(call: FoldedCall) -> ToolLine:
    edits = call.input.get("edits")
    places = len(cast("list[Any]", edits)) if isinstance(edits, list) else 1
    what = [LinePart(path_shown(call.text("file_path", "path"), call.cwd), True)]
    if places > 1:
        what.append(LinePart(f", {places} places"))
    return ToolLine(what, changed_lines(call))


def changed_lines(call: FoldedCall) -> list[Told]:
    """How many lines a change added and removed, by the patch or by what was given."""
    added = removed = 0
    patch = call.told("structuredPatch")
    if isinstance(patch, list) and patch:
        for hunk in cast("list[Any]", patch):
            lines = cast("dict[str, Any]", hunk).get("lines") if isinstance(hunk, dict) else None
            for each in cast("list[Any]", lines) if isinstance(lines, list) else ():
                added += str(each).startswith("+")
                removed += str(each).startswith("-")
    else:
        for old, new in replacements(call):
            removed += len(old.split("\n")) if old else 0
            added += len(new.split("\n")) if new else 0
    return [Told(f"+{added:,}", "add"), Told(f"{MINUS}{removed:,}", "del")]


def replacements(call: FoldedCall) -> list[tuple[str, str]]:
    """What a change was told to replace, and by what."""
    edits = call.input.get("edits")
    given = cast("list[Any]", edits) if isinstance(edits, list) else [call.input]
    found: list[tuple[str, str]] = []
    for each in given:
        values = cast("dict[str, Any]", each) if isinstance(each, dict) else {}
        old, new = (values.get(name) for name in ("old_string", "new_string"))
        found.append((old if isinstance(old, str) else "", new if isinstance(new, str) else ""))
    return found


def _write(call: FoldedCall) -> ToolLine:
    kind = {"create": "new", "update": "replaced"}.get(str(call.told("type")))
    path = LinePart(path_shown(call.text("file_path", "path"), call.cwd), True)
    content = call.text("content")
    if kind == "replaced" and call.told("structuredPatch"):
        told = changed_lines(call)
    else:
        told = [Told(f"+{counted(len(content.splitlines()), 'line')}", "add")]
    return ToolLine([path, LinePart(f", {kind}")] if kind else [path], told)


def _notebook(call: FoldedCall) -> ToolLine:
    mode = {"insert": "added", "delete": "deleted"}.get(call.text("edit_mode"), "replaced")
    cell = call.input.get("cell_number", call.text("cell_id"))
    path = path_shown(call.text("notebook_path"), call.cwd)
    added = len(call.text("new_source").splitlines())
    told = [] if mode == "deleted" else [Told(f"+{added:,}", "add")]
    return ToolLine([LinePart(path, True), LinePart(f", cell {cell} {mode}")], told)


def _grep(call: FoldedCall) -> ToolLine:
    what = [LinePart(call.text("pattern"), True)]
    if path := call.text("path"):
        what.append(LinePart(f" in {path_shown(path, call.cwd)}"))
    if glob := call.text("glob", "type"):
        what.append(LinePart(f", {glob}"))
    files = call.number("numFiles")
    matches = call.number("numMatches")
    if call.output.strip() in ("No files found", "No matches found"):
        return ToolLine(what, [Told("no matches")])
    if matches is not None and files:
        return ToolLine(what, [Told(f"{counted(matches, 'match')} in {counted(files, 'file')}")])
    if call.told("mode") == "content" or call.input.get("output_mode") == "content":
        return ToolLine(what, [Told(counted(call.lines, "line"))])
    return ToolLine(what, [Told(counted(call.lines if files is None else files, "file"))])


def _glob(call: FoldedCall) -> ToolLine:
    files = call.number("numFiles")
    none = call.output.strip() == "No files found"
    count = 0 if none else call.lines if files is None else files
    what = path_shown(call.text("pattern", "path"), call.cwd)
    return ToolLine([LinePart(what, True)], [Told(counted(count, "file"))])


def _agent(call: FoldedCall) -> ToolLine:
    kind = call.text("subagent_type", "agent_type")
    task = call.text("description") or call.text("prompt").split("\n")[0]
    said = call.output.strip().split("\n")[0]
    what = [LinePart(f"{kind}: {task}" if kind else task)]
    status = str(call.told("status"))
    if call.told("isAsync") is True or status.startswith("async"):
        return ToolLine(what, [Told("runs on", "live")], label="Agent")
    if said:
        what.append(LinePart(f" → {said}"))
    told: list[Told] = []
    if (calls := call.number("totalToolUseCount")) is not None:
        told.append(Told(counted(calls, "tool")))
    if (tokens := call.number("totalTokens")) is not None:
        told.append(Told(f"{tokens:,} tokens"))
    return ToolLine(what, told, label="Agent")


def _todo(call: FoldedCall) -> ToolLine:
    items = todo_items(call.input)
    done = sum(state == "completed" for state, _ in items)
    now = next((text for state, text in items if state == "in_progress"), "")
    said = f"{done} of {len(items)} done" + (f", now: {now}" if now else "")
    return ToolLine([LinePart(said)], [Told(counted(len(items), "item"))], label="To-do")


def todo_items(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """State and text of each item of a list."""
    todos = arguments.get("todos")
    found: list[tuple[str, str]] = []
    for each in cast("list[Any]", todos) if isinstance(todos, list) else ():
        item = cast("dict[str, Any]", each) if isinstance(each, dict) else {}
        found.append((str(item.get("status") or ""), str(item.get("content") or "")))
    return found


def _web_fetch(call: FoldedCall) -> ToolLine:
    question, code = call.text("prompt"), call.number("code")
    what = [LinePart(_host_of(call.text("url")) + (f": {question}" if question else ""))]
    told = [Told(f"HTTP {code}")] if code is not None else []
    size = call.number("bytes")
    told.append(
        Told(byte_size(len(call.output.encode("utf-8", "replace")) if size is None else size))
    )
    return ToolLine(what, told)


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).netloc or url
    except ValueError:
        return url


def _web_search(call: FoldedCall) -> ToolLine:
    results = call.told("results")
    told: list[Told] = []
    if isinstance(results, list):
        links = [
            link
            for each in cast("list[Any]", results)
            if isinstance(each, dict)
            for link in cast("dict[str, Any]", each).get("content") or ()
        ]
        told.append(Told(counted(len(links), "result")))
    return ToolLine([LinePart(f"“{call.text('query')}”")], told)


def _question(call: FoldedCall) -> ToolLine:
    questions = call.input.get("questions")
    asked = [
        str(cast("dict[str, Any]", each).get("question") or "")
        for each in (cast("list[Any]", questions) if isinstance(questions, list) else ())
        if isinstance(each, dict)
    ]
    found = call.told("answers")
    answers = (
        list(map(str, cast("dict[str, Any]", found).values())) if isinstance(found, dict) else []
    )
    what = asked[0] if asked else call.text("question")
    what += f" → {answers[0]}" if answers else ""
    what += f" and {counted(len(asked) - 1, 'more question')}" if len(asked) > 1 else ""
    told = f"answered{_by(call)}" if answers else "not answered"
    return ToolLine([LinePart(what)], [Told(told)], label="Question")


def _plan(call: FoldedCall) -> ToolLine:
    plan = call.text("plan") or str(call.told("plan") or "")
    lines = [each.strip() for each in plan.split("\n") if each.strip()]
    steps = sum(re.match(r"(?:\d+[.)]|[-*]) ", each) is not None for each in lines)
    what = lines[0].lstrip("# ") if lines else "No plan"
    what += f", {counted(steps, 'step')}" if steps else ""
    return ToolLine([LinePart(what)], [Told(f"approved{_by(call)}")], label="Plan")


def _skill(call: FoldedCall) -> ToolLine:
    name = call.text("skill", "command", "name")
    words = len(call.output.split())
    return ToolLine([LinePart(name)], [Told("loaded"), Told(counted(words, "word"))])


def _slash_command(call: FoldedCall) -> ToolLine:
    return ToolLine([LinePart(call.text("command"), True)], [Told("done")], label="SlashCommand")


def _mcp(call: FoldedCall) -> ToolLine:
    _, server, *tool = call.name.split("__")
    given = ", ".join(
        f"{name}={value}" if isinstance(value, (str, int, float, bool)) else f"{name}=…"
        for name, value in list(call.input.items())[:6]
    )
    name = "__".join(tool)
    what = [LinePart(f"{name}: {given}" if given else name)]
    return ToolLine(what, _size_of(call), label=server or call.name, mark="(MCP)")


def _unknown_arguments(call: FoldedCall) -> list[LinePart]:
    texts = [value for value in call.input.values() if isinstance(value, str) and value]
    if texts:
        return [LinePart(min(texts, key=len))]
    return [LinePart(", ".join(map(str, call.input)))]


def _size_of(call: FoldedCall) -> list[Told]:
    """Lines, from 100 kB on also the size, and from a second on how long it took."""
    if call.pictures:
        return [Told(counted(call.pictures, "picture"))]
    if not call.is_whole:
        return [Told(byte_size(call.size)), *_took(call)]
    size = len(call.output)
    shown = counted(call.lines, "line") + (f", {byte_size(size)}" if size >= _LARGE else "")
    return [Told(shown if call.lines else "no output"), *_took(call)]


def _took(call: FoldedCall) -> list[Told]:
    return [Told(seconds(call.seconds))] if call.seconds and call.seconds >= 1 else []


def _by(call: FoldedCall) -> str:
    return f" by {call.who}" if call.who else ""


_TELLING = 32
_LARGE = 100_000
_SIDES = ("Width", "Height")
_AT_THE_API = "(at the API)"


def _at_the_api(line: _Line, label: str) -> _Line:
    def marked(call: FoldedCall) -> ToolLine:
        found = line(call)
        return ToolLine(found.what, found.outcome, label, _AT_THE_API)

    return marked


_LINES: Final[dict[str, _Line]] = {
    "Bash": _bash,
    "PowerShell": _bash,
    **dict.fromkeys(("BashOutput", "TaskOutput"), _bash_output),
    **dict.fromkeys(("KillShell", "KillBash", "TaskStop"), _kill_shell),
    **dict.fromkeys(("Read", "NotebookRead"), _read),
    **dict.fromkeys(("Edit", "MultiEdit"), _edit),
    "Write": _write,
    "NotebookEdit": _notebook,
    "Grep": _grep,
    **dict.fromkeys(("Glob", "LS"), _glob),
    **dict.fromkeys(("Agent", "Task"), _agent),
    "TodoWrite": _todo,
    "WebFetch": _web_fetch,
    "WebSearch": _web_search,
    "AskUserQuestion": _question,
    "ExitPlanMode": _plan,
    "Skill": _skill,
    "SlashCommand": _slash_command,
    "web_search": _at_the_api(_web_search, "WebSearch"),
    "web_fetch": _at_the_api(_web_fetch, "WebFetch"),
    **dict.fromkeys(("code_execution", "bash_code_execution"), _at_the_api(_bash, "Code")),
}
