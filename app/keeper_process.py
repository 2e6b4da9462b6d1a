"""Runs ``mongod`` servers until its parent says stop, or is gone, however it ended.

It is run as a script, in a process of its own, and imports nothing of the package: the parent
may be killed at any time, and this must neither be slow to start nor able to fail.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    """Start the servers that the first argument describes as JSON, and keep them."""
    job = json.loads(sys.argv[1])
    children: list[subprocess.Popen[bytes]] = []
    was_told = False

    def report(index: int) -> None:
        code = children[index].wait()
        os.write(1, f"{index} {code}\n".encode())

    # What the servers write is their owner's alone, their logs included, which hold queries.
    os.umask(0o077)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for command, log in zip(job["commands"], job["logs"], strict=True):
            with Path(log).open("ab") as output:
                Path(log).chmod(0o600)
                children.append(
                    subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
                    )
                )
        print(json.dumps([child.pid for child in children]), flush=True)
        for index in range(len(children)):
            threading.Thread(target=report, args=(index,), daemon=True).start()
        # One byte is the order to stop; none means the parent is gone.
        was_told = bool(os.read(0, 1))
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for child in children:
            child.terminate()
        deadline = time.monotonic() + job["stop_seconds"]
        for child in children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        # The parent tidies up after an order; it may be unable to in every other case.
        if job["temporary"] and not was_told:
            shutil.rmtree(job["temporary"], ignore_errors=True)


if __name__ == "__main__":
    main()
