"""The index of an export about one subject: a page that a person can read without any tool."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any
from urllib.parse import quote

from ..reading.listings import SessionListing
from ..stored_times import moment_of_ms
from ..text import line


@dataclass(frozen=True, slots=True)
class IndexedSession:
    """A session that was written, and where."""

    listing: SessionListing
    paths: tuple[str, ...]
    """Its files below the folder, that of the session itself first."""


def index_page(tenant: str, subject: Mapping[str, Any], sessions: Sequence[IndexedSession]) -> str:
    """The index as HTML, which loads nothing and runs nothing; the latest session comes first."""
    latest = sorted(
        sessions,
        key=lambda each: (-(each.listing.mtime or 0), each.listing.project_key, each.paths),
    )
    about = ", ".join(f"{name} = {json.dumps(value)}" for name, value in subject.items())
    count = "1 conversation" if len(sessions) == 1 else f"{len(sessions):,} conversations"
    rows = "\n".join(map(_row, latest))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>What is stored</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ border-bottom: 1px solid #bbb; padding: .4rem; text-align: left; vertical-align: top }}
</style>
</head>
<body>
<h1>What is stored</h1>
<p>{count} with an assistant, found by <b>{escape(line(about))}</b> with tenant
<b>{escape(line(tenant))}</b>. Each file holds one conversation, or the part of it that a helper of
the assistant had; in a .jsonl file each line is one message or event, as JSON.</p>
<table>
<thead>
<tr><th>Last changed (UTC)</th><th>Conversation</th><th>Project</th><th>Files</th></tr>
</thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""


def _row(session: IndexedSession) -> str:
    listing = session.listing
    links = "<br>".join(
        f'<a href="{escape(quote(path))}">{escape(line(path))}</a>' for path in session.paths
    )
    title = line(listing.title or listing.session_id)
    return (
        f"<tr><td>{_changed(listing.mtime)}</td><td>{escape(title)}</td>"
        f"<td>{escape(line(listing.project_key))}</td><td>{links}</td></tr>"
    )


def _changed(mtime: int | None) -> str:
    at: datetime | None = None if mtime is None else moment_of_ms(mtime)
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"
