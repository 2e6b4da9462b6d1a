"""The example service shows its customers their sessions, behind a login."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import httpx
import pytest
from support.pages import prompt
from support.server import connected

from beanie_session_store import BeanieSessionStore

FOLDER = Path(__file__).parents[1] / "example_app"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    import app  # pyright: ignore[reportMissingImports]

    return app


async def test_customers_see_their_own_sessions_after_they_signed_in(
    example: ModuleType, mongo_url: str, database_name: str, tmp_path: Path
) -> None:
    async with connected(mongo_url) as client:
        app = example.create_app(client, tmp_path, database_name)
        transport = httpx.ASGITransport(app)
        # HTTPX tells an application nothing of its start and end.
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://team.example") as http,
        ):
            made = [await http.post("/customers", json={"name": n}) for n in ("Acme", "Rival")]
            (acme, key), (rival, other) = [
                (each.json()["_id"], each.json()["pages_key"]) for each in made
            ]
            await BeanieSessionStore(tenant=acme).append(
                {"project_key": "p", "session_id": "s"}, [prompt("Hello you")]
            )
            for wrong in (None, ("", ""), (acme, ""), (acme, other), (rival, key), ("x" * 24, key)):
                refused = await http.get("/sessions/", auth=wrong)
                assert refused.status_code == 401, wrong
                # The browser asks for it.
                assert refused.headers["www-authenticate"].startswith("Basic")
                assert "Hello" not in refused.text
            mine = await http.get("/sessions/", auth=(acme, key))
            assert "Hello you" in mine.text
            assert f"tenant <bdi>{acme}</bdi>, <bdi>Acme</bdi>" in mine.text
            theirs = await http.get("/sessions/", auth=(rival, other))
            assert theirs.status_code == 200
            assert "Hello" not in theirs.text
