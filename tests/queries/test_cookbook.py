"""Every answer that docs/typed-access.md shows is what the code above it prints."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from support.cookbook import TENANT, write_sessions

from beanie_session_store import BeanieSessionStore, enable_search
from beanie_session_store.app.database.driver import Database

DOCUMENT = Path(__file__).parents[2] / "docs" / "typed-access.md"

QUESTIONS = re.findall(
    r"### (\d+\. .*?)\n.*?```python\n(.*?)```\n\n```text\n(.*?)```", DOCUMENT.read_text(), re.DOTALL
)


async def test_every_question_has_the_answer_that_is_shown(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [question.split(".")[0] for question, _, _ in QUESTIONS] == [*map(str, range(1, 11))]
    await write_sessions()
    await enable_search(database)
    names: dict[str, Any] = {"store": BeanieSessionStore(tenant=TENANT)}
    for question, code, shown in QUESTIONS:
        # One after the other, as a reader would: the eighth goes on with the seventh.
        body = textwrap.indent(f"{code}\nreturn locals()", "    ")
        source = f"async def question({', '.join(names)}):\n{body}"
        namespace: dict[str, Any] = {}
        exec(compile(source, question, "exec"), namespace)
        names |= await namespace["question"](**names)
        assert capsys.readouterr().out == shown, question
