"""By which key an entry is told to be stored already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ...models.packing import full_stack

_MAX_UUID_BYTES = 256
_USUAL_UUID_LENGTH = 36
_DIGEST_PREFIX = "sha256:"

# Those of a uuid and of a content, in hexadecimal.
_FURTHER_LENGTH = len(_DIGEST_PREFIX) + 64 + 1 + 64


def idempotency_key(uuid: object) -> str | None:
    """The indexed form of an entry's ``uuid``, or ``None`` where it has no string there.

    A uuid of the agent's is its own key. A string that BSON or an index cannot hold stands for
    itself by its digest, and so does one that looks like a digest, lest the two meet.
    """
    if not isinstance(uuid, str):
        return None
    is_usual = type(uuid) is str and len(uuid) <= _USUAL_UUID_LENGTH and uuid.isascii()
    if is_usual and not _is_digest(uuid):
        return uuid
    data = uuid.encode("utf-8", "surrogatepass")
    if len(data) <= _MAX_UUID_BYTES and not _is_digest(uuid):
        try:
            uuid.encode()
        except UnicodeEncodeError:
            pass
        else:
            return str.__str__(uuid)
    return _DIGEST_PREFIX + hashlib.sha256(data).hexdigest()


def further_key(uuid: str, content: bytes) -> str:
    """The key of an entry whose uuid, of the key ``uuid``, another entry has.

    It is longer than any digest of a uuid, so the two never meet.

    Args:
        uuid: what :func:`idempotency_key` gives for its uuid.
        content: the entry's :func:`fingerprint`.
    """
    return f"{_DIGEST_PREFIX}{hashlib.sha256(uuid.encode()).hexdigest()}:{content.hex()}"


def is_further_key(key: str) -> bool:
    """Whether a key is one of :func:`further_key`."""
    return len(key) == _FURTHER_LENGTH and _is_digest(key)


def _is_digest(uuid: str) -> bool:
    return uuid.startswith(_DIGEST_PREFIX)


def fingerprint(entry: Mapping[str, Any]) -> bytes:
    """A digest that is equal for deep-equal entries, whatever the order of their keys."""
    text = full_stack(lambda: json.dumps(entry, sort_keys=True, ensure_ascii=False))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
