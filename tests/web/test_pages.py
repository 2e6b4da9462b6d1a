"""The pages as a whole: who gets in, and what is sent with everything."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.requests import Request
from support.pages import MOUNT, client_of, links_of, pages_of, prompt
from support.server import connected

from beanie_session_store import BeanieSessionStore, InvalidKeyError, InvalidQueryError
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.web.addresses import Addresses, read, written
from beanie_session_store.app.web.application import _PAGES
from beanie_session_store.app.web.responses import attachment, static_hash
from beanie_session_store.app.web.viewer import PageRoute
from beanie_session_store.web import Access, session_pages

KEY = {"project_key": "p", "session_id": "s"}
WEB = Path(__file__).parents[2] / "app" / "web"


def address_of(route: PageRoute, project: str = "p", session: str = "s") -> str:
    """An address that the route answers to."""
    known = {"project": project, "session": session}
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: known.get(found[1], "1"), route.path)


async def test_without_access_nothing_is_shown(store: BeanieSessionStore) -> None:
    await store.append(KEY, [prompt("Hello you")])

    async def nobody(request: Request) -> Access | None:
        return None

    async with client_of(session_pages(nobody, who="user_id")) as client:
        for route in _PAGES:
            refused = await client.get(address_of(route))
            assert refused.status_code == 401, route
            assert "Sign in where you came from, then open this address again." in refused.text
            assert "Hello" not in refused.text
            assert "tenant" not in refused.text


async def test_what_access_says_is_checked_and_what_it_raises_is_the_teams(
    store: BeanieSessionStore,
) -> None:
    said: list[Any] = [False, "user", HTTPException(418, "Not now.")]

    async def odd(request: Request) -> Any:
        if isinstance(said[0], Exception):
            raise said[0]
        return said[0]

    async with client_of(session_pages(odd)) as client:
        assert (await client.get("/")).status_code == 401
        del said[0]
        with pytest.raises(TypeError, match="access must return an Access or None, not 'user'"):
            await client.get("/")
        del said[0]
        assert (await client.get("/")).status_code == 418


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"store": "acme"}, "takes a BeanieSessionStore, not 'acme'"),
        ({"contents": None}, "contents must be True or False, not None"),
        ({"contents": "no"}, "contents must be True or False, not 'no'"),
        ({"actor": 7}, "actor must be a name or None, not 7"),
    ],
)
def test_an_access_that_is_none_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        Access(**{"store": BeanieSessionStore(), **arguments})


async def test_an_access_that_cannot_be_asked_is_refused() -> None:
    with pytest.raises(TypeError, match="takes an async function that is given a request"):
        session_pages(Access(BeanieSessionStore()))  # type: ignore[arg-type]
    async with client_of(session_pages(lambda _: Access(BeanieSessionStore()))) as client:  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="access must be an async function"):
            await client.get("/")


@pytest.mark.parametrize("who", ["", "a.b", "$where", 7])
def test_a_field_that_is_none_is_refused(who: Any) -> None:
    async def nobody(request: Request) -> None:
        return None

    with pytest.raises(InvalidQueryError, match="who"):
        session_pages(nobody, who=who)


async def test_who_may_see_figures_alone_reaches_nothing_else(store: BeanieSessionStore) -> None:
    texts = {"branch": "Secret-1", "title": "Secret-2", "tag": "Secret-3"}
    asked = prompt("Secret-4", gitBranch=texts["branch"], cwd="/Secret-5")
    title = {"type": "custom-title", "customTitle": texts["title"], "sessionId": "s"}
    await store.append(KEY, [asked, title, {"type": "tag", "tag": texts["tag"]}])
    async with pages_of(store) as client:
        seen = (await client.get("/")).text
        assert all(f"Secret-{n}" in seen for n in (1, 2, 3))
    async with pages_of(store, contents=False, actor="u4", who="user_id") as client:
        for route in _PAGES:
            if route.path == "/live":
                # It does not end, and is read in tests of its own.
                continue
            answered = await client.get(address_of(route))
            assert "Secret" not in answered.text, route
            if route.reads_contents:
                assert answered.status_code == 403, route
                said = "You are signed in as u4, who may see figures but not what was said."
                assert said in answered.text
            else:
                assert answered.status_code in (200, 404), route
        for name in ("q", "branch", "tag"):
            # Whether a guess is right must not be told either.
            asked_for = await client.get("/", params={name: "Secret-1"})
            assert asked_for.status_code == 403
        listed = (await client.get("/")).text
        assert f'href="{MOUNT}/s/' not in listed
        assert "<span>s</span>" in listed


async def test_what_is_not_ones_own_is_as_if_it_were_not_there(store: BeanieSessionStore) -> None:
    await store.append(KEY, [prompt("Hello you")])
    other = BeanieSessionStore(tenant="other")
    below = [route for route in _PAGES if "{session}" in route.path]
    async with pages_of(other) as client:
        for route in below:
            foreign = await client.get(address_of(route))
            unknown = await client.get(address_of(route, session="nothing"))
            assert foreign.status_code == unknown.status_code == 404, route
            assert foreign.text == unknown.text
            assert foreign.headers == unknown.headers
        assert "Hello" not in (await client.get("/")).text
        nowhere = await client.get("/s/~%21%21/s")
        assert nowhere.status_code == 404


EXPECTED = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


async def test_every_answer_has_the_headers_that_keep_it_safe(store: BeanieSessionStore) -> None:
    await store.append(KEY, [prompt("Hello you")])
    async with pages_of(store) as client:
        answers = [
            *[await client.get(path) for path in ("/", "/?live=&q=", "/figures", "/no/such/page")],
            *[await client.get(path) for path in ("/figures/day.csv", "/?since=soon")],
            await client.post("/"),
            await client.head("/"),
            await client.request("TRACE", "/"),
        ]
        assert {each.status_code for each in answers} == {200, 303, 400, 404, 405}
        for each in answers:
            assert {name: each.headers.get(name) for name in EXPECTED} == EXPECTED
            policy = each.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert "*" not in policy
            assert "set-cookie" not in each.headers


async def test_own_files_are_kept_for_good_and_no_others_are_sent() -> None:
    async with pages_of(BeanieSessionStore()) as client:
        page = f"/static/{static_hash()}"
        style = await client.get(f"{page}/style.css")
        assert style.headers["content-type"].startswith("text/css")
        assert style.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert style.headers["x-content-type-options"] == "nosniff"
        for path in (
            "/static/old/style.css",
            f"{page}/base.html",
            f"{page}/..%2ftemplates%2fbase.html",
            f"{page}/%2e%2e/templates/base.html",
        ):
            assert (await client.get(path)).status_code == 404


async def test_pages_may_be_shown_in_the_frames_that_were_asked_for() -> None:
    origins = ("https://intranet.example", "'self'")
    async with pages_of(BeanieSessionStore(), frame_ancestors=origins) as client:
        headers = (await client.get(f"/static/{static_hash()}/app.js")).headers
        policy = headers["content-security-policy"]
        assert policy.endswith("frame-ancestors https://intranet.example 'self'")
        assert "x-frame-options" not in headers


@pytest.mark.parametrize("origin", ["", "a; script-src *", "a b", "a,b", "höst", "a\r\nX: y"])
def test_an_origin_that_could_be_more_is_refused(origin: str) -> None:
    async def nobody(request: Request) -> None:
        return None

    with pytest.raises(ValueError, match="frame_ancestors takes origins"):
        session_pages(nobody, frame_ancestors=[origin])


@pytest.mark.parametrize("path", sorted((WEB / "templates").glob("*.html")), ids=lambda p: p.name)
def test_no_template_needs_what_the_policy_forbids(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\sstyle=|<style|\son\w+=|javascript:", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    # What a window holds was made piece by piece, each escaped or sanitised.
    marked = {"window.html": ["window.html|safe"]}.get(path.name, [])
    assert re.findall(r"[\w.]+\s*\|\s*safe", text) == marked
    assert "autoescape" not in text


async def test_a_database_that_does_not_answer_is_asked_again_by_the_page(
    database: Database,
) -> None:
    async with connected("mongodb://127.0.0.1:1", serverSelectionTimeoutMS=50) as client:
        away = BeanieSessionStore.on(client["away"])
        async with pages_of(away) as pages:
            for path in ("/", "/figures", "/figures/tools.csv"):
                answer = await pages.get(path)
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == answer.headers["refresh"] == "8"
                assert "The database does not answer" in answer.text
                assert "127.0.0.1" not in answer.text


async def test_what_only_operators_can_mend_is_in_the_log_alone(
    mongo_url: str, database_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(mongo_url) as client:
        # Nobody has migrated it.
        bare = BeanieSessionStore.on(client[database_name])
        async with pages_of(bare) as pages:
            answer = await pages.get("/")
    assert answer.status_code == 500
    assert "upgrade_schema" not in answer.text
    assert database_name not in answer.text
    assert "upgrade_schema" in caplog.text


async def test_who_read_what_is_logged(
    store: BeanieSessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "beanie_session_store.web")
    async with pages_of(store, actor="u1\nu2 read /x") as client:
        await client.get("/")
        await client.get("/?since=soon")
        await client.get("/nowhere")
    lines = [each.getMessage() for each in caplog.records if each.name.endswith(".web")]
    assert lines == [f"u1 u2 read /x read {MOUNT}/ of tenant default"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, TEXTS)
def test_every_key_has_one_address_of_its_own(one: str, other: str) -> None:
    path = written(one)
    assert re.fullmatch(r"[\w.~%-]+", path, re.ASCII)
    assert unquote(path) not in (".", "..")
    assert "/" not in unquote(path)
    # A server decodes a path once.
    assert read(unquote(path)) == one
    assert (written(other) == path) == (one == other)


@pytest.mark.parametrize(
    "part", ["~", "~!", "~YQ", "~YQ==", "~Li4", "~Li5=", "~_w", "~ä", "~Li4\n", "~L i4"]
)
def test_no_key_has_a_second_address(part: str) -> None:
    # "~Li4" and "~" do stand for keys that can be written in no other way.
    assert read(part) in (None, "..", "")
    if read(part) is not None:
        assert written(read(part) or "") == part


@pytest.mark.parametrize(
    ("root_path", "mount"),
    [
        ("", ""),
        ("/", ""),
        ("/a/b/", "/a/b"),
        ("//evil.example", "/evil.example"),
        ("/ä b", "/%C3%A4%20b"),
    ],
)
def test_links_stay_on_the_host_and_below_the_mount(root_path: str, mount: str) -> None:
    links = Addresses.below(root_path, "0")
    assert links.sessions() == f"{mount}/"
    place = urlsplit(links.entry(KEY, 7))  # type: ignore[arg-type]
    assert (place.netloc, place.path) == ("", f"{mount}/s/p/s")
    assert (place.query, place.fragment) == ("at=7", "e7")


@pytest.mark.parametrize("mount", ["", "/a/b", "/tenants/{tenant}/pages"])
async def test_links_lead_back_to_the_pages_wherever_they_are_mounted(
    store: BeanieSessionStore, mount: str
) -> None:
    await store.append(KEY, [prompt("Hello you")])
    async with pages_of(store, mount=mount) as client:
        client.base_url = httpx.URL("http://team.example")
        at = mount.replace("{tenant}", "a%20b")
        listed = (await client.get(f"{at}/")).text
        links = re.findall(r'(?:href|src)="([^"#]+)"', listed)
        assert f"{at}/s/p/s" in links
        for link in links:
            if "/s/" not in link and "/live" not in link:
                assert (await client.get(link)).status_code == 200, link


@pytest.mark.parametrize(
    "name",
    [
        *("a/b", "..", ".", "~", "~YQ", "a b", "%2F", "%", "a?b#c&d=e", "ä\u2028", "\u202e", "\n"),
        *("a\\b", "-srv-shop", "e", "live", "x" * 200, "\x7f", ";", ":", "''", '"<b>', "+", "*"),
    ],
)
async def test_the_list_leads_to_the_session_whatever_it_is_called(
    store: BeanieSessionStore, name: str
) -> None:
    try:
        await store.append({"project_key": name, "session_id": name}, [prompt("Hello you")])
    except InvalidKeyError:
        pytest.skip("the store takes no such name")
    async with pages_of(store) as client:
        (link,) = {
            each
            for each in links_of((await client.get("/")).text)
            if each.startswith(f"{MOUNT}/s/")
        }
        answer = await client.get(link.removeprefix(MOUNT))
        assert answer.status_code == 200
        assert "Hello you" in answer.text
        # Another one's is as far away as ever.
        assert (await client.get(f"{link.removeprefix(MOUNT)}x")).status_code == 404


def test_a_download_has_a_name_that_no_header_can_be_hidden_in() -> None:
    answer = attachment(b"x", 'a"b\r\nSet-Cookie: c=1; ü/..\\\ud800.md', "text/markdown")
    value = answer.headers["content-disposition"]
    assert value.startswith('attachment; filename="a_b__Set-Cookie__c_1____..__.md"')
    assert value.isascii()
    assert value.count('"') == 2
    assert "sandbox" in answer.headers["content-security-policy"]
