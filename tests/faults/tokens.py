"""Entries that can be told by a short token, so that a history stays small.

A token names the batch, the position in it and the kind: ``"w3-17.2u"``. The kinds are
``u`` (a prompt with uuid), ``a`` (an answer with uuid), ``t`` (a title without uuid), ``p`` (a
last prompt without uuid) and ``x`` (an entry with uuid that BSON cannot hold). ``"~plan"`` is a
mode without uuid, equal in all batches, as real traffic has them.
"""

from __future__ import annotations

import random
import uuid
from typing import Any

NO_IDENTITY = "~"
DAMAGED = "!"

_SPACE = uuid.UUID(int=0)


def entry_of(token: str) -> dict[str, Any]:
    """The entry that a token stands for, always the same."""
    if token.startswith(NO_IDENTITY):
        return {"type": "mode", "mode": token[1:], "sessionId": "session"}
    kind = token[-1]
    if kind == "t":
        return {"type": "custom-title", "customTitle": f"title {token}", "token": token}
    if kind == "p":
        return {"type": "last-prompt", "lastPrompt": f"prompt {token}", "token": token}
    content = f"text of {token} " + "." * (random.Random(token).choice((10, 200, 3000)))
    entry = {
        "type": "assistant" if kind == "a" else "user",
        "uuid": str(uuid.uuid5(_SPACE, token)),
        "timestamp": "2026-01-01T00:00:00.000Z",
        "message": {"role": "user", "content": content},
        "token": token,
    }
    if kind == "a":
        # Two answers of a batch may be one response of the API.
        batch = token.partition(".")[0]
        usage = {"input_tokens": 10, "output_tokens": len(content)}
        call = {"type": "tool_use", "id": token, "name": "Bash", "input": {}}
        entry["message"] = {
            "id": f"msg_{batch}",
            "model": "claude",
            "content": [{"type": "text", "text": content}, call],
            "usage": usage,
        }
    if kind == "x":
        entry["\0"] = ["\ud83d", 2**70]
    return entry


def token_of(entry: dict[str, Any]) -> str:
    """The token of a loaded entry, marked when the entry is not what was appended."""
    token = entry.get("token") or f"{NO_IDENTITY}{entry.get('mode')}"
    return token if entry == entry_of(token) else f"{DAMAGED}{token}"


def new_batch(batch: str, rng: random.Random) -> list[str]:
    """Tokens of a new batch, one of them at least with an identity."""
    if rng.random() < 0.15:
        kinds = [*rng.choices("tp~", k=rng.randint(1, 3)), "t"]
    else:
        kinds = [*rng.choices("uatp~x", (6, 4, 2, 2, 5, 1), k=rng.randint(0, 6)), "u"]
        rng.shuffle(kinds)
    return [
        NO_IDENTITY + rng.choice(("plan", "default"))
        if kind == NO_IDENTITY
        else f"{batch}.{position}{kind}"
        for position, kind in enumerate(kinds)
    ]


def has_uuid(token: str) -> bool:
    return token[0] != NO_IDENTITY and token[-1] in "uax"
