"""Runs ``mongod`` servers until its parent says stop, or is gone, however it ended.

It is run as a script, in a process of its own, and imports nothing of the package: the parent
may be killed at any time, and this must neither be slow to start nor able to fail. It may be killed
itself: on Linux the kernel then ends the servers; elsewhere they go on.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

_LOOK_SECONDS = 0.5
_SET_PARENT_DEATH_SIGNAL = 1


def main() -> None:
    """Start the servers that the first argument describes as JSON, and keep them."""
    job = json.loads(sys.argv[1])
    children: list[subprocess.Popen[bytes]] = []
    was_told = is_alone = False

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
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        # Safe, for there are no threads yet.
                        preexec_fn=_bound_to(os.getpid()),
                    )
                )
        print(json.dumps([child.pid for child in children]), flush=True)
        for index in range(len(children)):
            threading.Thread(target=report, args=(index,), daemon=True).start()
        was_told = _is_told(job["parent"])
        is_alone = not was_told
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for child in children:
            # A clean end takes seconds in which nobody can start it anew, as may a parent that was
            # killed and comes back; the journal has all that was acknowledged.
            if is_alone:
                child.kill()
            else:
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


def _is_told(parent: int) -> bool:
    """Wait for the order to stop, or for the parent's end, which is none."""
    # A pipe tells of that end only where no child that the parent forked holds it open as well.
    while sys.platform != "win32" and not select.select([0], [], [], _LOOK_SECONDS)[0]:
        if os.getppid() != parent:
            return False
    return bool(os.read(0, 1))


def _bound_to(supervisor: int) -> Callable[[], None] | None:
    """What a server does between fork and exec, so that it never outlives its supervisor."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        set_option = ctypes.CDLL(None, use_errno=True).prctl
    except (ImportError, OSError, AttributeError):
        return None

    def bind() -> None:
        # The signal comes when the thread ends that forked, and that is the supervisor's main one.
        set_option(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        # It may have ended just before.
        if os.getppid() != supervisor:
            os._exit(1)

    return bind


if __name__ == "__main__":
    main()
