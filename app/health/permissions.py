"""Examining what the user of a connection may do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure

from ...migrations._log import LOG_COLLECTION
from ...models import EntryChunk
from ..database.collection_names import (
    ADOPTION_RECORDS,
    AUDIT,
    ERASURES,
    PASSED_BUDGETS,
    policy_collection_name,
)
from .exposure import is_on_loopback, lets_everybody_in
from .findings import Finding
from .target import Target


@dataclass(frozen=True, slots=True)
class Need:
    """Actions on a collection; ``""`` is the database itself."""

    collection: str
    actions: tuple[str, ...]


async def permissions(target: Target) -> Finding:
    """Whether the user may do what the store and its migrations do, as the server lists it."""
    answer = await target.database.command("connectionStatus", showPrivileges=True)
    status: dict[str, Any] = answer["authInfo"]
    users: list[dict[str, str]] = status["authenticatedUsers"]
    if not users:
        return await _of_nobody(target)
    if await lets_everybody_in(target):
        return _open_to_all(target)
    user = f"{users[0]['user']}@{users[0]['db']}"
    privileges = status["authenticatedUserPrivileges"]
    name = target.database.name
    lacking = list(_lacking(privileges, name, needed_to_use(target)))
    advice = f"db.grantRolesToUser({json.dumps(users[0]['user'])}, "
    advice += f'[{{role: "readWrite", db: {json.dumps(name)}}}]), or the roles of docs/operating.md'
    if lacking:
        found = f"the store needs more than {user} may do: {_shown(lacking)}"
        return Finding("permissions", "bad", found, f"As an administrator: {advice}")
    missed: list[str] = []
    for purpose, needs in needed_besides(target).items():
        lacking = list(_lacking(privileges, name, needs))
        if lacking:
            missed.append(f"{purpose} ({_shown(lacking)})")
    if missed:
        return Finding(
            "permissions",
            "warning",
            f"{user} may use the store, but not {', nor '.join(missed)}",
            f"Leave that to another user, or, as an administrator: {advice}",
        )
    return Finding("permissions", "good", f"{user} may use and migrate the store")


async def _of_nobody(target: Target) -> Finding:
    try:
        await target.documents.summaries.find_one().exists()
    except OperationFailure:
        return Finding(
            "permissions",
            "bad",
            "the server wants a user, and the connection string has none",
            "Write mongodb://user:password@host:port/database, with authSource=... where the user "
            "is of another database.",
        )
    return _open_to_all(target)


def _open_to_all(target: Target) -> Finding:
    if is_on_loopback(target):
        return Finding("permissions", "good", "the server controls no access, and is on loopback")
    return Finding(
        "permissions",
        "warning",
        "the server controls no access: whoever reaches it reads and changes every session",
        "Start mongod with --auth and give the store a user with the role readWrite.",
    )


def needed_to_use(target: Target) -> Sequence[Need]:
    """What a store does."""
    changed = ("find", "insert", "update", "remove", "listIndexes")
    return [
        *(Need(target.collection(model).name, changed) for model in _stored(target)),
        Need(policy_collection_name(), ("find",)),
        Need(LOG_COLLECTION, ("find",)),
    ]


def needed_besides(target: Target) -> Mapping[str, Sequence[Need]]:
    """What else there is to do with a store, and what it takes."""
    written = ("insert", "update", "remove")
    classes = [target.collection(model).name for model in target.classes]
    summaries = target.collection(target.models.summaries).name
    return {
        "watch sessions": [Need(summaries, ("changeStream",))],
        "watch budgets": [Need(PASSED_BUDGETS, ("insert", "remove"))],
        "delete sessions by a condition": [Need(ADOPTION_RECORDS, ("remove",))],
        "erase a person's sessions": [
            Need(ERASURES, ("find", "insert", "update")),
            Need(ADOPTION_RECORDS, ("find", "remove")),
        ],
        "keep an audit": [Need(AUDIT, ("find", "insert"))],
        "call init_beanie without skip_indexes=True": [
            Need(name, ("createIndex",)) for name in classes
        ],
        "migrate it": [
            *(
                Need(target.collection(model).name, ("createCollection",))
                for model in _stored(target)
            ),
            *(Need(name, ("createIndex", "listIndexes")) for name in classes),
            Need(ERASURES, ("createIndex",)),
            Need("", ("listCollections",)),
            Need(LOG_COLLECTION, written),
        ],
        "change the retention": [Need(policy_collection_name(), written)],
    }


def _stored(target: Target) -> Sequence[Any]:
    return (target.models.entries, target.models.summaries, EntryChunk)


def _lacking(
    privileges: Sequence[dict[str, Any]], database: str, needs: Sequence[Need]
) -> Iterator[tuple[str, str]]:
    for need in needs:
        allowed = {
            action
            for privilege in privileges
            if _covers(privilege["resource"], database, need.collection)
            for action in privilege["actions"]
        }
        yield from ((action, need.collection) for action in need.actions if action not in allowed)


def _covers(resource: dict[str, Any], database: str, collection: str) -> bool:
    if resource.get("anyResource"):
        return True
    # An empty name stands for every one.
    return resource.get("db") in ("", database) and resource.get("collection") in ("", collection)


def _shown(lacking: Sequence[tuple[str, str]]) -> str:
    by_collection: dict[str, list[str]] = {}
    for action, collection in lacking:
        by_collection.setdefault(collection or "the database", []).append(action)
    by_actions: dict[str, list[str]] = {}
    for collection, actions in by_collection.items():
        by_actions.setdefault(", ".join(actions), []).append(collection)
    return "; ".join(f"{actions} on {', '.join(names)}" for actions, names in by_actions.items())
