"""Encrypting what is said in sessions, before it leaves the process.

Give it to the store::

    from beanie_session_store.encryption import Encryption, LocalKeys

    encryption = Encryption(LocalKeys("/run/secrets/session-keys"), subject="user_id")
    store = BeanieSessionStore(tenant="acme", metadata={"user_id": "u1"}, encryption=encryption)
"""

try:
    import cryptography  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ModuleNotFoundError as missing:
    raise ImportError(
        f"beanie_session_store.encryption needs {missing.name}, which is not installed. Install it "
        "with `pip install 'beanie-session-store[encryption]'`."
    ) from missing

from .app.encryption.encryption import Encryption
from .app.encryption.key_service import KeyService, WrappedKey
from .app.encryption.keyring import KeyStatus, Rotation
from .app.encryption.local_keys import LocalKeys

__all__ = ["Encryption", "KeyService", "KeyStatus", "LocalKeys", "Rotation", "WrappedKey"]
