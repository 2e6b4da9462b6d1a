"""What is given but empty is a mistake, for every option, argument and variable there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from support.command import invoked

from beanie_session_store.app.cli.root import app, load_commands

NOBODY = "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=1"
BLANKS = ["", " ", "\t\n", "\u2003"]
VARIABLES = ["MONGODB_URL", "DATABASE", "TENANT", "ENTRIES", "SUMMARIES", "SOURCE_URL", "MONGOD"]


def options() -> Iterator[tuple[tuple[str, ...], str]]:
    """Every command, the root included, with each option of it that takes a value."""
    load_commands()

    def below(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield path, group
        for name, each in getattr(group, "commands", {}).items():
            yield from below(each, (*path, name))

    root = typer.main.get_command(app)
    everywhere = [each.opts[0] for each in root.params if takes_a_value(each)]
    for path, command in below(root, ()):
        own = [each.opts[0] for each in command.params if takes_a_value(each)]
        if not hasattr(command, "commands"):
            own += [each for each in everywhere if each not in own]
        for option in own:
            yield path, option


def takes_a_value(option: Any) -> bool:
    return option.param_type_name == "option" and not option.is_flag


ALL = list(options())


def call(*arguments: str, **environment: str) -> tuple[int, str]:
    given = {"SESSION_STORE_MONGODB_URL": NOBODY, **environment}
    finished = invoked(arguments, given)
    return finished.exit_code, finished.output


def test_there_are_options_to_try() -> None:
    assert len(ALL) > 100
    assert (("retention", "set"), "--tenant") in ALL
    assert (("export",), "--session") in ALL


@pytest.mark.parametrize(("path", "option"), ALL, ids=lambda value: str(value))
def test_an_empty_option_is_misuse(path: tuple[str, ...], option: str) -> None:
    for blank in BLANKS:
        for given in ([option, blank], [f"{option}={blank}"]):
            # The root takes its options before a command.
            words = [*path, *given] if path else [*given, "sessions"]
            code, output = call(*words)
            assert code == 2, (words, output)
            assert f"'{option}': it is given but empty" in output, (words, output)


@pytest.mark.parametrize(
    "words",
    [
        ["show", ""],
        ["delete", "--yes", "session", " "],
        ["retention", "hold", ""],
        ["retention", "set", "", "--tenant", "a"],
        ["import", ""],
        ["import", ".", ""],
        ["export", ""],
        ["schema", "copy", ""],
        ["verify", ""],
        ["sessions", "--metadata", "user_id="],
        ["sessions", "--metadata", "user_id= "],
        ["stats", "--metadata", "user_id="],
        ["adopt", "--tenant-for", "=acme"],
        ["adopt", "--tenant-for", "-srv="],
        ["adopt", "--field", "entry="],
    ],
    ids=" ".join,
)
def test_so_are_an_empty_argument_and_an_empty_half(words: list[str]) -> None:
    code, output = call(*words)
    assert code == 2, output
    assert output.count("\n") == 1


@pytest.mark.parametrize("blank", BLANKS, ids=repr)
@pytest.mark.parametrize("name", VARIABLES)
def test_so_is_an_empty_variable_also_where_an_option_beats_it(
    name: str, blank: str, tmp_path: Path
) -> None:
    variable = f"SESSION_STORE_{name}"
    said = f"{variable} is set but empty"
    for arguments in (
        ["sessions"],
        ["retention", "show"],
        ["sessions", "--tenant", "a", "--url", NOBODY, "--database", "b"],
    ):
        code, output = call(*arguments, **{variable: blank})
        assert (code, said in output) == (2, True), output
    file = tmp_path / "settings"
    file.write_text(f'{variable}="{blank}"\nOTHER=\n')
    code, output = call("--env-file", str(file), "sessions")
    assert (code, said in output) == (2, True), output


def test_a_variable_of_a_file_that_stands_for_nothing_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("SESSION_STORE_TENANT=${NOBODY_SET_IT}\n")
    code, output = call("--env-file", str(file), "sessions")
    assert (code, "SESSION_STORE_TENANT is set but empty" in output) == (2, True)


def test_what_is_filled_is_taken() -> None:
    # Else all of the above could pass for another reason.
    code, output = call("sessions", "--tenant", "a", "--metadata", 'user_id=""')
    assert code == 1
    assert "127.0.0.1:1" in output
