"""The customers' sessions as pages, behind a login that every browser has."""

from __future__ import annotations

from secrets import compare_digest

from bson import ObjectId
from documents import Customer
from fastapi import HTTPException, Request
from fastapi.security import HTTPBasic

from beanie_session_store import BeanieSessionStore
from beanie_session_store.web import Access, session_pages

_login = HTTPBasic(realm="Sessions")


async def access(request: Request) -> Access:
    """What the customer who is logged in may see; whoever is not is asked for it."""
    given = await _login(request)
    assert given is not None
    known = ObjectId.is_valid(given.username)
    owner = await Customer.get(ObjectId(given.username)) if known else None
    secret = "" if owner is None else owner.pages_key
    if owner is None or not compare_digest(given.password.encode(), secret.encode()):
        raise HTTPException(401, "Sign in.", headers={"WWW-Authenticate": 'Basic realm="Sessions"'})
    return Access(BeanieSessionStore(tenant=str(owner.id)), actor=owner.name)


pages = session_pages(access, who="customer")
