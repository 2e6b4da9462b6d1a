"""Runs SecantusDB until standard input ends: ``python serve.py DIRECTORY``.

The shipped daemon looks for expired documents once a minute, and must be told a port. This
program runs the same server, prints its URL, and cannot outlive who started it.
"""

from __future__ import annotations

import os
import sys

from secantus import SecantusDBServer


def main(directory: str) -> None:
    server = SecantusDBServer(storage_path=directory, ttl_sweep_seconds=1)
    server.start()
    print(server.uri, flush=True)
    sys.stdin.read()
    # Its data is thrown away, and an orderly stop may wait for writes that never end.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
