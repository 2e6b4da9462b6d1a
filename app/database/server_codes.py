"""The codes by which MongoDB says what went wrong."""

from __future__ import annotations

UNAUTHORIZED = 13
AUTHENTICATION_FAILED = 18
INDEX_NOT_FOUND = 27
TIME_LIMIT = 50
WRITE_CONFLICT = 112
NO_SUCH_TRANSACTION = 251
TRANSACTION_TOO_LARGE = 388
DUPLICATE_KEY = 11000
"""A unique index refuses a write."""
INTERRUPTED = 11601
