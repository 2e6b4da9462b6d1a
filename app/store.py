"""The session store: the SDK's protocol over Beanie's Document classes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Generic, cast

from typing_extensions import TypeVar

from ..models import EntryChunk, RetentionPolicy, SessionSummary, TranscriptEntry
from ..models.entry import MAX_SEQ
from .audit.actors import checked_actor, checked_name_of_actor
from .audit.records import Detail, record
from .budgets.budget import Budget, OnPassed, Spending, Subject, checked_budget
from .budgets.budget_watch import WatchedStore, budget_watch
from .budgets.spending import spending
from .concurrency.cancellation import completed
from .database.bound_models import lent
from .database.driver import AnyDatabase
from .database.failures import IN_STEPS, NOT_KNOWN, reported, require_asyncio
from .database.server import date_of
from .encryption.encryption import Encryption, checked_encryption, checked_subject
from .encryption.keyring import KeyStatus, Rotation
from .errors import InvalidKeyError
from .every import Every
from .feed.changes import checked_token
from .feed.feed import Feed, followed
from .feed.hub import Topic
from .health.readiness import Readiness, readiness_by, require_ready
from .instruments.operations import measured
from .leases import grants
from .leases.held_lease import held_lease
from .leases.lease import Lease, OnLost, WantedLease, checked_lease
from .leases.leased_store import LeasedStore
from .pricing.price_table import PriceTable
from .queries.filters import Criterion, SessionFilter, checked_text
from .queries.session_queries import SessionQueries
from .queries.summary_pages import S_co
from .reading import listings, load, stream
from .reading.glimpses import SessionReader
from .reading.listings import SessionListing
from .reading.stream import StreamedEntry
from .reading.watch import watch
from .retention import erasure, holds
from .retention.erasure import WantedErasure
from .retention.erasure_check import ErasureCheck, check_erasure
from .retention.receipts import ErasureReceipt
from .retention.removal import Removal, remove_sessions, require_conditions
from .schema.versions import upgrade_schema
from .sdk import (
    ClaudeAgentOptions,
    SessionStore,
    SessionStoreEntry,
    SessionStoreListEntry,
    SessionSummaryEntry,
    preloaded,
)
from .storage import orphans
from .storage.client import open_database
from .storage.codec import draft_entries, encode_metadata
from .storage.connection import Binding, Connection, DatabaseBinding, StoreModels
from .storage.seals import keys_of
from .text import shown
from .transcript_key import AnyKey, TranscriptKey, checked_name
from .transcripts.transcript import Transcript
from .writing import repair
from .writing.metadata import set_metadata
from .writing.new_sessions import (
    NewSession,
    checked_mtime,
    checked_session,
    checked_sessions,
    insert_sessions,
)
from .writing.observers import Observer, OnCommitted
from .writing.repair import Verification
from .writing.sealing import seal_session
from .writing.session_replay import SessionReplay
from .writing.write_turns import WriteTurns
from .writing.writer import Writer

# What they are where nothing is said, which no checker takes for the default of an argument.
S = TypeVar("S", bound=SessionSummary, default=SessionSummary)


class BeanieSessionStore(SessionQueries[S_co], SessionStore, Generic[S_co]):
    """Stores Claude Agent SDK sessions in MongoDB, for one tenant.

    Making one costs nothing and does no I/O, so an application makes one per tenant, user or
    request. The Document classes must have been given to ``init_beanie`` before its first use.

    Every method raises :class:`InvalidKeyError` for a key that cannot name a transcript, before
    the database is touched; :class:`NotInitializedError`, :class:`ClientClosedError` or
    :class:`EventLoopError` when the store is used too early, too late or from the wrong loop;
    :class:`SchemaOutdatedError` or :class:`SchemaTooNewError` on a database that was not
    migrated for this release; :class:`UnreachableError`, :class:`AccessDeniedError` or
    :class:`ServerError` when MongoDB is away or refuses. All are
    :class:`SessionStoreError`.

    Args:
        tenant: owner of all that this store reads and writes; it sees nothing of another one.
            At most 1,024 bytes.
        metadata: JSON object put on every session that this store creates, e.g.
            ``{"user_id": "u1"}``. At most 64 KiB.
        entries: ``TranscriptEntry`` or a subclass of it.
        summaries: ``SessionSummary`` or a subclass of it.
        on_committed: a function or coroutine function that is called with a
            :class:`CommittedAppend` after each :meth:`append` that stored entries, before that
            returns and even if its caller was cancelled; for one session in the order of its
            appends by this store. What it raises is logged and harms nothing. Appends wait for
            it, so hand over what takes long; it must not await a write of this store.
        audit: record who erases, deletes, exports, copies, holds and releases, and who reads on
            the web pages. What cannot be recorded first is not done; appends and the agent's
            reads are not recorded, and cost what they cost without. See :func:`audit_records`.
        actor: who that is, such as a user's address or the name of the service; at most 256
            bytes. The web pages record the ``actor`` of their own ``Access``.
        prices: prices of the team's own for tokens, in front of the public list.
        encryption: encrypts what is said before it leaves the process; ``None`` stores it plain.
            See docs/encryption.md.

    Raises:
        InvalidActorError: an audit without an actor, an actor without an audit, or none of a name.
        InvalidKeyError: the tenant is no usable name.
        InvalidMetadataError: the metadata is no JSON object or is too large, or has no text for
            the subject of the encryption.
        InvalidModelError: a class is no subclass of the one it stands for.
        ObserverError: ``on_committed`` cannot be called.
        InvalidPriceError: ``prices`` is no table of prices.
    """

    def __init__(
        self,
        *,
        tenant: str = "default",
        metadata: dict[str, Any] | None = None,
        entries: type[TranscriptEntry] = TranscriptEntry,
        summaries: type[S_co] = SessionSummary,
        on_committed: OnCommitted | None = None,
        audit: bool = False,
        actor: str | None = None,
        prices: PriceTable | None = None,
        encryption: Encryption | None = None,
    ) -> None:
        self._actor = checked_actor(audit, actor)
        tenant = checked_name("tenant", tenant)
        self.metadata = metadata
        """What is put on each session that this store creates."""
        self._metadata = encode_metadata(metadata)
        self._writer = Writer(self._metadata)
        self._turns = WriteTurns()
        self._observer = None if on_committed is None else Observer(on_committed)
        checked_encryption(encryption, metadata)
        self.encrypts = encryption is not None
        """Whether it encrypts what is said."""
        binding = Binding(StoreModels(entries, summaries), encryption)
        super().__init__(tenant, summaries, binding, self._writer.forget, prices)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        uri: str,
        *,
        database: str | None = None,
        tenant: str = "default",
        metadata: dict[str, Any] | None = None,
        entries: type[TranscriptEntry] = TranscriptEntry,
        summaries: type[S] = SessionSummary,
        on_committed: OnCommitted | None = None,
        audit: bool = False,
        actor: str | None = None,
        prices: PriceTable | None = None,
        encryption: Encryption | None = None,
        upgrade: bool = True,
    ) -> AsyncGenerator[BeanieSessionStore[S]]:
        """Open a store of its own client, for scripts: ``async with ...connect(uri) as store``.

        It upgrades the schema and closes the client at exit, where writes that go on without their
        caller have ten seconds to end. Stores of several databases may be open at once, in threads
        too. Queries on the Document classes themselves, such as
        ``SessionSummary.find``, go to the database of the first one, unless ``init_beanie`` has
        given the classes to another, where they stay; after the last one they go nowhere.

        Args:
            uri: connection string, ``mongodb://`` or ``mongodb+srv://``.
            database: the database, where the connection string names none.
            tenant: as for the class.
            metadata: as for the class.
            entries: as for the class.
            summaries: as for the class.
            on_committed: as for the class.
            audit: as for the class.
            actor: as for the class.
            prices: as for the class.
            encryption: as for the class.
            upgrade: ``False`` refuses to start on a database that this release cannot use.

        Raises:
            InvalidURLError: the connection string is malformed or names no database.
            SchemaOutdatedError: with ``upgrade=False``, a needed migration is missing.
            SessionStoreError: as for the class.
        """
        store = cast("type[BeanieSessionStore[S]]", cls)(
            tenant=tenant,
            metadata=metadata,
            entries=entries,
            summaries=summaries,
            on_committed=on_committed,
            audit=audit,
            actor=actor,
            prices=prices,
            encryption=encryption,
        )
        require_asyncio()
        await preloaded()
        async with open_database(uri, database) as opened:
            if upgrade:
                await upgrade_schema(opened, entries=entries, summaries=summaries)
            store._binding = DatabaseBinding(StoreModels(entries, summaries), opened, encryption)
            models = [entries, summaries, EntryChunk, RetentionPolicy]
            async with AsyncExitStack() as stack:
                with reported(opened.client, "initialise Beanie"):
                    await stack.enter_async_context(lent(opened, models, create_indexes=upgrade))
                await store._connection()
                yield store

    @classmethod
    def on(
        cls,
        database: AnyDatabase,
        *,
        tenant: str = "default",
        metadata: dict[str, Any] | None = None,
        entries: type[TranscriptEntry] = TranscriptEntry,
        summaries: type[S] = SessionSummary,
        on_committed: OnCommitted | None = None,
        audit: bool = False,
        actor: str | None = None,
        prices: PriceTable | None = None,
        encryption: Encryption | None = None,
    ) -> BeanieSessionStore[S]:
        """A store on a given database, whatever ``init_beanie`` gave to the Document classes.

        So one process works on two databases, for example to copy from one to the other. The
        schema must be there already, see :func:`upgrade_schema`. Arguments are those of the class.
        """
        store = cast("type[BeanieSessionStore[S]]", cls)(
            tenant=tenant,
            metadata=metadata,
            entries=entries,
            summaries=summaries,
            on_committed=on_committed,
            audit=audit,
            actor=actor,
            prices=prices,
            encryption=encryption,
        )
        store._binding = DatabaseBinding(StoreModels(entries, summaries), database, encryption)
        return store

    @asynccontextmanager
    async def agent_options(
        self, options: ClaudeAgentOptions, *, config: Path | str | None = None
    ) -> AsyncGenerator[ClaudeAgentOptions]:
        """Options for one run of the agent that sees and leaves nothing on the host's disk.

        ``async with store.agent_options(ClaudeAgentOptions(...)) as options``: they are the given
        ones with this store as their ``session_store`` and a configuration folder of their own,
        in which the session to resume is. The agent writes what it does to such a folder too, and
        goes on from what it finds there: in a folder that runs share, with another tenant's
        session, or one that was deleted or has expired. The folder is removed at the end; that of
        a run which was killed, when this user's next run begins.

        Let the messages end inside (no ``return`` from the loop): the agent writes its account of
        cost at its end.

        Args:
            options: what to run with. ``resume`` names a session of this tenant, begun in the
                same directory (``cwd``); ``continue_conversation`` goes on with the latest one.
            config: a folder to begin from, such as ``~/.claude``: settings, commands, agents,
                skills and logins in it are copied, sessions are not. Without one the agent has
                the defaults, and credentials from the environment alone.

        Raises:
            UnknownSessionError: this tenant has no session of that id there; a web application
                answers 404.
            InvalidOptionsError: the options name another store or configuration folder.
            OSError: the folder cannot be written.
            SessionStoreError: as for the class.
        """
        # Costs what the SDK costs, and only those that run agents need it.
        from .agent import runs

        # Whoever holds the lease of the session writes under it.
        given = getattr(options, "session_store", None)
        store = given if isinstance(given, LeasedStore) and given.store is self else self
        place = runs.checked(options, store, config)
        async with self._doing("resume", "read the session to resume") as connection:
            resumed = await runs.resumed(connection, self._tenant, options)
        async with runs.options_of_run(store, options, resumed, place) as ready:
            yield ready

    @asynccontextmanager
    async def checkout(
        self, key: AnyKey, options: ClaudeAgentOptions | None = None
    ) -> AsyncGenerator[ClaudeAgentOptions]:
        """Options that resume a session in the host's own configuration folder.

        There the agent has the host's commands, agents, skills, settings and login, which it lacks
        where the SDK resumes a session from a store. ``async with store.checkout(key) as options``:
        the session is laid into the folder (``CLAUDE_CONFIG_DIR`` of the options or the
        environment, else ``~/.claude``), what the run adds is mirrored once, and at the end all
        that the run had there is removed, its forks included; after a kill, when the next checkout
        in that folder begins. Meanwhile whoever may read the folder reads the session, so it is
        for hosts that run agents of one tenant; ``agent_options`` is for all others.

        Args:
            key: the session.
            options: what to run with. ``cwd`` is the directory in which the session was begun,
                unless the process is in it.

        Raises:
            UnknownSessionError: there is no such session.
            SessionBusyError: another run on this host has it checked out.
            InvalidOptionsError: the options name another session, store or directory, or the agent
                has a session of that id in the folder already; nothing was changed there.
            OSError: the folder cannot be written.
            SessionStoreError: as for the class.
        """
        from .agent import checkouts, runs

        transcript = TranscriptKey.parse(self._tenant, key)
        given = getattr(options, "session_store", None)
        store = given if isinstance(given, LeasedStore) and given.store is self else self
        wanted, config = checkouts.checked(options, store, transcript)
        async with self._doing("read the session to check out") as connection:
            resumed = await runs.resumed(connection, self._tenant, wanted)
        assert resumed is not None  # It was asked for by its id.
        async with checkouts.options_of_checkout(store, wanted, resumed, config) as ready:
            yield ready

    async def append(self, key: AnyKey, entries: Sequence[Mapping[str, Any]]) -> None:
        """Store a batch of entries: whole or not at all, once however often it is tried.

        Entries already stored (the same ``uuid`` in the same transcript) are skipped, and so
        are entries without a uuid next to them that repeat what is stored there. Calls of one
        store for one session are stored in the order of the calls. A cancelled call goes on in
        the background: its batch is stored whole, or not at all. What is stored is what the
        entries were when the call began, whatever is done with them meanwhile.

        Raises:
            InvalidEntryError: an entry is no JSON object; nothing of the batch was stored.
            SessionErasedError: the session was erased; end who writes to it.
            ContentionError: other writers of the session won until time ran out.
            SessionStoreError: as for the class; trying again with the same entries is safe.
        """
        require_asyncio()
        await self._append_by(self._writer, TranscriptKey.parse(self._tenant, key), entries)

    async def _append_by(self, writer: Writer, transcript: TranscriptKey, entries: object) -> None:
        self._refuse_observer()
        await completed(self._append(writer, transcript, entries), "append to", transcript)

    async def _append(self, writer: Writer, transcript: TranscriptKey, entries: object) -> None:
        # Before anything is awaited: the caller may change its entries meanwhile.
        draft = draft_entries(entries)
        with measured("append", transcript.session_id) as operation:
            async with self._turns.turn(transcript) as is_free:
                batch = await draft.encoded()
                if not batch:
                    return
                is_loaded = await preloaded()
                connection, is_new = await self._bound()
                operation.on_collection(connection.entries.collection)
                operation.note(entries=len(batch))
                with reported(connection.client, "append to", transcript):
                    is_fresh = is_free and is_loaded and not is_new
                    stored = await writer.append(connection, transcript, batch, is_fresh=is_fresh)
                if self._observer is not None and stored is not None:
                    await self._observer.tell(transcript, stored)

    def _refuse_observer(self) -> None:
        if self._observer is not None:
            self._observer.refuse_itself()

    async def replay(
        self,
        key: AnyKey,
        *,
        mtime: int | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> SessionReplay:
        """Take a session that comes from elsewhere, from its start: ``await replay.add(entries)``.

        What is stored of it already is skipped, entries without uuid included, so the same
        session can come again and again; use a new one for each time.

        Args:
            key: the session; a ``subpath`` is not looked at.
            mtime: when it changed last where it comes from, epoch milliseconds; ``None`` is now.
            metadata: for the session, if it is new, instead of the metadata of this store.

        Raises:
            InvalidEntryError: ``mtime`` is no time.
            InvalidMetadataError: the metadata is no JSON object or is too large.
        """
        require_asyncio()
        session = TranscriptKey.parse(self._tenant, key).session
        checked_mtime(mtime)
        encoded = self._metadata if metadata is None else encode_metadata(metadata)
        return SessionReplay(await self._connection(), session, encoded, mtime)

    async def insert_sessions(self, sessions: Sequence[NewSession]) -> list[int | None]:
        """Store whole sessions, many small ones at once, and say how many entries of each.

        That is 0 where exactly these are stored already, and ``None`` where nothing was done, for
        the session needs more care than fits many at once: give it to :meth:`replay`. Together
        they should not take more than a few MiB.

        Raises:
            InvalidEntryError: one is no session, or an entry no JSON object; nothing was stored.
            SessionStoreError: as for the class.
        """
        require_asyncio()
        checked = [checked_session(each) for each in checked_sessions(sessions)]
        keyed = [(TranscriptKey.parse(self._tenant, each.key()), each) for each in checked]
        return await completed(self._insert_sessions(keyed), "store new sessions")

    async def _insert_sessions(
        self, sessions: Sequence[tuple[TranscriptKey, NewSession]]
    ) -> list[int | None]:
        async with self._doing("insert_sessions", "store new sessions") as connection:
            await preloaded()
            return await insert_sessions(connection, sessions, self._metadata)

    async def load(self, key: AnyKey) -> list[SessionStoreEntry] | None:
        """All entries of a transcript, deep-equal and in order; ``None`` if there are none.

        Raises:
            CorruptEntryError: a stored entry is damaged.
            SessionStoreError: as for the class.
        """
        require_asyncio()
        transcript = TranscriptKey.parse(self._tenant, key)
        with measured("load", transcript.session_id) as operation:
            connection = await self._connection()
            operation.on_collection(connection.entries.collection)
            with reported(connection.client, "load", transcript):
                entries = await load.load(connection, transcript)
            operation.note(entries=len(entries or ()))
        return cast("list[SessionStoreEntry] | None", entries)

    def stream(
        self, key: AnyKey, after: int | None = None, *, with_subagents: bool = False
    ) -> AsyncGenerator[StreamedEntry]:
        """The entries of a transcript in order, one at a time, in constant memory.

        Each is equal to the dict that ``load`` gives and knows its position as ``.seq``; a
        reader that stopped goes on with ``after=entry.seq``. Elections and lost cursors are
        handled; entries appended meanwhile may be included.

        Args:
            key: the transcript.
            after: only what is behind this position.
            with_subagents: all transcripts of the session together, in the order of writing,
                which the server sorts first; ``entry.subpath`` tells whose each entry is.

        Raises:
            SessionChangedError: the session was deleted while it was streamed.
            CorruptEntryError: a stored entry is damaged.
            SessionStoreError: as for the class.
        """
        transcript = self._followed(key, with_subagents)
        return self._stream(transcript, _checked_position(after), with_subagents)

    async def _stream(
        self, transcript: TranscriptKey, after: int, with_subagents: bool
    ) -> AsyncGenerator[StreamedEntry]:
        doing = self._doing("stream", "stream", transcript, is_current=False)
        count = 0
        async with (
            doing as connection,
            aclosing(stream.stream(connection, transcript, after, with_subagents)) as entries,
        ):
            try:
                async for entry in entries:
                    count += 1
                    yield entry
            finally:
                doing.measured.note(entries=count)

    def _followed(self, key: AnyKey, with_subagents: bool) -> TranscriptKey:
        transcript = TranscriptKey.parse(self._tenant, key)
        return transcript.session if with_subagents else transcript

    def watch(
        self, key: AnyKey, after: int | None = None, *, with_subagents: bool = False
    ) -> AsyncGenerator[StreamedEntry]:
        """The stored entries of a transcript, then every new one as soon as it is committed.

        It never ends by itself: leave the loop, or cancel the task; ``contextlib.aclosing`` frees
        at once what it holds at the server. Each entry comes once and in order, over reconnections
        and elections too; a watcher that stopped goes on with ``after=entry.seq``. The session
        need not exist yet. Entries come when a majority has them, whatever a later election does.

        Every watcher keeps a connection of the client's pool (on Motor also a thread of its pool)
        busy: raise ``maxPoolSize`` (and ``MOTOR_MAX_WORKERS``) where many watch at once.

        Args:
            key: the transcript.
            after: only what is behind this position.
            with_subagents: follow all transcripts of the session together, in the order of
                writing; ``entry.subpath`` tells whose each entry is.

        Raises:
            StandaloneError: the server is no replica set.
            SessionChangedError: the session was deleted or has expired.
            CorruptEntryError: a stored entry is damaged.
            SessionStoreError: as for the class.
        """
        transcript = self._followed(key, with_subagents)
        return self._watch(transcript, _checked_position(after), with_subagents)

    async def _watch(
        self, transcript: TranscriptKey, after: int, with_subagents: bool
    ) -> AsyncGenerator[StreamedEntry]:
        # How long it took is how long somebody wanted to see it.
        doing = self._doing("watch", "watch", transcript, is_current=False, is_timed=False)
        count = 0
        async with (
            doing as connection,
            aclosing(watch(connection, transcript, after, with_subagents)) as entries,
        ):
            try:
                async for entry in entries:
                    count += 1
                    yield entry
            finally:
                doing.measured.note(entries=count)

    def feed(
        self, key: AnyKey | None = None, *, after: str | None = None
    ) -> AbstractAsyncContextManager[Feed]:
        """The tenant's sessions as they change: ``async with store.feed() as feed``.

        ``async for change in feed`` gives a :class:`SessionChange` whenever a session is made,
        written to, changed otherwise or deleted: each once and in order, as soon as a majority of
        the servers has it, over reconnections and elections too. ``feed.token`` is how far it
        came; whoever stopped goes on with ``after=token``, in another process too, as far back as
        the server's log goes. A session that was deleted more than some minutes ago is told of
        only where the feed met it before.

        However many feeds there are, one change stream is open for all of a process, a client and
        a database, until the last is left; one more for as long as a feed reads what came
        between an old token and now.

        Args:
            key: of this session alone.
            after: the token of a change or of a feed; ``None`` for what comes from now on.

        Raises:
            InvalidQueryError: ``after`` is no token.
            StandaloneError: the server is no replica set.
            FeedOverrunError: more than 10,000 changes waited, for they were taken too slowly.
            FeedLostError: the token is older than the server's log, or the collection was dropped.
            SessionStoreError: as for the class.
        """
        topic = self._tenant if key is None else TranscriptKey.parse(self._tenant, key).session
        return self._feed(topic, checked_token(after))

    @asynccontextmanager
    async def _feed(self, topic: Topic, after: str | None) -> AsyncGenerator[Feed]:
        require_asyncio()
        async with followed(await self._connection(), topic, after) as feed:
            yield feed

    async def transcript(self, key: AnyKey) -> Transcript | None:
        """A session as an object to work with: turns, tool calls, subagents, tokens, cost.

        All of its transcripts are read at one moment; ``None`` if there is no such session.
        Views of the entries are made when they are asked for.

        Raises:
            CorruptEntryError: a stored entry is damaged.
            SessionStoreError: as for the class.
        """
        session = TranscriptKey.parse(self._tenant, key).session
        async with self._doing("transcript", "read the transcripts of", session) as connection:
            transcripts, copied, carried_usd = await load.load_session(connection, session)
        if not transcripts:
            return None
        main = transcripts.pop("", [])
        return Transcript(main, transcripts, copied=copied, carried_usd=carried_usd)

    async def agent_metadata(self, key: AnyKey) -> dict[str, Any] | None:
        """What the agent says of the subagent whose transcript it is; the last of it counts."""
        transcript = TranscriptKey.parse(self._tenant, key)
        async with self._doing("agent_metadata", "read", transcript) as connection:
            return await load.last_agent_metadata(connection, transcript)

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """``{"session_id": ..., "mtime": epoch milliseconds}`` of each session of the project.

        ``mtime`` is the last append to the main transcript by the server's clock; sessions
        without a main transcript are not listed. The order is unspecified.
        """
        project = checked_name("project_key", project_key)
        async with self._doing("list_sessions", "list sessions") as connection:
            return await listings.sessions(connection, self._tenant, project)

    async def all_sessions(
        self,
        project_key: str | None = None,
        session_id: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[SessionListing]:
        """Every session of the tenant, in the order of project and id, in constant memory.

        Unlike :meth:`list_sessions` it goes over all projects, and lists sessions without a main
        transcript too.

        Args:
            project_key: only the sessions of this project.
            session_id: only sessions of this id.
            metadata: only sessions whose metadata has these values, by field.

        Raises:
            InvalidQueryError: the metadata is of a wrong type.
        """
        wanted = SessionFilter(project_key=project_key, metadata=metadata)
        query = wanted.query(self._tenant, with_expired=True, with_packed=True)
        if session_id is not None:
            query["session_id"] = checked_name("session_id", session_id)
        doing = self._doing("all_sessions", "list sessions", is_current=False)
        async with doing as connection:
            async for listing in listings.session_listings(connection, query):
                if wanted.describes(listing.metadata):
                    yield listing

    async def lost_sessions(
        self, project_key: str | None = None, *, with_expired: bool = False
    ) -> AsyncIterator[SessionListing]:
        """Sessions of the tenant that have entries and no summary, in the order of their keys.

        Something else than the store took it, and :meth:`repair` makes it anew. It goes over all
        sessions, one by one.

        Args:
            project_key: only the sessions of this project.
            with_expired: also those whose summary MongoDB may have taken because they expired,
                and whose entries it takes later.
        """
        owner = {"tenant": self._tenant}
        if project_key is not None:
            owner["project_key"] = checked_name("project_key", project_key)
        doing = self._doing("lost_sessions", "look for lost sessions", is_current=False)
        async with doing as connection:
            async for key in orphans.lost_sessions(connection, owner, with_expired):
                yield SessionListing(key.project_key, key.session_id, None)

    async def set_metadata(self, key: AnyKey, metadata: dict[str, Any] | None) -> None:
        """Put metadata on a stored session, in place of what it has; ``None`` takes that away.

        Titles, tags and forks after the fact are the SDK's: ``rename_session_via_store``,
        ``tag_session_via_store`` and ``fork_session_via_store``, with this store.

        Raises:
            UnknownSessionError: there is no such session.
            InvalidMetadataError: the metadata is no JSON object or is too large.
            SessionStoreError: as for the class.
        """
        session = TranscriptKey.parse(self._tenant, key).session
        encoded = encode_metadata(metadata)
        async with self._doing(
            "set_metadata", "set the metadata of", session, unanswered=NOT_KNOWN
        ) as connection:
            await set_metadata(connection, session, encoded)

    async def spent(self, budget: Budget, subject: Subject | None = None) -> Spending:
        """What was spent of a budget in its current period, to ask before a turn.

        It is one question to the server: a look at an index key and a summary for each session of
        the subject that was active in the period, where there is an index for the subject, and
        else for each of the tenant; docs/money.md says how to make one. No entry is read. The
        server ends it after two seconds.

        Args:
            budget: such as ``Budget(usd=50, per="month", by="metadata.user_id")``.
            subject: the value of ``by``; ``None`` where that is ``None``.

        Raises:
            InvalidBudgetError: it is no budget, or the subject is none of it.
            SlowQueryError: it took longer than two seconds.
            SessionStoreError: as for the class.
        """
        checked = checked_budget(budget)
        whose = checked.checked_subject(subject)
        async with self._doing("spent", "ask what was spent of a budget") as connection:
            today = date_of(connection.server.now_ms()).date()
            return await spending(connection, self._tenant, checked, whose, today, self.prices)

    @asynccontextmanager
    async def watch_budget(self, budget: Budget, on_passed: OnPassed) -> AsyncGenerator[None]:
        """Be told when a budget is passed: ``async with store.watch_budget(budget, function)``.

        It follows the tenant's :meth:`feed` for as long as the block lasts, and looks at
        most once a second what the subjects have spent whose sessions have changed. The function
        is called once for each period and subject, in one of all processes that watch, and not
        again after a restart: that is kept in the collection ``claude_passed_budgets``, without
        names. Where the block ends meanwhile, it is cancelled, and called again with the subject's
        next change; where the process is killed just then, it may not be called. What was
        passed while nobody watched is told with the subject's next change.

        Args:
            budget: as for :meth:`spent`.
            on_passed: a function or coroutine function that takes a :class:`Spending`. What it
                raises is logged, and it is called again with the subject's next change.

        Raises:
            InvalidBudgetError: it is no budget, or the function cannot be called.
            StandaloneError: the server is no replica set.
            SessionStoreError: as for the class.
        """
        checked = checked_budget(budget)
        feed = partial(self._feed, self._tenant)
        watched = WatchedStore(self._tenant, self._connection, feed, self.spent)
        async with self._doing("watch_budget", "watch a budget") as connection:
            watch = await budget_watch(watched, connection, checked, on_passed)
        async with watch.running():
            yield

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """The SDK's summary of each session that :meth:`list_sessions` lists.

        Each equals ``fold_session_summary`` over the session's stored main transcript.
        """
        project = checked_name("project_key", project_key)
        async with self._doing("list_session_summaries", "list session summaries") as connection:
            return await listings.session_summaries(connection, self._tenant, project)

    async def delete(self, key: AnyKey, *, wait: bool = False) -> None:
        """Delete a session with its subagents, or with a ``subpath`` that transcript alone.

        It is gone for all readers when this returns, and a usual one from the database too. Of
        more than some thousand entries the rest is swept in the background, and by others if this
        process ends before. Deleting what does not exist does nothing.

        Args:
            key: the session, or the transcript.
            wait: return only when a large session is gone from the database as well.
        """
        transcript = TranscriptKey.parse(self._tenant, key)
        await self._delete_by(self._writer, transcript, wait)

    async def _delete_by(self, writer: Writer, transcript: TranscriptKey, wait: bool) -> None:
        await self._change("delete", transcript, partial(writer.delete, wait=wait))

    async def delete_sessions(
        self,
        *criteria: Criterion,
        project_key: str | None = None,
        tag: str | None = None,
        branch: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
        on_progress: Callable[[Removal], None] | None = None,
    ) -> Removal:
        """Delete all sessions of the tenant that meet the conditions, such as those of one user.

        It also finds sessions in which only a subagent wrote, those that have expired and were
        not swept yet, and those whose metadata is packed; and it removes the records of their
        adoption, so an adoption that is run again brings back what its source still has. Sessions
        that are held stay, and are named. It may be cut off at any time and run again. A session
        that somebody still writes to begins anew.

        Args:
            criteria: as for :meth:`sessions`; one condition at least must be given.
            project_key: as for :meth:`sessions`.
            tag: as for :meth:`sessions`.
            branch: as for :meth:`sessions`.
            title: as for :meth:`sessions`.
            metadata: as for :meth:`sessions`.
            since: as for :meth:`sessions`.
            until: as for :meth:`sessions`.
            dry_run: only look what would be deleted.
            on_progress: called now and then with how far it is.

        Raises:
            InvalidQueryError: there is no condition, or one is of a wrong type.
            SessionStoreError: as for the class.
        """
        wanted = SessionFilter(criteria, project_key, tag, branch, title, metadata, since, until)
        require_conditions(wanted)
        async with self._doing(
            "delete_sessions", "delete sessions", outcome=IN_STEPS
        ) as connection:
            if not dry_run:
                await self._record(connection, "delete sessions", details={"by": wanted.conditions})
            done = await completed(
                remove_sessions(
                    connection, self._tenant, wanted, dry_run=dry_run, on_progress=on_progress
                )
            )
            if not dry_run:
                counts = {"deleted": done.deleted, "held": len(done.held)}
                await self._record(connection, "sessions deleted", details=counts)
            return done

    async def erase(
        self,
        whole: Every | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        forks: bool = False,
        by: str | None = None,
        tombstones: timedelta = timedelta(days=30),
        dry_run: bool = False,
        on_progress: Callable[[Removal], None] | None = None,
    ) -> ErasureReceipt:
        """Erase all sessions of a subject, such as a person, so that none of them comes back.

        ``await store.erase(metadata={"user_id": "u1"})``, or ``store.erase(EVERY)`` for all of the
        tenant. It finds what :meth:`delete_sessions` finds, and takes what that takes. In the place
        of each session stays a tombstone with its key: whatever appends to it (an agent that still
        runs, an import, an adoption) gets :class:`SessionErasedError`, until that is gone too.
        Sessions that are held stay, and are named; so are forks of erased sessions, which hold
        copies.

        It may be cut off at any time and called again: the receipt then says what both erased.
        Where nothing is left to erase, the last receipt of the subject comes again.

        A store that encrypts destroys the subject's key at last, where ``metadata`` names nothing
        but the subject and nothing of it is left; with :data:`EVERY` all keys of the tenant. Then
        backups hold nothing of it that anybody can read either.

        Args:
            whole: :data:`EVERY` for all sessions of the tenant, instead of ``metadata``.
            metadata: values that the sessions' metadata has, by field.
            forks: also erase sessions that were forked from erased ones, whosever they are.
            by: who erases, for the receipt; the ``actor`` of the store, if it has one.
            tombstones: how long nothing is stored under the keys.
            dry_run: only look what would be erased.
            on_progress: called now and then with how many sessions were found and erased.

        Raises:
            InvalidQueryError: neither a subject nor EVERY was named, or one is of a wrong type.
            InvalidRetentionError: ``tombstones`` is no time.
            SessionStoreError: as for the class.
        """
        wanted = WantedErasure(
            whole, metadata, forks, self._actor if by is None else by, tombstones
        )
        async with self._doing("erase", "erase sessions", outcome=IN_STEPS) as connection:
            if not dry_run:
                asked = ["everything"] if whole else wanted.filter.conditions
                await self._record(connection, "erase", details={"by": asked, "forks": forks})
            receipt = await completed(
                erasure.erase(
                    connection, self._tenant, wanted, dry_run=dry_run, on_progress=on_progress
                ),
                "erase sessions",
            )
            if not dry_run:
                counts = {"sessions": len(receipt.sessions), "held": len(receipt.held)}
                told = {"erasure": receipt.erasure, **counts}
                await self._record(connection, "erased", details=told)
            return receipt

    async def verify_erasure(self, receipt: ErasureReceipt | Mapping[str, Any]) -> ErasureCheck:
        """Look whether what a receipt says was erased is gone from every collection.

        Args:
            receipt: what :meth:`erase` returned, or the JSON that it was filed as.

        Raises:
            InvalidReceiptError: it is none, was changed since, or is of another tenant.
            SessionStoreError: as for the class.
        """
        filed = receipt if isinstance(receipt, ErasureReceipt) else ErasureReceipt.of_json(receipt)
        async with self._doing("verify_erasure", "verify an erasure") as connection:
            return await check_erasure(connection, self._tenant, filed)

    async def hold(self, key: AnyKey, *, wait: bool = False) -> None:
        """Keep a session from expiring, whatever the policy, until it is released.

        Args:
            key: the session.
            wait: return only when the entries of a large one have lost their dates as well,
                which are later than the session's and are taken off in the background.

        Raises:
            UnknownSessionError: there is no such session.
        """
        session = TranscriptKey.parse(self._tenant, key).session
        await self._change("hold", session, partial(holds.hold, wait=wait))

    async def release(self, key: AnyKey, *, wait: bool = False) -> None:
        """Let a held session expire again; its period begins now.

        Args:
            key: the session.
            wait: return only when the entries of a large one have their dates as well.

        Raises:
            UnknownSessionError: there is no such session.
        """
        session = TranscriptKey.parse(self._tenant, key).session
        await self._change("release", session, partial(holds.release, wait=wait))

    async def _change(
        self,
        doing: str,
        transcript: TranscriptKey,
        change: Callable[[Connection, TranscriptKey], Awaitable[None]],
    ) -> None:
        """Change what is stored when it is this call's turn, though its caller is cancelled."""
        require_asyncio()
        self._refuse_observer()
        await completed(self._changed(doing, transcript, change), doing, transcript)

    async def _changed(
        self,
        doing: str,
        transcript: TranscriptKey,
        change: Callable[[Connection, TranscriptKey], Awaitable[None]],
    ) -> None:
        async with (
            self._turns.turn(transcript),
            self._doing(doing, doing, transcript, unanswered=NOT_KNOWN) as connection,
        ):
            await self._record(connection, doing, transcript)
            await change(connection, transcript)

    async def _record(
        self,
        connection: Connection,
        action: str,
        key: TranscriptKey | None = None,
        details: Mapping[str, Detail] | None = None,
    ) -> None:
        """Add to the audit what is about to be done, if this store keeps one."""
        database = connection.entries.collection.database
        await record(database, self._tenant, self._actor, action, key, details)

    async def recorded(
        self,
        action: str,
        key: AnyKey | None = None,
        *,
        actor: str | None = None,
        **details: str | int | bool | None,
    ) -> None:
        """Add to the audit what an application is about to do by itself; without one, nothing.

        Exports, copies and the web pages of this package do so; an application that shows
        transcripts by pages of its own does it with ``await store.recorded("read", key)``.

        Args:
            action: what is done, in a word or two.
            key: the session or transcript that it is done to.
            actor: who does it, where it is not the store's own.
            details: what else to record; nothing of what was said in a session.

        Raises:
            InvalidActorError: ``actor`` is no name.
            AuditUnavailableError: it cannot be written, so do not do it.
            SessionStoreError: as for the class.
        """
        if self._actor is None:
            return
        checked_text("action", action)
        who = self._actor if actor is None else checked_name_of_actor(actor)
        transcript = None if key is None else TranscriptKey.parse(self._tenant, key)
        async with self._doing("recorded", "record", action) as connection:
            database = connection.entries.collection.database
            await record(database, self._tenant, who, action, transcript, details)

    async def readiness(self, *, timeout: float = 2.0) -> Readiness:
        """Whether the store can append and read here and now with its promises, or why not.

        A cheap look, for health checks: a write and a read of nothing, which a majority of the
        members answers. Nothing is stored, and what is wrong is the answer, never an error.

        Args:
            timeout: seconds after which no answer is one.

        Raises:
            ValueError: the timeout is no number of seconds above 0.
        """
        require_asyncio()
        if type(timeout) not in (int, float) or not 0 < timeout < float("inf"):
            raise ValueError(f"timeout must be a number of seconds above 0, not {timeout!r:.60}.")
        return await readiness_by(self._require_ready(), timeout)

    async def _require_ready(self) -> None:
        async with self._doing("readiness", "write and read") as connection:
            await require_ready(connection)

    @asynccontextmanager
    async def lease(
        self,
        key: AnyKey,
        *,
        owner: str,
        ttl: timedelta = timedelta(seconds=30),
        wait: timedelta | None = None,
        on_lost: OnLost | None = None,
    ) -> AsyncGenerator[LeasedStore]:
        """Hold a session for as long as the block lasts, against all others that ask for it.

        ``async with store.lease(key, owner="host-7") as leased:``, and the agent gets
        ``session_store=leased``. It is renewed in the background, and given back at the end of the
        block, however that ends. The session need not be there yet. Stores that ask for no lease
        write as ever.

        Whoever loses it (the process stood still for longer than ``ttl``, no server answered for
        so long, an operator broke the lease, or the session was deleted) writes nothing more:
        ``leased.append`` and ``leased.delete`` raise :class:`LeaseLostError`, ``leased.lost`` is
        set, and ``on_lost`` is called, once.

        Args:
            key: the session; a ``subpath`` is not looked at.
            owner: who asks, as others are told: a text of at most 256 bytes.
            ttl: how long it lasts without being renewed, from 2 s to 1 h. It is renewed after each
                third of it; where the holder dies, others wait for so long.
            wait: how long to wait for the session where it is busy; ``None`` not at all. Who of
                several comes next is chance.
            on_lost: a function without arguments, or a coroutine function, that is called when the
                lease is lost, say to interrupt the agent. The end of the block waits for it, for
                ten seconds. What it raises is logged.

        Raises:
            InvalidLeaseError: owner, times or function are none.
            SessionBusyError: somebody else has the session, which the error names.
            ContentionError: the session was written to all the time; no lease was taken.
            UnsoundSessionError: it has entries and no summary, and whether they were deleted cannot
                be told; nothing was changed.
            ObserverError: it was asked for within an ``on_committed`` function of this store.
            SessionStoreError: as for the class.
        """
        require_asyncio()
        session = TranscriptKey.parse(self._tenant, key).session
        wanted = WantedLease(owner, ttl, wait, on_lost)
        # Its end waits for what is under way, and so for whoever is told of that.
        self._refuse_observer()
        connection = await self._connection()
        async with held_lease(connection, session, wanted, self._turns) as held:
            writer = self._writer.under(held)
            append, delete = partial(self._append_by, writer), partial(self._delete_by, writer)
            yield LeasedStore(self, session, held, append, delete)

    async def lease_of(self, key: AnyKey) -> Lease | None:
        """Who holds a session now, by the server's clock; ``None`` if nobody does.

        Raises:
            SessionStoreError: as for the class.
        """
        session = TranscriptKey.parse(self._tenant, key).session
        async with self._doing("lease_of", "read the lease of", session) as connection:
            holder = await grants.holder_of(connection, session)
        return None if holder is None else holder.lease

    async def break_lease(self, key: AnyKey, *, lease: Lease | None = None) -> Lease | None:
        """End the lease of a session, whoever holds it, and return it; ``None`` if nobody does.

        For operators, where a holder is known to be gone for good. One that lives loses the
        session, and hears of it with its next append, or within a third of its ``ttl``.

        Args:
            key: the session.
            lease: end it only if it still is this one, as :meth:`lease_of` gave it.

        Raises:
            InvalidLeaseError: ``lease`` is none.
            SessionStoreError: as for the class.
        """
        session = TranscriptKey.parse(self._tenant, key).session
        which = checked_lease(lease)
        doing = "break the lease of"
        async with self._doing("break_lease", doing, session, unanswered=NOT_KNOWN) as connection:
            return await completed(grants.break_lease(connection, session, which), doing, session)

    async def verify(self, key: AnyKey) -> Verification:
        """Compare a session's summary with its entries: the fold, the totals, the position.

        It reads all entries at one moment, one by one, and remembers some hundred bytes of each
        response and call. What it finds is a defect or the
        work of something else than this package, and :meth:`repair` mends it; totals are also
        missing from what an older release has written to.

        Raises:
            UnknownSessionError: there is no such session.
            CorruptEntryError: a stored entry is damaged.
            SessionStoreError: as for the class.
        """
        session = TranscriptKey.parse(self._tenant, key).session
        async with self._doing("verify", "verify", session) as connection:
            return await repair.verify(connection, session)

    async def repair(self, key: AnyKey, *, bring_back: bool = False) -> Verification:
        """Make a session's summary say what is stored of it; return what it said wrong.

        It is safe while others append. Entries are never changed. A summary that something else
        removed is made anew, but for the metadata that it had.

        Args:
            key: the session.
            bring_back: make it anew also of a session of which there are entries, but which may
                have expired, or have been deleted in whole or in part; its period begins anew.

        Raises:
            UnknownSessionError: there is no such session; of one that may have expired there are
                entries at most.
            UnsoundSessionError: there are entries without a summary, and whether they were
                deleted cannot be told.
            ContentionError: the session was written to all the time.
            CorruptEntryError: a stored entry is damaged.
            SessionStoreError: as for the class.
        """
        session = TranscriptKey.parse(self._tenant, key).session
        async with self._doing("repair", "repair", session, unanswered=NOT_KNOWN) as connection:
            work = repair.repair(connection, session, bring_back=bring_back)
            return await completed(work, "repair", session)

    async def seal(self, key: AnyKey) -> int:
        """Encrypt what is stored plain of a session, and return how many entries that were.

        It is safe while others append, and may be cut off and repeated.

        Raises:
            NoKeysError: the store has no encryption.
            UnknownSessionError: there is no such session.
            ContentionError: the session was written to all the time.
            SessionStoreError: as for the class.
        """
        session = TranscriptKey.parse(self._tenant, key).session
        async with self._doing("seal", "encrypt", session, outcome=IN_STEPS) as connection:
            keys_of(connection)
            return await completed(seal_session(connection, session), "encrypt", session)

    async def destroy_key(self, subject: str | int) -> bool:
        """Destroy the key of a subject, and return whether it had one.

        Nothing that was encrypted with it can ever be read again, here or in a backup that does
        not hold the key; delete its sessions too. What is begun for the subject later gets a new
        key. Other processes may go on with the old one until their ``cache`` ends.

        Args:
            subject: the value that its sessions have in the subject's field of metadata; ``""``
                for the key of those without one.

        Raises:
            InvalidMetadataError: the subject is neither a text nor an integer.
            NoKeysError: the store has no encryption.
            SessionStoreError: as for the class.
        """
        named = checked_subject(subject)
        async with self._doing("destroy_key", "destroy a key", unanswered=NOT_KNOWN) as connection:
            keyring = keys_of(connection)
            await self._record(connection, "destroy key")
            return await completed(keyring.destroy(self._tenant, named), "destroy a key")

    async def rotate_keys(
        self, *, on_progress: Callable[[Rotation], None] | None = None
    ) -> Rotation:
        """Wrap the keys of all tenants anew that the current wrapping key has not wrapped.

        It is safe while others read and write, and may be cut off and repeated. Afterwards the
        wrapping keys before it are needed for backups alone.

        Raises:
            WrongKeyError: a key cannot be unwrapped; those before it are wrapped anew.
            KeyServiceError: the key service is away or refuses.
            NoKeysError: the store has no encryption.
            SessionStoreError: as for the class.
        """
        async with self._doing("rotate_keys", "wrap keys anew", outcome=IN_STEPS) as connection:
            keyring = keys_of(connection)
            await self._record(connection, "rotate keys")
            return await completed(keyring.rotate(on_progress), "wrap keys anew")

    async def key_status(self) -> KeyStatus:
        """How many keys there are of all tenants, and which wrapping keys wrapped them.

        Raises:
            NoKeysError: the store has no encryption.
            SessionStoreError: as for the class.
        """
        async with self._doing("key_status", "look at keys") as connection:
            return await keys_of(connection).status()

    def reader(self, key: AnyKey) -> SessionReader:
        """Parts of a session by position, each in bounded time and room, as pages look at it.

        Raises:
            InvalidKeyError: the key cannot name a session.
        """
        return SessionReader(TranscriptKey.parse(self._tenant, key), self._doing)

    async def list_subkeys(self, key: AnyKey) -> list[str]:
        """The subpaths of a session's subagent transcripts, such as ``subagents/agent-a1``."""
        transcript = TranscriptKey.parse(self._tenant, key)
        async with self._doing("list_subkeys", "list the subagents of", transcript) as connection:
            return await listings.subkeys(connection, transcript)


def _checked_position(after: object) -> int:
    if after is not None and type(after) is not int:
        raise InvalidKeyError(
            f"after must be the seq of an entry (an int) or None, not {shown(after)}."
        )
    return min(max(after or 0, 0), MAX_SEQ)
