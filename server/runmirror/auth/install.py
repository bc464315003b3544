"""What the application needs so that its requests pass the gates; with RUNMIRROR_AUTH=none, that nobody else comes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from runmirror.auth.access import Access
from runmirror.auth.identities import Identities
from runmirror.auth.loopback import OnlyLoopback
from runmirror.auth.middleware import Authenticate, public_paths
from runmirror.auth.subjects import subjects_of
from runmirror.settings import Settings
from runmirror.signin.cookies import Cookies
from runmirror.signin.oidc import provider
from runmirror.signin.places import Places


def install(app: FastAPI, settings: Settings) -> None:
    """Call it with every route in place; what is added as middleware after this comes before it."""
    app.state.subjects = subjects_of(app)
    if settings.auth != "none":
        app.state.public_paths = public_paths(app)
        app.state.places = Places(settings)
        app.state.cookies = Cookies(app.state.places)
        app.add_middleware(
            Authenticate, places=app.state.places, cookies=app.state.cookies, per_second=settings.rate_limit_per_user
        )
    elif not settings.insecure_no_auth:
        app.add_middleware(OnlyLoopback)


@asynccontextmanager
async def identifying(app: FastAPI, settings: Settings, database_url: str) -> AsyncIterator[None]:
    """Know who sends a request, as long as the application lives."""
    if settings.auth == "none":
        yield
        return
    app.state.identities = Identities(app.state.engine, database_url, settings)
    app.state.provider = provider(settings, app.state.identities.issuer)
    app.state.access = Access(app.state.engine, app.state.identities)
    await app.state.identities.start()
    try:
        yield
    finally:
        await app.state.identities.close()
