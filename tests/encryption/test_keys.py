"""Keys in a file: for their owner alone, never overwritten, and never shown."""

from __future__ import annotations

import asyncio
import pickle
import secrets
from pathlib import Path

import pytest
from bson import ObjectId
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from beanie_session_store import InvalidKeyFileError, WrongKeyError
from beanie_session_store.app.encryption.seal import _PURPOSE, Sealed, SessionCipher
from beanie_session_store.app.transcript_key import TranscriptKey
from beanie_session_store.encryption import Encryption, KeyService, LocalKeys
from beanie_session_store.testing import KeyServiceContract

CONTEXT = {"tenant": "acme"}


class TestLocalKeys(KeyServiceContract):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        self.file, self.other = tmp_path / "keys", tmp_path / "other"
        LocalKeys.generate(self.file)
        LocalKeys.generate(self.other)

    def service(self) -> KeyService:
        return LocalKeys(self.file)

    def stranger(self) -> KeyService:
        return LocalKeys(self.other)


def test_a_file_of_keys_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    LocalKeys.generate(file)
    assert file.stat().st_mode & 0o777 == 0o600
    LocalKeys(file).add()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize("what", ["keys", "text", "folder", "link"])
def test_nothing_is_overwritten(tmp_path: Path, what: str) -> None:
    file = tmp_path / "keys"
    if what == "keys":
        LocalKeys.generate(file)
    elif what == "text":
        file.write_text("precious")
    elif what == "folder":
        file.mkdir()
    else:
        file.symlink_to(tmp_path / "nowhere")
    before = file.read_bytes() if what in ("keys", "text") else None
    with pytest.raises(InvalidKeyFileError, match="left as it is"):
        LocalKeys.generate(file)
    assert (file.read_bytes() if before is not None else None) == before
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "keys"
    LocalKeys.generate(file)
    file.chmod(mode)
    with pytest.raises(InvalidKeyFileError, match="chmod 600"):
        LocalKeys(file)


SECRET = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA"


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", SECRET, f"0123456789abcdef {SECRET}", f"x {SECRET}=\n", "\xff\0"]
)
def test_what_is_no_file_of_keys_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.touch(0o600)
    file.write_text(text)
    with pytest.raises(InvalidKeyFileError) as caught:
        LocalKeys(file)
    assert SECRET not in str(caught.value)


def test_a_process_that_runs_takes_up_an_added_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    running = LocalKeys.generate(file)
    key = secrets.token_bytes(32)
    old = asyncio.run(running.wrap(key, CONTEXT))
    LocalKeys(file).add()
    new = asyncio.run(LocalKeys(file).wrap(key, CONTEXT))
    assert new.wrapped_by != old.wrapped_by
    assert asyncio.run(running.unwrap(new, CONTEXT)) == key
    assert asyncio.run(running.unwrap(old, CONTEXT)) == key
    assert asyncio.run(running.wrap(key, CONTEXT)).wrapped_by == new.wrapped_by


def test_nothing_shows_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    keys = LocalKeys.generate(file)
    shown = [line.split()[1] for line in file.read_text().splitlines() if line[0] != "#"]
    encryption = Encryption(keys, subject="user_id")
    key = secrets.token_bytes(32)
    wrapped = asyncio.run(keys.wrap(key, CONTEXT))
    for each in (repr(keys), repr(encryption), repr(wrapped), str(pickle.dumps(keys))):
        assert not any(secret in each for secret in (*shown, repr(key), key.hex()))
    with pytest.raises(WrongKeyError) as caught:
        asyncio.run(keys.unwrap(wrapped, {"tenant": "other"}))
    assert caught.value.__cause__ is None
    assert repr(wrapped.data) not in str(caught.value)
    assert asyncio.run(pickle.loads(pickle.dumps(keys)).unwrap(wrapped, CONTEXT)) == key


def test_the_key_of_a_session_is_hkdf_of_the_data_key() -> None:
    key, session = secrets.token_bytes(32), TranscriptKey("acme", "project", "session")
    cipher = SessionCipher(ObjectId(), key, session)
    owner = b"".join(len(n).to_bytes(4, "big") + n for n in (b"acme", b"project", b"session"))
    derived = HKDFExpand(SHA256(), 32, _PURPOSE + owner).derive(key)
    sealed = cipher.main.seal(Sealed.ENTRY, 7, b"said")
    place = b"\x02\x01\x01" + owner + bytes(4) + (7).to_bytes(8, "big") + bytes(4) + b"\0\0\0\1"
    assert AESGCM(derived).decrypt(sealed[14:26], sealed[26:], place) == b"said"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"keys": None}, TypeError),
        ({"keys": "/a/file"}, TypeError),
        ({"keys": LocalKeys}, TypeError),
        ({"subject": 1}, TypeError),
        ({"subject": ""}, ValueError),
        ({"subject": "a.b"}, ValueError),
        ({"subject": "$a"}, ValueError),
        ({"required": 1}, TypeError),
        ({"required": None}, TypeError),
        ({"cache": 5}, TypeError),
        ({"database": "mongodb://localhost"}, TypeError),
    ],
)
def test_what_is_no_argument_is_refused(
    tmp_path: Path, arguments: dict[str, object], error: type[Exception]
) -> None:
    keys = LocalKeys.generate(tmp_path / "keys")
    with pytest.raises(error):
        Encryption(**{"keys": keys, **arguments})  # type: ignore[arg-type]
