"""What every key service must do, as tests for a team's own."""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping

from ..app.encryption.key_service import KeyService, WrappedKey
from ..app.errors import WrongKeyError

_CONTEXT = {"purpose": "beanie-session-store", "tenant": "acme", "key": "1"}


class KeyServiceContract(ABC):
    """Tests of a key service: subclass it in a module of tests, and say how one is made.

    class TestVaultKeys(KeyServiceContract):
        def service(self) -> KeyService:
            return VaultKeys(...)

        def stranger(self) -> KeyService:
            return VaultKeys(..., key="another")
    """

    @abstractmethod
    def service(self) -> KeyService:
        """The service, made anew, of the same wrapping key each time."""

    @abstractmethod
    def stranger(self) -> KeyService:
        """A service that has other wrapping keys."""

    def test_a_key_comes_back(self) -> None:
        """As it was, also from a service that was made anew."""
        key = secrets.token_bytes(32)
        wrapped = asyncio.run(self.service().wrap(key, _CONTEXT))
        assert asyncio.run(self.service().unwrap(wrapped, _CONTEXT)) == key

    def test_what_is_wrapped_is_what_can_be_stored(self) -> None:
        """It does not hold the key, and has the name of what wrapped it."""
        key = secrets.token_bytes(32)
        wrapped = asyncio.run(self.service().wrap(key, _CONTEXT))
        assert isinstance(wrapped.data, bytes)
        assert 0 < len(wrapped.data) <= 64 * 1024
        assert key not in wrapped.data
        assert isinstance(wrapped.wrapped_by, str)
        assert 0 < len(wrapped.wrapped_by) <= 256
        again = asyncio.run(self.service().wrap(secrets.token_bytes(32), _CONTEXT))
        assert again.wrapped_by == wrapped.wrapped_by

    def test_nothing_is_wrapped_alike_twice(self) -> None:
        """Else two keys that are the same could be told from others."""
        key = secrets.token_bytes(32)
        service = self.service()

        async def twice() -> list[WrappedKey]:
            return [await service.wrap(key, _CONTEXT) for _ in range(2)]

        first, second = asyncio.run(twice())
        assert first.data != second.data

    def test_a_key_of_another_is_refused(self) -> None:
        """What was wrapped for one tenant or key does not unwrap for another."""
        service = self.service()
        wrapped = asyncio.run(service.wrap(secrets.token_bytes(32), _CONTEXT))
        for name in _CONTEXT:
            assert self._refuses(self.service(), wrapped, {**_CONTEXT, name: "other"})

    def test_another_service_refuses(self) -> None:
        """One without the wrapping key cannot unwrap."""
        wrapped = asyncio.run(self.service().wrap(secrets.token_bytes(32), _CONTEXT))
        assert self._refuses(self.stranger(), wrapped, _CONTEXT)

    def test_what_is_damaged_is_refused(self) -> None:
        """Changed anywhere, or cut."""
        wrapped = asyncio.run(self.service().wrap(secrets.token_bytes(32), _CONTEXT))
        data = wrapped.data
        changed = bytes((data[-1] ^ 1,))
        for damaged in (data[:-1] + changed, data[:-1], data[:10], b""):
            assert self._refuses(self.service(), wrapped._replace(data=damaged), _CONTEXT)

    @staticmethod
    def _refuses(service: KeyService, wrapped: WrappedKey, context: Mapping[str, str]) -> bool:
        try:
            asyncio.run(service.unwrap(wrapped, context))
        except WrongKeyError:
            return True
        return False
