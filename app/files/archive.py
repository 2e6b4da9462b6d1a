"""The agent's files of many sessions in one compressed archive."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, BinaryIO

from ..errors import TransferError
from .layout import LINES, SIDECAR, file_key, transcript_path

ENDINGS = (".tar.gz", ".tgz")
_PIECE_BYTES = 1024 * 1024
# One member is a file where another one has a folder, or lies too deep.
_NO_PLACE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


class ArchiveWriter:
    """Moves files into an archive that is written from its start to its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w|gz", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        # Whoever is cancelled leaves a thread behind that is still at it.
        self._one_at_a_time = Lock()

    def move(self, root: Path, paths: Sequence[Path]) -> None:
        """Add files by their paths below ``root``, and remove them."""
        with self._one_at_a_time:
            for path in paths:
                self._tar.add(path, path.relative_to(root).as_posix(), filter=_anonymous)
                path.unlink()
            _forget_members(self._tar)

    def close(self) -> None:
        """Write the end."""
        with self._one_at_a_time:
            self._tar.close()


@contextmanager
def unpacked(archive: Path) -> Generator[Path]:
    """A folder of projects with the transcripts of an archive; gone at exit.

    What is no transcript is left out, so nothing in the archive can name a place elsewhere.

    Raises:
        TransferError: it is no such archive, is damaged, or holds no transcripts.
        OSError: it cannot be read, or there is no room for what is in it.
    """
    with TemporaryDirectory(prefix="session-store-import-") as folder:
        root = Path(folder)
        try:
            # Through gzip, for tarfile alone takes a stream that is cut or damaged for a whole one.
            with gzip.open(archive) as stream:
                count = _extract_all(stream, root)
                while stream.read(_PIECE_BYTES):
                    pass
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise TransferError(f"{archive} is no readable .tar.gz archive: {error}") from None
        if not count:
            raise TransferError(f"{archive} holds no transcripts (<project key>/<id>{LINES}).")
        yield root


def _extract_all(stream: gzip.GzipFile, root: Path) -> int:
    count = 0
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            count += _extract(tar, member, root)
            _forget_members(tar)
    return count


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> bool:
    """Write one file below ``root``, if it is a part of a transcript."""
    key = file_key(PurePosixPath(member.name.removeprefix("./")))
    source = tar.extractfile(member) if key is not None and member.isfile() else None
    if key is None or source is None:
        return False
    try:
        path = root / transcript_path(*key)
    except TransferError:
        return False
    if member.name.endswith(SIDECAR):
        path = path.with_name(path.name.removesuffix(LINES) + SIDECAR)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.open("wb")
    except OSError as error:
        if error.errno in _NO_PLACE:
            return False
        raise
    with target:
        shutil.copyfileobj(source, target)
    # It can be any number, or none.
    with suppress(ValueError, OverflowError):
        # A float, which ends just short of the millisecond that it stands for.
        mtime = round(member.mtime * 1000) * 1_000_000
        os.utime(path, ns=(mtime, mtime))
    return True


def _forget_members(tar: Any) -> None:
    # It would remember every one, to tell hard links and to be asked again.
    tar.members.clear()
    tar.inodes.clear()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
