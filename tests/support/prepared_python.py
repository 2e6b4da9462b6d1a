"""What a process that :mod:`.processes` asks for is a fork of: Python with all imports done.

Run as a program, with the file descriptor of the socket by which it is asked. Its children run
code as ``python -c`` does or a file as ``python -I`` does, and end as Python ends.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import sys
from types import ModuleType
from typing import Any


def next_job(asked: socket.socket) -> dict[str, Any]:
    """Fork for each job; return the job in the process that is to do it."""
    while True:
        size, standard, _, _ = socket.recv_fds(asked, 8, 3)
        if not size:
            os._exit(0)
        job = json.loads(asked.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        reading, writing = os.pipe()
        between = os.fork()
        if not between:
            child = os.fork()
            if child:
                os.write(writing, child.to_bytes(4, "big"))
                os._exit(0)
            for number, fd in enumerate(standard):
                os.dup2(fd, number)
            for fd in (*standard, reading, writing):
                os.close(fd)
            asked.close()
            return job
        for fd in (*standard, writing):
            os.close(fd)
        # With the process in between gone, the child is a child of whoever asked.
        os.waitpid(between, 0)
        asked.sendall(os.read(reading, 4))
        os.close(reading)


def run(job: dict[str, Any]) -> None:
    """Do the job, in a process made what it would be, had it been started for that."""
    if job["starts_session"]:
        os.setsid()
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    sys.modules["__main__"] = ModuleType("__main__")
    if job["option"] == "-c":
        sys.argv[:] = ["-c", *job["arguments"]]
        sys.path[0] = ""
        code = compile(job["program"], "<string>", "exec", dont_inherit=True)
        exec(code, sys.modules["__main__"].__dict__)
    else:
        sys.argv[:] = [job["program"], *job["arguments"]]
        del sys.path[0]
        runpy.run_path(job["program"], run_name="__main__")


if __name__ == "__main__":
    import beanie_session_store
    from beanie_session_store.app.cli.root import load_commands
    from beanie_session_store.app.sdk import preload

    for name in beanie_session_store.__all__:
        getattr(beanie_session_store, name)
    load_commands()
    preload()
    # Else each child would copy and look through all of it when it ends.
    gc.collect()
    gc.freeze()
    run(next_job(socket.socket(fileno=int(sys.argv[1]))))
