"""The list: which sessions, in which words, at which addresses."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.pages import (
    MOUNT,
    account,
    answer,
    days_ago,
    failed,
    links_of,
    pages_of,
    prompt,
    rows_of,
    shape_of,
)
from support.server import profiled

from beanie_session_store import BeanieSessionStore, enable_search
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.web.search_hits import excerpt, looked_for

SUMMARIES = "claude_transcript_summaries"


def key(session: str, project: str = "p") -> dict[str, str]:
    return {"project_key": project, "session_id": session}


def sessions_in(html: str) -> list[list[str]]:
    """The cells of the sessions that a list shows."""
    return [row for row in rows_of(html) if len(row) > 3][1:]


def names_in(html: str) -> list[str]:
    return [row[0] for row in sessions_in(html)]


async def test_a_row_says_what_a_session_took(store: BeanieSessionStore) -> None:
    mine = BeanieSessionStore(metadata={"user_id": "u7"})
    call = answer("I look", "Bash", "Read", tokens=(1000, 2000, 3000, 604_000))
    await mine.append(
        key("own"), [prompt("Mend it", gitBranch="fix/it"), call, failed(call), account(6.84)]
    )
    await mine.append(key("own"), [{"type": "tag", "tag": "payments"}])
    await mine.append(key("est"), [prompt("Again"), answer("Yes", tokens=(200_000, 40_000, 0, 0))])
    await mine.append(key("odd"), [prompt("Oddly"), answer("Yes", model="no-such-model")])
    await mine.append(key("no"), [{"type": "mode", "mode": "default", "sessionId": "no"}])
    async with pages_of(store, who="user_id") as client:
        found = {row[0]: row[1:] for row in sessions_in((await client.get("/")).text)}
    assert found == {
        "Mend it live pbranch fix/ittag payments": [
            *("u7", "0 s ago", "1 turn", "2 tools", "1 failed", "610k tokens"),
            "$6.84 ≈ estimated $0.38 by the list",
        ],
        # 200,000 of input and 40,000 of output at 5 and 25 dollars a million.
        "Again live p": [
            *("u7", "0 s ago", "1 turn", "0 tools", "0 failed", "240k tokens"),
            "≈ estimated $2.00",
        ],
        "Oddly live p": ["u7", "0 s ago", "1 turn", "0 tools", "0 failed", "15 tokens", "unknown"],
        "No prompt yet live p": [
            *("u7", "0 s ago", "0 turns", "0 tools", "0 failed", "0 tokens", "$0.00")
        ],
    }


async def fill(database: Database, sessions: int) -> None:
    """Sessions of which one was active each hour, one after the other."""
    await BeanieSessionStore().append(key("first"), [prompt("Title")])
    summaries = database[SUMMARIES]
    one = await summaries.find_one()
    assert one is not None
    await summaries.delete_many({})
    now = datetime.now(timezone.utc)
    rows: list[dict[str, Any]] = []
    for number in range(sessions):
        at = now - timedelta(hours=number, minutes=5)
        row = {name: value for name, value in one.items() if name != "_id"}
        row |= {
            "session_id": f"s{number}",
            "project_key": f"p{number % 2}",
            "title": f"Title {number}.",
            "branch": f"b{number % 3}",
            "tag": f"t{number % 5}",
            "metadata": {"user_id": number % 2 if number % 4 < 2 else f"u{number % 4}"},
            "active_at": at,
            "mtime": int(at.timestamp() * 1000),
            "totals": {**one["totals"], "last_at": at},
        }
        rows.append(row)
    await summaries.insert_many(rows)


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("", lambda n: True),
        ("q=TITLE+1", lambda n: str(n).startswith("1")),
        ("q=.*", lambda n: False),
        ("project=p1", lambda n: n % 2 == 1),
        ("branch=b2", lambda n: n % 3 == 2),
        ("tag=t4", lambda n: n % 5 == 4),
        ("user_id=u3", lambda n: n % 4 == 3),
        # What is a number in the metadata is a text in an address.
        ("user_id=1", lambda n: n % 4 == 1),
        ("user_id=true", lambda n: False),
        ("since=24h", lambda n: n < 24),
        ("since=1d", lambda n: n < 24),
        ("until=24h", lambda n: n >= 24),
        ("live=1", lambda n: False),
        ("project=p0&branch=b0&tag=t0", lambda n: n % 30 == 0),
    ],
)
async def test_a_filter_leaves_what_fits(database: Database, query: str, fits: Any) -> None:
    await fill(database, 32)
    async with pages_of(BeanieSessionStore(), who="user_id") as client:
        answered = await client.get(f"/?{query}")
        assert answered.status_code == 200
        assert [int(name.split(".")[0][6:]) for name in names_in(answered.text)] == [
            n for n in range(32) if fits(n)
        ]


async def test_pages_hold_every_session_once(database: Database) -> None:
    await fill(database, 120)
    async with pages_of(BeanieSessionStore()) as client:
        link: str | None = "/"
        found: list[str] = []
        sizes: list[int] = []
        while link is not None:
            page = (await client.get(link)).text
            found += names_in(page)
            sizes.append(len(names_in(page)))
            older = re.search(r'href="([^"]+)" rel="next"', page)
            link = older and older[1].removeprefix(MOUNT)
            assert ("Latest sessions" in page) == (len(sizes) > 1)
            # What moves to the front is not seen on a later page.
            assert ("data-live" in page) == (len(sizes) == 1)
    assert sizes == [50, 50, 20]
    assert [int(name.split(".")[0][6:]) for name in found] == list(range(120))


async def test_days_are_headings(database: Database) -> None:
    await fill(database, 60)
    async with pages_of(BeanieSessionStore()) as client:
        page = (await client.get("/")).text
    headings = [row[0] for row in rows_of(page) if len(row) == 1]
    assert len(headings) in (3, 4)
    assert headings == list(dict.fromkeys(headings))
    names = [heading.split(",")[0] for heading in headings]
    # A minute after midnight nothing is of today.
    assert "Yesterday" in names[:2]


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("q=&in=titles&project=&branch=&tag=&since=", ""),
        ("live=0&q=+x+", "q=x"),
        ("tag=a&project=b", "project=b&tag=a"),
        ("in=said", ""),
        ("utm_source=mail", ""),
        ("q=a&q=b", "q=b"),
        ("q=%C3%A4%20b&in=titles", "q=%C3%A4+b"),
    ],
)
async def test_equal_lists_have_equal_addresses(
    store: BeanieSessionStore, given: str, canonical: str
) -> None:
    async with pages_of(store) as client:
        sent = await client.get(f"/?{given}")
        assert sent.status_code == 303
        assert sent.headers["location"] == f"{MOUNT}/" + (f"?{canonical}" if canonical else "")
        there = await client.get(urlsplit(sent.headers["location"])._replace(path="/").geturl())
        assert there.status_code == 200


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("since=soon", 400),
        ("since=2026-13-01", 400),
        ("until=0d", 400),
        ("after=x", 400),
        ("q=" + "x" * 9000, 400),
        ("q=%00", 400),
        ("project=%00", 404),
        ("since=9999d", 200),
        ("since=0001-01-01", 200),
        ("until=9999-12-31", 200),
        ("user_id=1e400", 200),
        ("user_id=123456789012345678901234567890", 200),
        ("user_id=" + "[" * 5000, 200),
        ("user_id=%7B%22%24ne%22%3A1%7D", 200),
        ("q=%F0%9F%98%80%E2%80%AE", 200),
    ],
)
async def test_no_address_breaks_the_list(
    store: BeanieSessionStore, query: str, status: int
) -> None:
    await store.append(key("s"), [prompt("Hello")])
    async with pages_of(store, who="user_id") as client:
        assert (await client.get(f"/?{query}")).status_code == status


async def test_what_is_imported_is_not_live(store: BeanieSessionStore) -> None:
    await store.append(key("old"), [prompt("Old", at=days_ago(3))])
    await store.append(key("new"), [prompt("New")])
    async with pages_of(store) as client:
        assert [name.split()[:2] for name in names_in((await client.get("/")).text)] == [
            ["New", "live"],
            ["Old", "p"],
        ]


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' autofocus onfocus=alert(1) x='",
        "{{ 7 * 7 }}{% raw %}",
        "javascript:alert(1)",
        "\u202egnp.exe\u2066",
        "\ud800 half",
        "</title></textarea></template><!--",
    ],
)
async def test_what_is_hostile_is_but_text(store: BeanieSessionStore, hostile: str) -> None:
    safe = re.sub("[\ud800\0/]", "_", hostile)
    harmless = "harmless"
    for text, name in ((harmless, harmless), (hostile, safe)):
        mine = BeanieSessionStore(tenant=name, metadata={"user_id": name})
        tag = {"type": "tag", "tag": name}
        asked = prompt(text, gitBranch=text)
        await mine.append(key(name, name), [asked, tag, answer("x", name, model=name)])
    shapes: list[list[list[object]]] = []
    for name in (harmless, safe):
        tenant = BeanieSessionStore(tenant=name)
        async with pages_of(tenant, who="user_id", actor=name) as client:
            pages = [
                (await client.get(path, params=query)).text
                for path in ("/", "/figures")
                for query in ({}, {"project": name}, {"project": name, "user_id": name})
            ]
            pages += [(await client.get("/", params={"q": f"{name}?", "tag": f"{name}?"})).text]
        shapes.append([shape_of(page) for page in pages])
        assert all(link.startswith(("/team/sessions/", "#")) for p in pages for link in links_of(p))
        # Nothing turns the order of what follows around, but in a field where one edits it.
        assert not any("\u202e" in re.sub(r'value="[^"]*"', "", page) for page in pages[:6])
    assert shapes[0] == shapes[1]
    assert shapes[0][0]


@pytest.mark.parametrize(
    ("query", "without"),
    [
        ("project=p1&tag=none", ["tag none"]),
        ("branch=none&tag=none", []),
        ("tag=none", []),
        ("q=Title&project=p1&live=1", ["live only"]),
    ],
)
async def test_nothing_that_matches_is_said_with_the_way_out(
    database: Database, query: str, without: list[str]
) -> None:
    await fill(database, 4)
    async with pages_of(BeanieSessionStore()) as client:
        page = (await client.get(f"/?{query}")).text
    assert "No session matches" in page
    assert "Remove all filters" in page
    offered = [re.sub("<[^>]+>", "", each) for each in re.findall(r"Without “(.*?)”", page)]
    assert offered == without


async def test_where_nothing_is_stored_it_is_said_how_to_begin(database: Database) -> None:
    async with pages_of(BeanieSessionStore(tenant="a<b")) as client:
        page = (await client.get("/")).text
        assert "No session is stored for this tenant yet" in page
        assert "session-store --tenant a&lt;b import ~/.claude/projects" in page
        assert "Nothing was used" in (await client.get("/figures")).text


async def test_what_was_said_is_found_and_leads_to_the_entry(database: Database) -> None:
    store = BeanieSessionStore(metadata={"user_id": "u1"})
    await store.append(
        key("a"), [prompt("First"), answer("The idempotency <b>key</b> is missing, see 7")]
    )
    await store.append(
        {**key("a"), "subpath": "subagents/agent-rev1"}, [answer("no Idempotency here either")]
    )
    other = BeanieSessionStore(metadata={"user_id": "u2"})
    await other.append(key("b", "q"), [prompt("Why idempotency?")])
    await BeanieSessionStore(tenant="other").append(key("c"), [prompt("idempotency, ours")])
    async with pages_of(store, who="user_id") as client:
        off = (await client.get("/?q=idempotency&in=said")).text
        assert "Searching everything said is not turned on" in off
        await enable_search(database)
        page = (await client.get("/?q=idempotency&in=said")).text
        assert "3 shown, best match first" in page
        links = re.findall(rf'<li><a href="({MOUNT}/s/[^"]+)"', page)
        assert sorted(links) == [
            f"{MOUNT}/s/p/a?at=2#e2",
            f"{MOUNT}/s/p/a?at=3#e3",
            f"{MOUNT}/s/q/b?at=1#e1",
        ]
        for link in links:
            address, anchor = link.removeprefix(MOUNT).split("#")
            there = await client.get(address)
            assert there.status_code == 200
            assert f'id="{anchor}"' in there.text
        assert "The <mark>idempotency</mark> &lt;b&gt;key&lt;/b&gt; is missing" in page
        assert "no <mark>Idempotency</mark> here" in page
        assert "subagent rev1" in page
        for query, count in (("user_id=u2", 1), ("project=p", 2), ("tag=x", 0), ("since=24h", 3)):
            narrowed = (await client.get(f"/?q=idempotency&in=said&{query}")).text
            # The filters stand behind the words, so the address is sent again.
            if not narrowed:
                narrowed = (
                    await client.get(f"/?q=idempotency&in=said&{query}", follow_redirects=True)
                ).text
            assert narrowed.count('<li><a href="/team/sessions/s/') == count, query
        assert "Nobody said that" in (await client.get("/?q=xyzzy&in=said")).text
        for odd in ('"', "-idempotency", "$where", "*", "\U0001f600", "- -", '"zz yy', "x" * 1000):
            answered = await client.get("/", params={"q": odd, "in": "said"})
            assert answered.status_code == 200, odd
            assert "Nobody said that" in answered.text, odd


@pytest.mark.parametrize(
    ("text", "words", "shown"),
    [
        ("a b c", ["b"], "a [b] c"),
        ("x" * 200 + " Key " + "y" * 400, ["key"], f"… {'x' * 79} [Key] {'y' * 236} …"),
        ("keys and key", ["key"], "keys and [key]"),
        ("nothing of it", ["other"], "nothing of it"),
        ("any", [], "any"),
        ("", ["a"], ""),
        ("a.b a+b", ["a+b"], "a.b [a+b]"),
        ("one\n\n  two\tone", ["one"], "[one] two [one]"),
        ("\u202eone\x1b[0m", ["one"], "\ufffd[one]\u241b[0m"),
    ],
)
def test_an_excerpt_is_what_stands_around_the_words(
    text: str, words: list[str], shown: str
) -> None:
    parts = excerpt(text, words).parts
    assert "".join(f"[{part}]" if is_wanted else part for part, is_wanted in parts) == shown


def test_words_that_must_not_occur_are_not_looked_for() -> None:
    assert looked_for('idempotency "gateway key" -order a-b') == [
        *("idempotency", "gateway", "key", "a", "b")
    ]
    assert looked_for("-a -b") == []


async def test_what_was_said_stays_in_the_database_for_who_sees_figures_alone(
    database: Database,
) -> None:
    await fill(database, 3)
    found: list[dict[str, Any]] = []
    async with pages_of(BeanieSessionStore(), contents=False) as client, profiled(database, found):
        assert len(sessions_in((await client.get("/")).text)) == 3
        assert (await client.get("/figures")).status_code == 200
    finds = [each["command"] for each in found if each["op"] == "query"]
    assert finds
    for command in finds:
        assert (
            set(command["projection"]) & {"title", "first_prompt", "branch", "cwd", "tag"} == set()
        )
        assert command["projection"]["totals"] == 1


async def test_projects_come_from_an_index_alone(database: Database) -> None:
    await fill(database, 40)
    await BeanieSessionStore(tenant="other").append(key("s", "theirs"), [prompt("Hello")])
    found: list[dict[str, Any]] = []
    async with profiled(database, found):
        assert await BeanieSessionStore().projects() == ["p0", "p1"]
    (asked,) = [each for each in found if each["command"].get("distinct")]
    assert asked["docsExamined"] == 0
    assert asked["keysExamined"] <= 4
