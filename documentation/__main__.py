"""``python -m documentation [build | serve]``, as `make docs` and `make docs-serve` run it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

from .built import faults_of
from .staging import HTML, ROOT, stage

_PAUSE = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m documentation", description=__doc__)
    parser.add_argument("action", choices=["build", "serve"], nargs="?", default="build")
    action: str = parser.parse_args().action
    stage(ROOT)
    return _serve() if action == "serve" else _build()


def _build() -> int:
    if _zensical("build", "--clean", "--strict").wait():
        return 1
    faults = faults_of(HTML)
    for fault in faults:
        print(fault, file=sys.stderr)
    pages = sum(1 for _ in HTML.rglob("*.html"))
    print(f"{pages} pages in {HTML}: {len(faults) or 'no'} faults")
    return 1 if faults else 0


def _serve() -> int:
    ended = Event()

    def follow() -> None:
        while not ended.wait(_PAUSE):
            stage(ROOT)

    server = _zensical("serve")
    Thread(target=follow, daemon=True).start()
    try:
        return server.wait()
    except KeyboardInterrupt:
        return server.wait()
    finally:
        ended.set()


def _zensical(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([Path(sys.executable).with_name("zensical"), *arguments], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
