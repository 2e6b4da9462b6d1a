"""What dead or careless writers left open at a server."""

from __future__ import annotations

from typing import Any

from pymongo import MongoClient


def open_transactions(url: str) -> int:
    """How many transactions are open at a server and have nothing under way."""
    pipeline: list[dict[str, Any]] = [
        {"$currentOp": {"allUsers": True, "idleSessions": True}},
        {"$match": {"type": "idleSession", "transaction": {"$exists": True}}},
    ]
    with MongoClient[dict[str, Any]](url) as client:
        return len(list(client.admin.aggregate(pipeline)))
