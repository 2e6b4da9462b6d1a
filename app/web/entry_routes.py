"""One entry: all that it says, page by page, as it is stored, and the pictures in it."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus

from starlette.responses import Response

from ...models.packing import full_stack
from ..errors import CorruptEntryError
from ..reading.glimpses import Glimpse
from ..text import plain
from .entry_texts import page_of_entry, texts_of_entry
from .pictures import Picture, picture_in
from .refusals import Refused, no_such_session
from .responses import attachment, page
from .viewer import PageRoute, Viewer


async def whole_entry(viewer: Viewer) -> Response:
    """All that an entry says, so many lines a page."""
    found = await _found(viewer)
    written = viewer.request.query_params.get("page", "1")
    number = int(written) if written.isascii() and written.isdigit() and len(written) < 9 else 1
    shown = await asyncio.to_thread(full_stack, lambda: page_of_entry(found.entry, number))
    links, key = viewer.links, viewer.session_key
    here = f"e/{found.seq}"

    def page_of(number: int) -> str:
        return links.within(key, here, [("page", number if number > 1 else None)])

    return page(
        viewer,
        "entry.html",
        key=key,
        entry=found,
        shown=shown,
        back=links.entry(key, found.seq),
        text=links.within(key, f"{here}/text"),
        json=links.within(key, f"{here}.json"),
        page_of=page_of,
    )


async def entry_json(viewer: Viewer) -> Response:
    """An entry as the agent wrote it, as a download."""
    found = await _found(viewer)

    def written() -> bytes:
        # Escaped, for not every text that JSON can hold can be written otherwise.
        return full_stack(lambda: json.dumps(found.entry)).encode()

    body = await asyncio.to_thread(written)
    return attachment(body, f"entry-{found.seq}.json", "application/json")


async def entry_text(viewer: Viewer) -> Response:
    """The texts of an entry, as a download."""
    found = await _found(viewer)

    def written() -> bytes:
        parts = [f"{each.name}\n\n{each.text}\n" for each in texts_of_entry(found.entry)]
        return plain("\n".join(parts)).encode("utf-8", "replace")

    body = await asyncio.to_thread(full_stack, written)
    return attachment(body, f"entry-{found.seq}.txt", "text/plain; charset=utf-8")


async def entry_picture(viewer: Viewer) -> Response:
    """A picture in an entry: shown if its bytes are of a type that is safe, else a download."""
    number = _number(viewer.request.path_params["number"])
    found = await _found(viewer)
    picture: Picture | None = await asyncio.to_thread(picture_in, found.entry, number)
    if picture is None:
        raise _no_such_part()
    name = f"entry-{found.seq}-{number}"
    if picture.safe_type is None:
        return attachment(picture.data, name, "application/octet-stream")
    headers = {"Content-Security-Policy": "default-src 'none'; sandbox"}
    return Response(picture.data, headers=headers, media_type=picture.safe_type)


async def _found(viewer: Viewer) -> Glimpse:
    seq = _number(viewer.request.path_params["seq"])
    try:
        found = await viewer.store.reader(viewer.session_key).entry(seq)
    except CorruptEntryError as error:
        raise Refused(
            HTTPStatus.INTERNAL_SERVER_ERROR, f"Entry {seq} cannot be read", plain(str(error))
        ) from None
    if found is None:
        if await viewer.store.summary(viewer.session_key) is None:
            raise no_such_session()
        raise _no_such_part()
    return found


def _number(written: str) -> int:
    if not written.isascii() or not written.isdigit() or len(written) > 15:
        raise _no_such_part()
    return int(written)


def _no_such_part() -> Refused:
    return Refused(
        HTTPStatus.NOT_FOUND,
        "There is no such entry",
        "The session has none of this number, or nothing of that kind in it.",
    )


_ENTRY = "/s/{project}/{session}/e/{seq}"

routes: list[PageRoute] = [
    # The longer paths first: a number takes in what ends in ".json" as well.
    PageRoute(f"{_ENTRY}.json", entry_json),
    PageRoute(f"{_ENTRY}/text", entry_text),
    PageRoute(f"{_ENTRY}/image/{{number}}", entry_picture),
    PageRoute(_ENTRY, whole_entry),
]
