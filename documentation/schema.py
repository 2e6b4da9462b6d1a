"""The page of stored fields, made of what the Document classes say of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PLACE = "reference/schema.md"
_OPENING = """# Stored fields

Every field of every stored document, as its class describes it. How they hang together, with the
indexes: [schema.md](../schema.md). What is absent is not stored.
"""
_MODELS = (
    ("models/entry.py", "TranscriptEntry"),
    ("models/summary.py", "SessionSummary"),
    ("models/totals.py", "SessionTotals"),
    ("models/totals.py", "UsageRow"),
    ("models/totals.py", "ToolRow"),
    ("models/entry.py", "EntryChunk"),
    ("models/retention.py", "RetentionPolicy"),
    ("models/encryption_key.py", "EncryptionKey"),
)


def schema(root: Path) -> tuple[str, str]:
    """The page, by its place on the site."""
    parts = [_OPENING]
    for module, name in _MODELS:
        parts.append(f"\n## {name}\n\n| field | type | meaning |\n| --- | --- | --- |\n")
        parts += [
            f"| `{field}` | <code>{kind.replace('|', '&#124;')}</code> | {meaning} |\n"
            for field, kind, meaning in fields(root / module, name)
        ]
    return PLACE, "".join(parts)


def fields(module: Path, name: str) -> Iterator[tuple[str, str, str]]:
    """The name, type and description of each field that a class of a module declares."""
    (found,) = (
        node
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    for node in found.body:
        if not isinstance(node, ast.AnnAssign) or ast.unparse(node.target).startswith("_"):
            continue
        kind = ast.unparse(node.annotation)
        if kind.startswith("ClassVar"):
            continue
        meaning = ""
        if isinstance(node.value, ast.Call):
            said = [each.value for each in node.value.keywords if each.arg == "description"]
            meaning = "".join(ast.literal_eval(each) for each in said)
        yield ast.unparse(node.target), kind.removeprefix("Mapped[").removesuffix("]"), meaning
