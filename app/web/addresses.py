"""Where the pages are: every one is made here, and stands below where they are mounted."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, urlencode

from ..sdk import SessionKey

Query: TypeAlias = Iterable[tuple[str, object]]
"""Names and values in their order; what is ``None`` or empty is left out."""

_AWKWARD = re.compile(r"[/\x00-\x1f\x7f-\x9f\u2028\u2029]")


def written(part: str) -> str:
    """A project key or session id as one part of a path, percent-encoded.

    What servers and proxies would take for something else is ``~`` and base64url.
    """
    if part in ("", ".", "..") or part.startswith("~") or _AWKWARD.search(part):
        return "~" + base64.urlsafe_b64encode(part.encode()).decode().rstrip("=")
    return quote(part, safe="")


def read(part: str) -> str | None:
    """The key that a part of a path, already percent-decoded, stands for; ``None`` for none.

    Each key has one address: what :func:`written` would not have written stands for none.
    """
    if not part.startswith("~"):
        found = part
    else:
        coded = part[1:]
        try:
            found = base64.b64decode(
                coded + "=" * (-len(coded) % 4), altchars=b"-_", validate=True
            ).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
        if written(found) != part:
            return None
    return found


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses of all pages, as one finds them from the root of the host."""

    mount: str
    """Where the pages are mounted, percent-encoded, without a slash at the end."""
    static_hash: str

    @classmethod
    def below(cls, root_path: str, static_hash: str) -> Addresses:
        """Those of an application that is mounted there."""
        # Two slashes would begin the name of another host.
        path = quote("/".join(part for part in root_path.split("/") if part))
        return cls(f"/{path}" if path else "", static_hash)

    def sessions(self, query: Query = ()) -> str:
        """The list."""
        return self._to("/", query)

    def live(self, query: Query = ()) -> str:
        """What changes in the list, as server-sent events."""
        return self._to("/live", query)

    def figures(self, query: Query = ()) -> str:
        """Usage and cost."""
        return self._to("/figures", query)

    def csv(self, table: str, query: Query = ()) -> str:
        """A table of the figures."""
        return self._to(f"/figures/{quote(table, safe='')}.csv", query)

    def static(self, name: str) -> str:
        """A file of the pages' own."""
        return self._to(f"/static/{self.static_hash}/{name}")

    def session(self, key: SessionKey, query: Query = (), *, at: str = "") -> str:
        """The page of a session; ``at`` is what to go to there, such as ``e123``."""
        return self.within(key, "", query, at=at)

    def within(self, key: SessionKey, rest: str, query: Query = (), *, at: str = "") -> str:
        """An address below that of a session, such as ``e/123.json``."""
        below = f"/{rest}" if rest else ""
        place = f"/s/{written(key['project_key'])}/{written(key['session_id'])}{below}"
        return self._to(place, query) + (f"#{quote(at, safe='')}" if at else "")

    def entry(self, key: SessionKey, seq: int) -> str:
        """The place of an entry in its session's page."""
        return self.session(key, [("at", seq)], at=f"e{seq}")

    def _to(self, path: str, query: Query = ()) -> str:
        said = urlencode([(name, str(value)) for name, value in query if value not in (None, "")])
        return f"{self.mount}{path}" + (f"?{said}" if said else "")
