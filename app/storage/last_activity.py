"""When a session was active last, by its summary."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..stored_times import EPOCH, moment_of_ms
from .criteria import KeyRow


class ActiveRow(KeyRow):
    """What a summary says of whose session it is, and when that was active last."""

    active_at: Any = None
    mtime: Any = None
    created_at: Any = None
    released_at: Any = None

    @property
    def last_active(self) -> datetime:
        """When the session was active last, or was released from a hold."""
        begun, released_at = self._last_written, self.released_at
        # The period begins anew when a hold ends.
        return max(begun, released_at) if isinstance(released_at, datetime) else begun

    @property
    def _last_written(self) -> datetime:
        if isinstance(self.active_at, datetime):
            return self.active_at
        # Written before there were dates of activity: the last append to the main transcript is
        # known, and no session was idle before it was made.
        made = self.created_at if isinstance(self.created_at, datetime) else EPOCH
        return max(made, moment_of_ms(self.mtime) or EPOCH)
