"""Servers that have too much to do, and who tries again what they refuse.

MongoDB 8 and later may refuse a command before it does any of it, and the driver may fail to open
a connection; the error is then labelled ``SystemOverloadedError``, and ``RetryableError`` where
the same command may be sent again. Three try again, one inside the other:

- **The driver**, PyMongo 4.17 and later, also below Motor, sends the command again: twice
  (``maxAdaptiveRetries``), after up to 0.2 and 0.4 s, within transactions too. With
  ``retryReads=false`` or ``retryWrites=false`` it does so for commits and aborts alone. Older
  ones send nothing again.
- **The store** then waits, up to 0.1 s at first and up to 1.6 s later, and does what it was at
  again: a read from its start, a transaction from its start once that is rolled back, a commit by
  sending it again, a single write as it was. All within the 25 s of the operation
  (:class:`.attempts.Attempts`), the driver's own tries among them.
- **The caller** comes last, as after any other failure: the SDK calls ``append`` again, and a
  batch that comes again is recognised.

An error with the first label alone is not tried again because of it.
"""

from __future__ import annotations

from pymongo.errors import PyMongoError


def is_refused(error: BaseException) -> bool:
    """Whether a server, or the way to it, had too much to do for a command that may come again."""
    return (
        isinstance(error, PyMongoError)
        and error.has_error_label("SystemOverloadedError")
        and error.has_error_label("RetryableError")
    )
