"""A FastAPI service of many tenants with Beanie documents of its own next to the store's.

Run it on a client of the driver that the installed Beanie runs on::

    app = create_app(AsyncMongoClient(url))        # Beanie 2
    app = create_app(AsyncIOMotorClient(url))      # Beanie 1.30
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from beanie import (
    PydanticObjectId,
    init_beanie,  # pyright: ignore[reportUnknownVariableType]
)
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ResultMessage,
    SessionKey,
    list_sessions_from_store,
    project_key_for_directory,
    query,
)
from documents import Conversation, Customer
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse
from live import events
from pages import pages
from pydantic import BaseModel

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    UnknownSessionError,
    session_key,
    settled,
    upgrade_schema,
)


class Question(BaseModel):
    """A prompt, and the conversation that it goes on with."""

    prompt: str
    session_id: str | None = None


async def customer(customer_id: PydanticObjectId) -> Customer:
    """The customer of the path; one that is not there is a 404."""
    found = await Customer.get(customer_id)
    if found is None:
        raise HTTPException(404, "There is no such customer.")
    return found


Owner = Annotated[Customer, Depends(customer)]


def store_of(owner: Customer) -> BeanieSessionStore:
    """The customer's own sessions; making a store costs nothing."""
    return BeanieSessionStore(tenant=str(owner.id), metadata={"customer": owner.name})


def create_app(client: Any, directory: Path, database: str = "app") -> FastAPI:
    """The service on a MongoDB client, with agents that work in ``directory``."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        await upgrade_schema(client[database])
        await init_beanie(
            database=client[database],
            document_models=[Customer, Conversation, *DOCUMENT_MODELS],
        )
        try:
            yield
        finally:
            await settled()

    app = FastAPI(lifespan=lifespan)
    app.mount("/sessions", pages)

    @app.post("/customers", status_code=201)
    async def create_customer(owner: Customer) -> Customer:
        return await owner.insert()

    @app.post("/customers/{customer_id}/ask")
    async def ask(owner: Owner, question: Question) -> dict[str, Any]:
        wanted = ClaudeAgentOptions(resume=question.session_id, cwd=directory)
        result: ResultMessage | None = None
        try:
            async with store_of(owner).agent_options(wanted) as options:
                async for message in query(prompt=question.prompt, options=options):
                    # To the end: the agent writes its account of cost behind its result.
                    if isinstance(message, ResultMessage):
                        result = message
        except UnknownSessionError:
            raise HTTPException(404, "There is no such conversation.") from None
        if result is None:
            raise HTTPException(502, "The agent ended without a result.")
        await remember(owner, result.session_id, question.prompt)
        return {"session_id": result.session_id, "answer": result.result}

    async def remember(owner: Customer, session_id: str, name: str) -> None:
        known = Conversation.find_one(
            Conversation.customer == owner.id, Conversation.session_id == session_id
        )
        if await known is None:
            assert owner.id is not None
            await Conversation(customer=owner.id, name=name, session_id=session_id).insert()

    @app.get("/customers/{customer_id}/conversations")
    async def conversations(owner: Owner) -> list[dict[str, Any]]:
        listed = await list_sessions_from_store(store_of(owner), directory=str(directory))
        sessions = {session.session_id: session for session in listed}
        named = await Conversation.find(Conversation.customer == owner.id).to_list()
        return [
            {
                "name": conversation.name,
                "session_id": conversation.session_id,
                "modified_ms": sessions[conversation.session_id].last_modified,
            }
            for conversation in named
        ]

    @app.get("/customers/{customer_id}/conversations/{session_id}")
    async def transcript(owner: Owner, session_id: str) -> list[dict[str, Any]]:
        entries = await store_of(owner).load(key_of(session_id))
        if entries is None:
            raise HTTPException(404, "There is no such conversation.")
        return [dict(entry) for entry in entries]

    @app.get("/customers/{customer_id}/conversations/{session_id}/live")
    async def live(
        owner: Owner, session_id: str, last_event_id: Annotated[int | None, Header()] = None
    ) -> StreamingResponse:
        store = store_of(owner)
        # A session to come can be watched too, but here nobody knows of one that is not there.
        if await store.summary(key_of(session_id)) is None:
            raise HTTPException(404, "There is no such conversation.")
        watched = store.watch(key_of(session_id), after=last_event_id)
        return StreamingResponse(events(watched), media_type="text/event-stream")

    @app.delete("/customers/{customer_id}/conversations/{session_id}", status_code=204)
    async def forget(owner: Owner, session_id: str) -> None:
        await store_of(owner).delete(key_of(session_id))
        await Conversation.find(
            Conversation.customer == owner.id, Conversation.session_id == session_id
        ).delete()

    def key_of(session_id: str) -> SessionKey:
        return session_key(project_key_for_directory(str(directory)), session_id)

    return app
