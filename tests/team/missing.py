"""Tests of a team that lacks what they need: a server, or pytest-asyncio."""

from __future__ import annotations

from beanie_session_store import BeanieSessionStore


def test_a_server(session_store_database_name: str) -> None:
    pass


def test_a_loop(session_store: BeanieSessionStore) -> None:
    pass
