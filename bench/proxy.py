"""A slow network: a TCP proxy on loopback that holds back what passes through it.

Half of the delay is added on the way to the server and half on the way back, so that a round
trip takes as much longer as asked. It runs in a process of its own, lest its processor time be
taken for that of the client.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

_CHUNK = 1 << 20


@contextlib.contextmanager
def delayed(port: int, milliseconds: float) -> Iterator[int]:
    """A port of 127.0.0.1 that leads to ``port`` with ``milliseconds`` more per round trip."""
    command = [sys.executable, __file__, str(port), str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def _serve(port: int, seconds: float) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            client, _ = server.accept()
            target = socket.create_connection(("127.0.0.1", port))
            for source, sink in ((client, target), (target, client)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # A line of its own, so that a long message is held back once and not per piece.
                line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                _start(_receive, source, line, seconds)
                _start(_send, sink, line)


def _start(work: object, *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def _receive(
    source: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]], seconds: float
) -> None:
    data = b"more"
    while data:
        try:
            data = source.recv(_CHUNK)
        except OSError:
            data = b""
        line.put((time.perf_counter() + seconds, data))


def _send(sink: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    with contextlib.suppress(OSError):
        while True:
            due, data = line.get()
            left = due - time.perf_counter()
            if left > 0:
                time.sleep(left)
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)


if __name__ == "__main__":
    # A thread that wakes up on time must not wait for another one to give way.
    sys.setswitchinterval(0.0002)
    with contextlib.suppress(KeyboardInterrupt):
        _serve(int(sys.argv[1]), float(sys.argv[2]) / 2000)
