"""The house stands: imports run down its floors, and each room keeps to what it is for.

A room is a folder of ``app`` or ``models``, or a module beside them.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

# From the top down. Rooms on one floor know nothing of each other; a new room needs its floor.
FLOORS: list[set[str]] = [
    {"cli", "face", "testing"},
    {"telemetry", "web"},
    {"jobs"},
    {"store"},
    {"adoption", "agent", "budgets", "leases", "retention"},
    {"queries", "writing"},
    {"audit", "feed", "health", "reading"},
    {"storage"},
    {"encryption", "schema"},
    {"embedded", "migrations", "rendering", "traces"},
    {"database", "files", "transcripts"},
    {"concurrency", "counting", "transcript_key"},
    {"models"},
    {"pricing", "views"},
    {"errors", "every", "instruments", "loopback", "sdk", "stored_times", "text"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

LONGEST = 400
LONG_FILES = {
    # A line for each public name, and one more for checkers.
    "__init__.py",
    # Its docstrings are the reference of a class with many methods.
    "app/store.py",
}

# Who may import what is heavy, or different on each driver: whole rooms.
ONLY_IN = {
    "boto3": {"encryption"},
    "cryptography": {"encryption"},
    "genai_prices": {"pricing"},
    "jinja2": {"web"},
    "markdown_it": {"rendering"},
    "mdformat": {"rendering"},
    "nh3": {"rendering"},
    "opentelemetry": {"instruments", "telemetry"},
    "pygments": {"rendering"},
    "pydantic_settings": {"cli"},
    "rich": {"cli"},
    "starlette": {"web"},
    "typer": {"cli"},
    "zstandard": {"encryption"},
    "pymongo.asynchronous": {"database"},
    "motor": {"database"},
}


class Import(NamedTuple):
    """That one of our modules imports something."""

    where: str
    importer: str
    imported: str
    """With its dots; of our own modules, without the package."""
    is_ours: bool
    is_for_checkers: bool
    """Whether only type checkers see it."""


def sources() -> list[Path]:
    tops = (ROOT / top for top in ("app", "models", "migrations", "testing"))
    below = sorted(path for top in tops for path in top.rglob("*.py"))
    faces = ("__init__.py", "encryption.py", "telemetry.py", "web.py")
    return [*(ROOT / each for each in faces), *below]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sources()}


@cache
def imports() -> list[Import]:
    return [each for path, tree in trees().items() for each in imports_of(path, tree)]


def imports_of(path: Path, tree: ast.Module) -> Iterator[Import]:
    importer = name_of(path)
    # Migrations are loaded by their path, and a package stands for what lies beside its face.
    package = path.relative_to(ROOT).parts[:-1]
    checked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(where, importer, alias.name, False, id(node) in checked)
        elif isinstance(node, ast.ImportFrom):
            named = node.module.split(".") if node.module else []
            own = node.level > 0 or named[0] == "beanie_session_store"
            if node.level:
                named = [*package[: len(package) - node.level + 1], *named]
            elif own:
                named = named[1:]
            for alias in node.names:
                whole = [*named, alias.name]
                found = whole if not own or is_module(whole) else named
                yield Import(where, importer, ".".join(found), own, id(node) in checked)


def is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


def room_of(module: str) -> str:
    first, *below = module.split(".")
    if first == "app":
        return below[0] if below else "face"
    if first == "models" and below and (ROOT / first / below[0]).is_dir():
        return below[0]
    return first or "face"


def arrows() -> set[tuple[str, str]]:
    return {(each.importer, each.imported) for each in imports() if each.is_ours}


def test_every_room_has_its_floor() -> None:
    assert {room_of(name_of(path)) for path in sources()} == set(FLOOR_OF)
    assert sum(map(len, FLOORS)) == len(FLOOR_OF)


def test_a_room_says_what_it_is_for_and_nothing_else() -> None:
    # What is imported with a room would be waited for by whoever needs one module of it.
    said = {
        name_of(path): [*(ast.get_docstring(tree) or "").splitlines(), *tree.body[1:]]
        for path, tree in trees().items()
        if path.name == "__init__.py"
    }
    for more in ("", "models", "migrations", "testing"):
        del said[more]
    assert len(said) > 20
    assert not [name for name, found in said.items() if len(found) != 1]


def test_imports_run_down() -> None:
    wrong = {
        (importer, imported)
        for importer, imported in arrows()
        for here, there in [(room_of(importer), room_of(imported))]
        if here != there and FLOOR_OF[here] >= FLOOR_OF[there]
    }
    assert not wrong


def test_imports_run_in_no_circle() -> None:
    below: dict[str, set[str]] = {}
    for importer, imported in arrows():
        below.setdefault(importer, set()).add(imported)

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for each in sorted(below.get(module, ())):
                walk(each, (*path, module))
            done.add(module)

    done: set[str] = set()
    for module in sorted(below):
        walk(module, ())


def test_no_type_is_imported_for_checkers_alone() -> None:
    # The command line and the face do it to start at once; elsewhere it hides a circle.
    hidden = {
        (each.importer, each.imported)
        for each in imports()
        if each.is_ours and each.is_for_checkers and room_of(each.importer) not in ("cli", "face")
    }
    assert not hidden


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_known_in_its_rooms_alone(library: str) -> None:
    users = [
        each
        for each in imports()
        if not each.is_ours and f"{each.imported}.".startswith(f"{library}.")
    ]
    elsewhere = [each for each in users if room_of(each.importer) not in ONLY_IN[library]]
    assert not elsewhere, [f"{each.where}: {each.imported}" for each in elsewhere]


def test_which_driver_it_is_is_asked_in_one_room() -> None:
    asking = {
        name_of(path)
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id == "IS_MOTOR")
        or (isinstance(node, ast.alias) and node.name == "IS_MOTOR")
    }
    assert {room_of(module) for module in asking} == {"database"}


def test_a_logger_is_named_after_its_room_and_documented() -> None:
    asked = {
        (name_of(path), ast.unparse(node.args[0]))
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger")
    }
    # The command line keeps one of another room quiet, and has none.
    rooms = {room_of(module) for module, _ in asked} - {"cli"}
    names = {f"beanie_session_store.{room}" for room in rooms}
    assert {(room_of(module), ast.literal_eval(name)) for module, name in asked} == {
        ("cli", "beanie_session_store.database"),
        *((room, f"beanie_session_store.{room}") for room in rooms),
    }
    operating = (ROOT / "docs" / "operating.md").read_text()
    assert set(re.findall(r"`(beanie_session_store\.\w+)` \|", operating)) == names


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_a_page_names_what_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    paths = {*re.findall(r"`([\w./-]*/[\w./-]*)`", text), *re.findall(r"\]\(([^)]+)\)", text)}
    assert len(paths) > 3
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]


def test_the_picture_is_that_of_the_floors() -> None:
    picture = (ROOT / "ARCHITECTURE.md").read_text().split("```\n")[1]
    # A floor goes on in lines that are set in.
    floors = re.split(r"\n(?! )", "\n".join(line[:28] for line in picture.splitlines()))
    drawn = [set(re.findall(r"\w+", floor)) for floor in floors]
    assert drawn == FLOORS


def test_no_file_is_longer_than_one_can_keep_in_mind() -> None:
    lines = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in sources()}
    assert {path for path, count in lines.items() if count > LONGEST} == LONG_FILES


# Beanie asks a Document class for its Settings; what is of a type checker is the same at run time.
SHARED_NAMES = {"Settings", "Mapped"}

# Happen to be the same.
REPEATED_CONSTANTS = {
    "AGENT",
    "BATCH_ENTRIES",
    "PAGE",
    "PIECE_BYTES",
    "POLL_SECONDS",
    "SHARE",
    "WHOLE",
}


def of_the_package() -> Iterator[tuple[Path, ast.Module]]:
    """The modules, but for scripts of migrations: each stands for itself, as it was released."""
    return (each for each in trees().items() if room_of(name_of(each[0])) != "migrations")


def test_no_two_classes_share_a_name() -> None:
    found = [
        node.name.lstrip("_")
        for _, tree in of_the_package()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    assert {name for name, count in Counter(found).items() if count > 1} == SHARED_NAMES


def test_a_constant_stands_once() -> None:
    found = Counter(
        (target.id.lstrip("_"), ast.unparse(node.value))
        for _, tree in of_the_package()
        for node in tree.body
        if isinstance(node, ast.Assign) and "TypeVar" not in ast.unparse(node.value)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper()
    )
    assert {name for (name, _), count in found.items() if count > 1} == REPEATED_CONSTANTS


def test_the_face_binds_what_it_names_and_nothing_is_named_in_vain() -> None:
    (tree,) = (tree for path, tree in trees().items() if name_of(path) == "")
    values = {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("__all__", "_HOMES")
    }
    homes = {(home, name) for home, names in values["_HOMES"].items() for name in names.split()}
    assert sorted(name for _, name in homes) == sorted(values["__all__"])
    shown = {
        ("." * node.level + (node.module or ""), alias.asname or alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert shown == homes


def test_what_is_packaged_is_what_is_there() -> None:
    packages = {
        ".".join(["beanie_session_store", *path.relative_to(ROOT).parts[:-1]]) for path in sources()
    }
    declared = (ROOT / "pyproject.toml").read_text().split("packages = [")[1].split("]")[0]
    assert set(re.findall(r'"([\w.]+)"', declared)) == packages
