"""What checkers are given of a document is what its readers see, line by line."""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import dedent

import pytest
from typed.blocks import BadBlockError, Block, blocks_of, documents

ROOT = Path(__file__).parents[2]


def blocks(text: str) -> list[Block]:
    return list(blocks_of(dedent(text).lstrip("\n")))


def lines(block: Block) -> dict[int, str]:
    """What stands in each line of a module, blank ones left out."""
    return {n: line for n, line in enumerate(block.module.split("\n"), 1) if line}


def test_each_line_is_where_its_document_has_it() -> None:
    (first, second) = blocks(
        """
        # Title

        ```python
        import os

        print(os.name)
        ```

        ~~~~ py title="x.py"
        x = 1
        ~~~~
        """
    )
    assert (first.line, second.line) == (4, 10)
    assert lines(first) == {4: "import os", 6: "print(os.name)"}
    assert lines(second) == {10: "x = 1"}


def test_what_awaits_is_the_body_of_a_function() -> None:
    (awaiting, defining) = blocks(
        """
        ```python
        for row in await store.usage():

            print(row)
        ```

        ```python
        async def main() -> None:
            await store.usage()
        ```
        """
    )
    assert lines(awaiting) == {
        1: "async def block() -> None:",
        2: "    for row in await store.usage():",
        3: "    ",
        4: "        print(row)",
    }
    assert lines(defining) == {8: "async def main() -> None:", 9: "    await store.usage()"}


def test_what_is_assumed_stands_before_each_block_until_something_else_is() -> None:
    found = blocks(
        """
        ```python
        a = 1
        ```

        <!-- assumed
        store = 1

        key = 2
        -->

        ```python
        b = store
        ```

        ```python
        c = store
        ```

        <!-- assumed
        other = 3
        -->

        ```python
        d = other
        ```

        <!-- assumed -->

        ```python
        e = 1
        ```
        """
    )
    assert [lines(block) for block in found] == [
        {2: "a = 1"},
        {6: "store = 1", 8: "key = 2", 12: "b = store"},
        {6: "store = 1", 8: "key = 2", 16: "c = store"},
        {20: "other = 3", 24: "d = other"},
        {30: "e = 1"},
    ]


def test_a_block_is_left_out_only_for_the_reason_right_above_it() -> None:
    found = blocks(
        """
        <!-- unchecked: it is for
        another release -->

        ```python
        a = 1
        ```

        ```python
        b = 1
        ```

        <!-- unchecked: far away -->

        Something else.

        ```python
        c = 1
        ```
        """
    )
    assert [block.unchecked for block in found] == ["it is for another release", None, None]


def test_a_block_that_imports_motor_is_for_it() -> None:
    text = "```python\n{}\n```\n"
    for code in ("import motor", "from motor.motor_asyncio import x", "if x:\n    import motor.y"):
        assert blocks(text.format(code))[0].is_for_motor
    for code in ("x = 1  # import motor", "import motorcycle", "from x import motor"):
        assert not blocks(text.format(code))[0].is_for_motor


def test_a_block_in_a_list_is_a_block() -> None:
    (block,) = blocks(
        """
        1. First:

           ```python
           if True:
               x = 1
           ```
        """
    )
    assert lines(block) == {4: "if True:", 5: "    x = 1"}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("```python\nx = 1\nthis is no code\n```\n", 3, "no Python"),
        ("```pycon\n>>> 1\n1\n```\n", 2, "no Python"),
        ("```\nimport os\n```\n", 2, "does not say so"),
        ("text\n\n```\nasync with a as b:\n    pass\n```\n", 4, "does not say so"),
        ("<!-- unchecked -->\n\n```python\nx = 1\n```\n", 1, "comment"),
        ("<!-- assumed: x = 1 -->\n\n```python\nx\n```\n", 1, "comment"),
    ],
)
def test_what_no_checker_could_be_given_is_named(text: str, line: int, what: str) -> None:
    with pytest.raises(BadBlockError, match=what) as caught:
        blocks(text)
    assert caught.value.line == line


@pytest.mark.parametrize(
    "text", ["```\npip install x\n```\n", "```\nmake demo\n```\n", "```js\n1\n```\n"]
)
def test_other_blocks_are_none(text: str) -> None:
    assert blocks(text) == []


def test_every_block_of_the_documents_is_found_and_few_are_left_out() -> None:
    fences = found = 0
    left_out: list[str] = []
    for document in documents(ROOT):
        text = document.read_text()
        fences += text.count("\n```python\n")
        for block in blocks_of(text):
            found += 1
            ast.parse(block.module)
            if block.unchecked is not None:
                left_out.append(f"{document.name}: {block.unchecked}")
    assert found >= fences > 25
    assert len(left_out) <= 2, left_out
