"""Wrapping keys in a file of the host's."""

from __future__ import annotations

import base64
import os
import re
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import InvalidKeyFileError, KeyServiceError, WrongKeyError
from ..text import shown
from .key_service import WrappedKey, context_bytes

_WRAPPING_BYTES = 32
_NONCE_BYTES = 12
_OWNER_ALONE = 0o600
_MOST_BYTES = 1024 * 1024
_LINE = re.compile(r"([0-9a-f]{16}) ([A-Za-z0-9_-]{43}=)")
_HEAD = (
    "# Keys that wrap the data keys of beanie-session-store, one a line.\n"
    "# The last one wraps what is new; the others unwrap what is old.\n"
    "# Whoever has this file and the database can read all of it. Without this file nobody can.\n"
)


class LocalKeys:
    """A key service of a file, which its owner alone may read: ``LocalKeys("/run/secrets/keys")``.

    The file has one wrapping key or several, of which the last one wraps what is new. It is read
    again when something new is wrapped, or when a key is missing, so processes that run take up
    what :meth:`add` adds.

    Args:
        path: the file, as :meth:`generate` or ``session-store keys new`` makes it.

    Raises:
        InvalidKeyFileError: it is no such file, or others than its owner may read it.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._keys = _read(self._path)

    def __repr__(self) -> str:
        return f"LocalKeys({str(self._path)!r})"

    def __reduce__(self) -> tuple[type[LocalKeys], tuple[str]]:
        # What is pickled for another process holds no key.
        return type(self), (str(self._path),)

    @classmethod
    def generate(cls, path: Path | str) -> LocalKeys:
        """Make a file with one new key, readable by its owner alone.

        Raises:
            InvalidKeyFileError: there is something of that name; it is left as it is.
            OSError: it cannot be made.
        """
        file = Path(path)
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ALONE)
        except FileExistsError:
            raise InvalidKeyFileError(
                f"{file} is there already, and what it may unwrap would be lost with it; it was "
                "left as it is. Name another file, or add a key to this one: LocalKeys(...).add()."
            ) from None
        _write(handle, _HEAD + _new_line())
        _sync_folder(file)
        return cls(file)

    def add(self) -> None:
        """Add a key, which wraps what is new from now on; those before it still unwrap.

        Then ``session-store keys rotate`` wraps all data keys anew, and those before it may go.

        Raises:
            InvalidKeyFileError: the file is none any more.
            OSError: it cannot be written.
        """
        _read(self._path)
        written = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        handle = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ALONE)
        try:
            text = self._path.read_text("ascii")
            _write(handle, text if text.endswith("\n") else f"{text}\n", _new_line())
            written.replace(self._path)
        except BaseException:
            with suppress(OSError):
                written.unlink()
            raise
        _sync_folder(self._path)
        self._keys = _read(self._path)

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> WrappedKey:
        """As :meth:`KeyService.wrap`."""
        self._read_again()
        name = next(reversed(self._keys))
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._keys[name].encrypt(nonce, key, context_bytes(context))
        return WrappedKey(name, nonce + sealed)

    async def unwrap(self, wrapped: WrappedKey, context: Mapping[str, str]) -> bytes:
        """As :meth:`KeyService.unwrap`."""
        if wrapped.wrapped_by not in self._keys:
            self._read_again()
        found = self._keys.get(wrapped.wrapped_by)
        if found is None:
            raise WrongKeyError(
                f"A data key was wrapped by the key {shown(wrapped.wrapped_by, 80)}, which is not "
                f"in {self._path}; nothing was read or changed. Use the file that has it."
            )
        data = wrapped.data
        try:
            return found.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context_bytes(context))
        except (InvalidTag, ValueError):
            raise WrongKeyError(
                f"A data key cannot be unwrapped with the key {wrapped.wrapped_by} of "
                f"{self._path}: it was wrapped for somebody else, or is damaged; nothing was read "
                "or changed. Restore the collection of keys from a backup."
            ) from None

    def _read_again(self) -> None:
        try:
            self._keys = _read(self._path)
        except OSError as error:
            raise KeyServiceError(
                f"The file of keys {self._path} cannot be read any more ({error.strerror}); "
                "nothing was changed. Put it back, readable by its owner, and try again."
            ) from error


def _read(path: Path) -> dict[str, AESGCM]:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            raise _no_key_file(path)
        if os.name == "posix" and status.st_mode & 0o077:
            raise InvalidKeyFileError(
                f"{path} may be read by others than its owner (its mode is "
                f"{stat.S_IMODE(status.st_mode):04o}); no key was used. Run chmod 600 on it, and "
                "take its keys for known if others were on this host."
            )
        text = file.read(_MOST_BYTES + 1).decode("ascii", "replace")
    keys: dict[str, AESGCM] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        parts = _LINE.fullmatch(line.strip())
        if parts is None or parts[1] in keys:
            raise _no_key_file(path)
        keys[parts[1]] = AESGCM(base64.urlsafe_b64decode(parts[2]))
    if not keys:
        raise _no_key_file(path)
    return keys


def _no_key_file(path: Path) -> InvalidKeyFileError:
    # What it holds may be a key with a letter missing: none of it is repeated.
    return InvalidKeyFileError(
        f"{path} is no file of keys; nothing was read or changed. Make one with session-store keys "
        "new FILE, or restore it from a backup."
    )


def _new_line() -> str:
    key = base64.urlsafe_b64encode(secrets.token_bytes(_WRAPPING_BYTES)).decode("ascii")
    return f"{secrets.token_hex(8)} {key}\n"


def _write(handle: int, *texts: str) -> None:
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.writelines(texts)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
