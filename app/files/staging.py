"""Files that appear together and whole, or not at all, and nowhere but in their folder."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

from ..errors import TransferError
from .private_files import create_private_file, make_private_folder

_UNFINISHED = ".partial"


@dataclass(slots=True)
class _Staged:
    partial: Path
    final: Path
    file: BinaryIO
    identity: tuple[int, ...] = ()
    """Which file it is, once it is closed; another export may take its name away."""

    def close(self) -> None:
        if not self.file.closed:
            try:
                self.file.flush()
                self.identity = _identity(os.fstat(self.file.fileno()))
            finally:
                self.file.close()

    def is_its_own(self) -> bool:
        """Whether the file that has the name is still this one."""
        try:
            return _identity(self.partial.stat()) == self.identity
        except FileNotFoundError:
            return False


def _identity(status: os.stat_result) -> tuple[int, ...]:
    # The number of a file alone is given to the next one.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class StagedFiles:
    """Files under other names until :meth:`publish`; what was not published is gone at exit.

    Args:
        root: the folder that no file leaves; it must be there.
        overwrite: replace files that are there.
    """

    def __init__(self, root: Path, *, overwrite: bool) -> None:
        self._root = root
        self._overwrite = overwrite
        self._staged: list[_Staged] = []

    def create(self, path: PurePosixPath) -> BinaryIO:
        """A new file, which only its owner may read, as the agent's own are.

        It closes the one before: a session may have more files than a process may have open.

        Raises:
            TransferError: a file of that name is there, or the folder leads elsewhere.
            OSError: it cannot be made.
        """
        self._close()
        final = self._root / path
        # A link that somebody put there would lead out of the folder.
        if not final.parent.resolve().is_relative_to(self._root.resolve()):
            raise TransferError(f"{final.parent} is a link out of {self._root}; not written")
        self._require_free(final)
        make_private_folder(final.parent)
        partial = final.with_name(final.name + _UNFINISHED)
        partial.unlink(missing_ok=True)
        file = create_private_file(partial, buffering=256 * 1024)
        self._staged.append(_Staged(partial, final, file))
        return file

    def publish(self, mtime: int | None) -> list[Path]:
        """Give the files their names, the last one created last, and return their paths.

        ``mtime`` is the time of the last one, epoch milliseconds.

        Raises:
            TransferError: a file of such a name has come meanwhile, or another export writes
                the same ones.
            OSError: one cannot be renamed.
        """
        self._close()
        for each in self._staged:
            self._require_free(each.final)
            if not each.is_its_own():
                raise TransferError(f"{each.final} is written by another export too; not written")
        published = [each.final for each in self._staged]
        if mtime is not None and self._staged:
            # A file has no time of the year 58875, which a wrong clock gives.
            with contextlib.suppress(OverflowError, OSError):
                os.utime(self._staged[-1].partial, ns=(mtime * 1_000_000, mtime * 1_000_000))
        while self._staged:
            self._staged[0].partial.replace(self._staged[0].final)
            del self._staged[0]
        return published

    def __enter__(self) -> StagedFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A full disk says so once more at the flush of what is thrown away.
        with contextlib.suppress(OSError):
            self._close()
        for each in self._staged:
            # Without an identity it was not even closed, on a disk that is full.
            if not each.identity or each.is_its_own():
                each.partial.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._staged:
            self._staged[-1].close()

    def _require_free(self, final: Path) -> None:
        if final.is_dir():
            raise TransferError(f"{final} is a folder; not written")
        # A link is there too, even one that leads to nothing.
        if not self._overwrite and os.path.lexists(final):
            raise TransferError(f"{final} is there already; not written")
