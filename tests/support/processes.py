"""Processes of Python that have begun already: forks of one that has imported everything.

To start Python and to import takes longer than nearly all of what tests have processes do. How
long that takes and what it imports is for :mod:`tests.test_startup`, which starts it anew.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

PREPARED = f"{sys.executable}, prepared" if sys.platform == "linux" else sys.executable
"""In place of ``sys.executable`` before ``-c`` or ``-I`` and a file, for users of ``Popen``."""

_PR_SET_CHILD_SUBREAPER = 36

_one_at_a_time = threading.Lock()


@cache
def _prepared() -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        program = Path(__file__).with_name("prepared_python.py")
        process = subprocess.Popen(
            [sys.executable, str(program), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _forked(job: dict[str, Any], standard: list[int]) -> int:
    """The id of a new child of this process, with these as its stdin, stdout and stderr."""
    text = json.dumps(job).encode()
    with _one_at_a_time:
        asking = _prepared()
        # What loses its parent meanwhile is ours; afterwards it is again the system's.
        adopt = ctypes.CDLL(None, use_errno=True).prctl
        adopt(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            socket.send_fds(asking, [len(text).to_bytes(8, "big")], standard)
            asking.sendall(text)
            return int.from_bytes(asking.recv(4, socket.MSG_WAITALL), "big")
        finally:
            adopt(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class _Popen(subprocess.Popen[Any]):
    def _execute_child(self, args: Any, *more: Any) -> None:
        if sys.executable == PREPARED or not isinstance(args, list | tuple) or args[0] != PREPARED:
            super()._execute_child(args, *more)  # type: ignore[misc]
            return
        _, preexec_fn, _, pass_fds, cwd, env = more[:6]
        assert (preexec_fn, pass_fds) == (None, ())
        job = {
            "option": args[1],
            "program": os.fspath(args[2]),
            "arguments": list(map(os.fspath, args[3:])),
            "starts_session": more[20],
            "cwd": os.fspath(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
        }
        # As pairs: where a stream ends here, and there; -1 where the child has what we have.
        ends = more[9:15]
        theirs = ends[0], ends[3], ends[5]
        standard = [number if end == -1 else end for number, end in enumerate(theirs)]
        try:
            self.pid = _forked(job, standard)
            self._child_created = True
        finally:
            self._close_pipe_fds(*ends)  # type: ignore[attr-defined]


subprocess.Popen = _Popen  # type: ignore[misc]
