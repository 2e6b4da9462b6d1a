"""The whole command line: how its commands take the global options, and how each call ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, cast

import typer
from typer.core import TyperGroup

from .blanks import is_blank
from .exits import CLOSED, FAILED, MISUSED, complain, fail, give_up_output

NAME = "session-store"

# Typer has no public names for them.
_ERRORS: Any = typer.BadParameter.__mro__
_USAGE_ERROR: type[Exception] = _ERRORS[1]
_CLICK_ERROR: type[Exception] = _ERRORS[2]


@dataclass(frozen=True, slots=True)
class Given:
    """The global options that were given, by name."""

    values: dict[str, Any]
    last_word: str
    """What stands last, where a shell asks what could come next."""


class Program(TyperGroup):
    """The root of all commands."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _spread(self)
        _refuse_blanks(self)

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run the command that the arguments name, and end the process with its exit code."""
        try:
            code = super().main(*args, **kwargs | {"prog_name": NAME, "standalone_mode": False})
        except OSError as error:
            complain(f"the output cannot be written: {error.strerror or error}")
            give_up_output()
            code = FAILED
        except typer.Abort:
            complain("aborted; nothing was changed")
            code = FAILED
        except _CLICK_ERROR as error:
            code = _misused(error)
        sys.exit(code if isinstance(code, int) else 0)

    def make_context(self, info_name: Any, args: list[str], *more: Any, **kwargs: Any) -> Any:
        """What a call, or a shell that asks for completions, begins with."""
        last = args[-1] if args else ""
        context = super().make_context(info_name, args, *more, **kwargs)
        context.obj = Given(dict(context.params), last)
        return context

    def invoke(self, ctx: Any) -> Any:
        """Run one command to its end, that of its output included."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            give_up_output()
            raise typer.Exit(CLOSED) from None
        except OSError as error:
            give_up_output()
            fail(f"the output cannot be written: {error.strerror or error}")


def _misused(error: Any) -> int:
    context = getattr(error, "ctx", None)
    message: str = error.format_message()
    if "\n" in message:
        # It is the help, for a call without a command.
        typer.echo(message, err=True)
    else:
        path = NAME if context is None else context.command_path
        end = "" if message.endswith((".", "?")) else "."
        complain(f"{message}{end} See {path} --help.")
    return MISUSED if isinstance(error, _USAGE_ERROR) else FAILED


def _spread(root: Any) -> None:
    """Let the global options stand behind every command too, where people write them."""
    for command in _below(root):
        command.shell_complete = partial(_completions, command, command.shell_complete)
        taken = {name for option in command.params for name in option.opts}
        for option in root.params:
            if option.expose_value and not taken.intersection(option.opts):
                twin = copy(option)
                twin.hidden, twin.expose_value, twin.callback = True, False, _kept
                command.params.append(twin)


def _refuse_blanks(root: Any) -> None:
    """Let every command refuse what is given but empty.

    A script that writes ``--tenant "$T"`` and forgot to set ``T`` means one tenant. To leave the
    option out would mean another one, or all of them.
    """
    for command in (root, *_below(root)):
        for parameter in command.params:
            parameter.process_value = partial(_filled, parameter, parameter.process_value)


def _filled(parameter: Any, process: Callable[..., Any], context: Any, value: Any) -> Any:
    several = isinstance(value, (list, tuple))
    for each in cast("Iterable[Any]", value) if several else [value]:
        if is_blank(each):
            raise typer.BadParameter(
                "it is given but empty. Name what is meant, or leave it out.",
                ctx=context,
                param=parameter,
            )
    return process(context, value)


def _completions(command: Any, usual: Callable[..., Any], context: Any, incomplete: str) -> Any:
    """What a shell is offered; behind an option its values, though they begin with a dash."""
    word = context.find_object(Given).last_word
    for option in command.params:
        if word in option.opts and word.startswith("-") and not option.is_flag:
            return option.shell_complete(context, incomplete)
    return usual(context, incomplete)


def _below(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield command
        if hasattr(command, "commands"):
            yield from _below(command)


def _kept(context: Any, option: Any, value: Any) -> Any:
    if value:
        context.find_object(Given).values[option.name] = value
    return value
