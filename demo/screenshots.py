"""``python -m demo.screenshots``: the pictures of docs/web.md, by Debian's chromium.

They show the recorded sessions of a made-up shop.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"

_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_WIDE, _PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
_LOGIN = "Mend the login test"


def main() -> int:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        print("There is no chromium here; Debian has it as a package.", file=sys.stderr)
        return 2
    PICTURES.mkdir(exist_ok=True)
    with _look() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
        for name, size, scheme, go in (
            ("sessions", _WIDE, "light", lambda _: None),
            ("session", _WIDE, "light", _to_login),
            ("session-dark", _WIDE, "dark", _to_login),
            ("session-phone", _PHONE, "light", _to_login),
            ("figures", _WIDE, "light", _to_figures),
        ):
            with browser.new_context(viewport=size, color_scheme=scheme) as context:
                page = context.new_page()
                page.goto(address)
                go(page)
                page.wait_for_timeout(500)
                page.screenshot(path=PICTURES / f"{name}.png")
                print(PICTURES / f"{name}.png")
        browser.close()
    return 0


def _to_login(page: Any) -> None:
    page.get_by_role("link", name=_LOGIN).first.click()
    page.wait_for_url("**/s/**")


def _to_figures(page: Any) -> None:
    page.goto(f"{page.url.rstrip('/')}/figures?since=2026-10-05&until=2026-10-19")


@contextmanager
def _look() -> Iterator[str]:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "demo.look", "--port", "0", "--without-agent"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://"), "demo.look printed no address"
            yield address
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
