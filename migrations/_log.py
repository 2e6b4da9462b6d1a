"""Which scripts ran on a database, as runners write it down: one document per script.

It is not Beanie's ``migrations_log``, whose single pointer knows one folder of scripts only: with
ours in it, a team's own ``beanie migrate`` would lose its place.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from pymongo import ReadPreference, WriteConcern

LOG_COLLECTION = "claude_transcript_migrations"

FORWARD = "forward"
BACKWARD = "backward"


def log_of(database: Any) -> Any:
    """The collection of the log. A run that an election takes back would be run twice."""
    return database[LOG_COLLECTION].with_options(
        read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority")
    )


def record_id(entries: str, script: str) -> str:
    """The ``_id`` of what is known of a script on the collections that belong to ``entries``."""
    return f"{entries}/{script}"


async def write_run(
    database: Any,
    *,
    entries: str,
    script: str,
    checksum: str,
    direction: str,
    by: str,
    seconds: float,
) -> None:
    """Write down that a script ran to its end, and with it whether it is applied now.

    Both are one update of one document, dated by the server's clock.
    """
    run: dict[str, Any] = {
        "direction": direction,
        "at": "$$NOW",
        "host": {"$literal": socket.gethostname()},
        "pid": os.getpid(),
        "by": {"$literal": by},
        "seconds": round(seconds, 3),
    }
    record: dict[str, Any] = {
        "entries": {"$literal": entries},
        "script": {"$literal": script},
        "checksum": {"$literal": checksum},
        "applied_at": "$$NOW" if direction == FORWARD else None,
        "runs": {"$concatArrays": [{"$ifNull": ["$runs", []]}, [run]]},
    }
    await log_of(database).update_one(
        {"_id": record_id(entries, script)}, [{"$set": record}], upsert=True
    )


async def is_applied(database: Any, *, entries: str, script: str) -> bool:
    """Whether the script ran last forward."""
    record = await log_of(database).find_one({"_id": record_id(entries, script)})
    return record is not None and record.get("applied_at") is not None
