"""The pages as a whole: who gets in, and what is sent with everything."""

from __future__ import annotations

from support.pages import pages_of

from beanie_session_store import BeanieSessionStore

KEY = {"project_key": "p", "session_id": "s"}


async def test_the_list_leads_to_a_session(store: BeanieSessionStore) -> None:
    await store.append(KEY, [{"type": "user", "uuid": "1", "message": {"content": "Hello you"}}])
    async with pages_of(store) as client:
        listed = await client.get("/")
        assert listed.status_code == 200
        assert "Hello you" in listed.text
        assert "default-src 'none'" in listed.headers["content-security-policy"]
