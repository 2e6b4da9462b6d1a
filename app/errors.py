"""The errors users can meet, as one tree under :class:`SessionStoreError`.

Each message says what happened, what it means for the data and what to do next.
No message ever contains a password: connection strings are named by host and port only.
"""

from __future__ import annotations

from datetime import datetime


class SessionStoreError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidKeyError(SessionStoreError, ValueError):
    """A tenant, project key, session id or subpath that cannot name a transcript."""


class InvalidEntryError(SessionStoreError, ValueError):
    """A transcript entry that is not a JSON object."""


class InvalidOptionsError(SessionStoreError, ValueError):
    """Options for the agent that a run of its own, or a checkout, cannot have."""


class InvalidMetadataError(SessionStoreError, ValueError):
    """Store metadata that cannot be kept as a MongoDB document or JSON object."""


class InvalidModelError(SessionStoreError, TypeError):
    """A Document class handed to the store that cannot hold what the store writes."""


class StoreOwnedError(SessionStoreError, TypeError):
    """A document that only the store writes was to be made, changed or removed past it."""


class ObserverError(SessionStoreError, TypeError):
    """A function for what was committed that cannot be called, or writes to what it observes."""


class InvalidURLError(SessionStoreError, ValueError):
    """A connection string that is malformed or names no database."""


class NotInitializedError(SessionStoreError, RuntimeError):
    """The store's Document classes were not given to ``init_beanie`` yet."""


class ClientClosedError(SessionStoreError, RuntimeError):
    """The MongoDB client behind the store was closed."""


class EventLoopError(SessionStoreError, RuntimeError):
    """The store was called outside asyncio, or in another loop or process than its client's."""


class DriverMismatchError(SessionStoreError, TypeError):
    """A database or client of another driver than the one the installed Beanie runs on."""


class StandaloneError(SessionStoreError):
    """The MongoDB server is no replica set, and what was asked for needs one."""


class UnreachableError(SessionStoreError, ConnectionError):
    """No MongoDB server that can take the operation was reached in time."""


class AccessDeniedError(SessionStoreError):
    """MongoDB refused the credentials, or they lack a permission the store needs."""


class ContentionError(SessionStoreError):
    """Other writers of the same session won every attempt until time ran out."""


class ServerError(SessionStoreError):
    """MongoDB refused an operation for a reason the store has no better name for."""


class InvalidLeaseError(SessionStoreError, ValueError):
    """What a lease cannot be asked for with."""


class SessionBusyError(SessionStoreError):
    """Somebody else holds the lease of the session, or has it checked out on this host."""

    def __init__(self, message: str, *, owner: str = "", until: datetime | None = None) -> None:
        super().__init__(message)
        self.owner = owner
        """Who holds it, in that one's own words."""
        self.until = until
        """When it ends unless it is renewed, UTC, by the server's clock."""


class LeaseLostError(SessionStoreError):
    """The lease that a store wrote under has ended; nothing is written under it any more."""


class SessionChangedError(SessionStoreError):
    """The session was deleted, or deleted and made anew, while it was being streamed."""


class FeedLostError(SessionStoreError):
    """A feed of sessions cannot go on, and what it missed cannot be told any more."""


class FeedOverrunError(SessionStoreError):
    """A feed of sessions was taken from too slowly; it goes on in a new one, by its token."""


class CorruptEntryError(SessionStoreError):
    """A stored entry cannot be read back: part of it is missing or damaged."""


class SchemaOutdatedError(SessionStoreError):
    """The database lacks an index that the store's guarantees rest on."""


class UnfitCollectionError(SessionStoreError):
    """A collection has a collation, or is a view, capped or a time series: no store can use it."""


class SchemaTooNewError(SessionStoreError):
    """The database was migrated by a newer release than the one that runs."""


class MongodNotFoundError(SessionStoreError):
    """No ``mongod`` program was found to start."""


class MongodStartError(SessionStoreError):
    """A ``mongod`` was started but did not come up."""


class InvalidRetentionError(SessionStoreError, ValueError):
    """A time to keep sessions that is none."""


class InvalidPriceError(SessionStoreError, ValueError):
    """A price of tokens that is none, or no table of them."""


class InvalidBudgetError(SessionStoreError, ValueError):
    """A budget that is none, or that is of something else than what was asked for."""


class InvalidQueryError(SessionStoreError, ValueError):
    """A condition, cursor or limit that no query can be made of."""


class SlowQueryError(SessionStoreError, TimeoutError):
    """MongoDB ended a query on free text that took too long; nothing was read."""


class UnknownSessionError(SessionStoreError, LookupError):
    """There is no session of that key."""


class SessionErasedError(SessionStoreError):
    """The session was erased, and nothing may be stored under its key for a while."""


class InvalidReceiptError(SessionStoreError, ValueError):
    """What is no receipt of an erasure, was changed since, or is of another tenant."""


class InvalidActorError(SessionStoreError, ValueError):
    """No name under which an audit could record what somebody does."""


class AuditUnavailableError(SessionStoreError):
    """What was to be done could not be recorded first, and so was not done."""


class UnsoundSessionError(SessionStoreError):
    """Something else than the store took a session's summary, or broke it beyond what it mends."""


class AmbiguousSessionError(SessionStoreError, LookupError):
    """Several sessions have a name that was to mean one."""


class InvalidMigrationError(SessionStoreError, ValueError):
    """A migration that does not exist, or a number of them that cannot be reverted."""


class MigrationLockLostError(SessionStoreError):
    """This process was away for so long that another one took over the migration."""


class TransferError(SessionStoreError, ValueError):
    """What to import, export or copy is not there, or has no place where it should go."""


class AdoptionError(SessionStoreError, ValueError):
    """What to adopt is not there, is not what it was said to be, or could be two things."""


class EncryptionError(SessionStoreError):
    """What is encrypted cannot be read or written. Nothing is ever deleted because of it."""


class InvalidKeyFileError(EncryptionError, ValueError):
    """A file of keys that is none, is readable by others, or would be overwritten."""


class KeyServiceError(EncryptionError, ConnectionError):
    """The service that wraps keys cannot be reached, or refuses."""


class WrongKeyError(EncryptionError):
    """The keys at hand are not those that contents are encrypted with."""


class KeyDestroyedError(EncryptionError):
    """The key of contents was destroyed, so nobody can read them any more."""


class DamagedSealError(EncryptionError, CorruptEntryError):
    """Encrypted contents are not what was stored here: changed, cut, or of another place."""


class PlainContentsError(EncryptionError):
    """Contents are not encrypted where only encrypted ones are taken."""


class NoKeysError(EncryptionError):
    """The store was given no keys, which what it met, or was asked for, needs."""


class SealedQueryError(InvalidQueryError, EncryptionError):
    """What is asked for is encrypted, so the server cannot look for it."""
