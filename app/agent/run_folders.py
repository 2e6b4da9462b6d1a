"""A folder for each run: gone when the run is over, and at the next start if it was killed.

A run holds a lock on a file beside its folder, which the system lets go of when the process ends,
however it ends. So a folder whose lock is free, or that has none, is of nobody any more.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what a killed run left stays until the system tidies up.
    fcntl = None

_LOCK = ".lock"
_TRIES = 20


class RunFolder:
    """A new folder that only its owner may enter.

    Args:
        kind: what the folders are of, a plain name; those of one kind are swept together.

    Raises:
        OSError: it cannot be made, or what has its name belongs to somebody else.
    """

    def __init__(self, kind: str) -> None:
        root = _root(kind)
        _sweep(root)
        for _ in range(_TRIES):
            name = f"run-{os.urandom(8).hex()}"
            lock = locked(root / (name + _LOCK))
            if lock is not None:
                break
        else:
            raise OSError(f"Could not lock a file in {root}; are others removing files there?")
        self._lock = lock
        self._lock_path = root / (name + _LOCK)
        self.path = root / name
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove the folder with all that is in it; what is still written there goes next time."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self._lock_path.unlink()
        os.close(self._lock)


def _root(kind: str) -> Path:
    owner = os.getuid() if hasattr(os, "getuid") else 0
    root = Path(tempfile.gettempdir()) / f"{kind}-{owner}"
    with suppress(FileExistsError):
        root.mkdir(mode=0o700)
    status = root.lstat()
    # Anybody may make a folder, or a link, of that name in a place that is everybody's.
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != owner):
        raise PermissionError(
            f"{root} is not a folder of this user, so nothing is put there. Remove it, or set "
            "TMPDIR to another place."
        )
    if stat.S_IMODE(status.st_mode) != 0o700:
        root.chmod(0o700)
    return root


def _sweep(root: Path) -> None:
    """Remove the folders of runs that are over."""
    if fcntl is None:
        return
    names = {path.name.removesuffix(_LOCK) for path in root.iterdir()}
    for name in names:
        path = root / (name + _LOCK)
        lock = locked(path, may_exist=True)
        if lock is not None:
            shutil.rmtree(root / name, ignore_errors=True)
            with suppress(OSError):
                path.unlink()
            os.close(lock)


def locked(path: Path, *, may_exist: bool = False) -> int | None:
    """A file's descriptor with the lock; ``None`` where another process has it.

    The file is made, unless it ``may_exist`` already.
    """
    flags = os.O_RDWR | os.O_CREAT | (0 if may_exist else os.O_EXCL)
    try:
        lock = os.open(path, flags, 0o600)
    except OSError:
        return None
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A sweep may have removed the file between the two calls.
        if os.fstat(lock).st_ino == path.stat().st_ino:
            return lock
    except OSError:
        with suppress(OSError):
            os.close(lock)
        return None
    os.close(lock)
    return None
