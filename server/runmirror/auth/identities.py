"""Tokens, passwords and sessions, and whose they are; asked of the database once and then kept for a short while.

What is kept is thrown away at any change of users, groups, tokens, sessions and grants, by whichever process: Postgres
tells all of them (`runmirror_identity`, see migrations 0019 and 0024), so that a revocation holds at once everywhere.
While nobody listens, because the connection is gone, nothing is kept. Beyond that nothing is kept longer than `LIFE_S`.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets as random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runmirror.auth import queries, secrets, service
from runmirror.auth.issuer import Claims, Issuer
from runmirror.auth.levels import ROLES, Kind, Level
from runmirror.auth.viewer import Viewer
from runmirror.db import DATABASE_ERRORS
from runmirror.errors import Busy
from runmirror.listen import cancel, listen
from runmirror.settings import Settings

log = logging.getLogger(__name__)

CHANNEL = "runmirror_identity"
LIFE_S = 30.0  # so late it is written too when a token was last used
_MOST_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class _Kept:
    viewer: Viewer
    until: float  # by the monotonic clock


class Identities:
    """Who sends a request; `epoch` changes when anything that was found out may hold no longer."""

    def __init__(self, engine: AsyncEngine, database_url: str, settings: Settings) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._database_url = database_url
        self.issuer = None
        if settings.auth == "entra":
            self.issuer = Issuer(str(settings.oidc_issuer), str(settings.oidc_audience), settings.ca_bundle)
        self._admin_role = settings.oidc_admin_role
        self._default = int(ROLES[settings.default_permission])
        self._listening = False
        self._forgetting: list[Callable[[], None]] = []
        self._kept: dict[bytes, _Kept] = {}
        self._asking: dict[bytes, asyncio.Task[Viewer | None]] = {}
        self._proved: dict[bytes, str] = {}  # passwords that were found to fit, by the hash they fit
        self._guesses = asyncio.Semaphore(2)
        self._key = random.token_bytes(32)
        self._used: dict[int, datetime] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_fresh(self) -> bool:
        """Whether a change would be heard of, so that what was found out may be kept."""
        return self._listening

    def at_change(self, forget: Callable[[], None]) -> None:
        """Have `forget` called whenever something changed, or may have."""
        self._forgetting.append(forget)

    async def start(self) -> None:
        heard = _Heard(self._changed)
        self._tasks = [
            asyncio.create_task(listen(self._database_url, CHANNEL, heard, lost=self._lost)),
            asyncio.create_task(self._now_and_then()),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            await cancel(task)
        await self._note()

    async def of_token(self, token: str) -> Viewer | None:
        """None unless it is one of ours that was neither revoked nor has expired."""
        if not secrets.is_token(token):
            return None
        digest = secrets.digest(token)
        kept = self._kept.get(digest)
        viewer = kept.viewer if kept is not None and kept.until > time.monotonic() else None
        if viewer is None:
            viewer = await self._ask(digest, lambda: self._look_up_token(digest))
        if viewer is not None and viewer.token_id is not None:
            self._used[viewer.token_id] = datetime.now(UTC)
        return viewer

    async def of_jwt(self, token: str) -> Viewer | None:
        """None unless the issuer that is trusted gave it out, for this server, and it has not ended."""
        if self.issuer is None:
            return None
        issuer, digest = self.issuer, secrets.digest(token)
        kept = self._kept.get(digest)
        if kept is not None and kept.until > time.monotonic():
            return kept.viewer
        return await self._ask(digest, lambda: self._look_up_jwt(issuer, token))

    async def of_session(self, session: str) -> Viewer | None:
        """None unless it is one of ours that has not ended, and neither has the token that it was opened with."""
        if not secrets.is_session(session):
            return None
        digest = secrets.digest(session)
        kept = self._kept.get(digest)
        viewer = kept.viewer if kept is not None and kept.until > time.monotonic() else None
        if viewer is None:
            viewer = await self._ask(digest, lambda: self._look_up_session(digest))
        if viewer is not None and viewer.token_id is not None:
            self._used[viewer.token_id] = datetime.now(UTC)
        return viewer

    async def of_name(self, name: str, secret: str) -> Viewer | None:
        """Whose token this is, if it is theirs who say so; or whose password, and theirs alone."""
        if not secrets.is_token(secret):
            return await self.of_password(name, secret)
        viewer = await self.of_token(secret)
        return viewer if viewer is not None and name in {"", "token", viewer.name} else None

    async def of_password(self, name: str, password: str) -> Viewer | None:
        """None unless it is the password of that user."""
        if "\0" in name:
            return None  # no user of Postgres' can be called so
        proof = hmac.digest(
            self._key, f"{len(name)}:{name}:{password}".encode("utf-8", "surrogatepass"), hashlib.sha256
        )
        kept = self._kept.get(proof)
        if kept is not None and kept.until > time.monotonic():
            return kept.viewer
        return await self._ask(proof, lambda: self._look_up_password(name, password, proof))

    async def _ask(self, key: bytes, look_up: Callable[[], Awaitable[Viewer | None]]) -> Viewer | None:
        """One look-up, however many requests of the same sender wait for it."""
        asking = self._asking
        task = asking.get(key)
        if task is None:
            task = asking[key] = asyncio.create_task(self._look_up(key, look_up))
            task.add_done_callback(lambda _: asking.pop(key, None))
        return await asyncio.shield(task)

    async def _look_up(self, key: bytes, look_up: Callable[[], Awaitable[Viewer | None]]) -> Viewer | None:
        kept_in, began = self._kept, time.monotonic()
        viewer = await look_up()
        # A change that came meanwhile has made `_kept` another dictionary: what is put into the old one is lost.
        if viewer is not None and self._listening and len(kept_in) < _MOST_KEPT:
            life = LIFE_S if viewer.expires_in_s is None else min(LIFE_S, viewer.expires_in_s)
            kept_in[key] = _Kept(viewer, began + life)
        return viewer

    async def _look_up_token(self, digest: bytes) -> Viewer | None:
        row = await self._query(lambda connection: queries.by_token(connection, digest))
        if row is None:
            return None
        expires_in_s = None if row.expires_s is None else row.expires_s - row.now_s
        return self._viewer(row, token_id=row.token_id, expires_in_s=expires_in_s)

    async def _look_up_session(self, digest: bytes) -> Viewer | None:
        row = await self._query(lambda connection: queries.by_session(connection, digest))
        if row is None or (row.way == "oidc" and self.issuer is None):  # whom nobody vouches for any more
            return None
        return self._viewer(
            row, is_admin=row.is_admin_by_role, token_id=row.token_id, session_id=row.session_id,
            shown=row.description or "", expires_in_s=row.expires_s - row.now_s,
        )  # fmt: skip

    async def _look_up_jwt(self, issuer: Issuer, token: str) -> Viewer | None:
        claims = await issuer.claims(token)
        return None if claims is None else await self.of_claims(claims)

    async def of_claims(self, claims: Claims) -> Viewer | None:
        """Their groups here are those called like one of the token's roles or groups."""
        if not service.is_name(claims.who):
            return None
        claimed = claims.claimed

        async def look(connection: AsyncConnection) -> Row[Any] | None:
            row = await queries.by_name(connection, claims.who, claimed)
            if row is None:
                await queries.first_seen(connection, claims.who, claims.shown.replace("\0", ""))
                row = await queries.by_name(connection, claims.who, claimed)
            return row

        row = await self._query(look)
        is_admin = self.is_admin_by_role(claims)
        return None if row is None else self._viewer(row, is_admin=is_admin, expires_in_s=claims.exp - time.time())

    def is_admin_by_role(self, claims: Claims) -> bool:
        return self._admin_role in claims.roles

    async def _look_up_password(self, name: str, password: str, proof: bytes) -> Viewer | None:
        row = await self._query(lambda connection: queries.by_name(connection, name))
        stored: str | None = None if row is None else row.password
        if stored is None:
            await self._fits(password, _nobodys())  # it takes as long as for a user
            return None
        if self._proved.get(proof) != stored:
            if not await self._fits(password, stored):
                return None
            if len(self._proved) >= _MOST_KEPT:
                self._proved.clear()
            self._proved[proof] = stored
        return self._viewer(row)

    async def _fits(self, password: str, stored: str) -> bool:
        """Two guesses at a time: whoever sends many keeps nobody waiting but those who have a password."""
        async with self._guesses:
            return await asyncio.to_thread(secrets.password_fits, password, stored)

    def _viewer(
        self, row: Any, *, is_admin: bool = False, token_id: int | None = None, session_id: int | None = None,
        shown: str = "", expires_in_s: float | None = None,
    ) -> Viewer:  # fmt: skip
        is_admin = is_admin or row.is_admin

        def sees_all(kind: Kind) -> bool:
            levels = row.granted.get(kind, {})
            least, everywhere = levels.get("least"), levels.get("everywhere")
            hidden = least is not None and least < Level.READ
            return is_admin or (not hidden and (everywhere is not None or self._default >= Level.READ))

        return Viewer(
            user_id=row.user_id,
            name=row.name,
            is_admin=is_admin,
            principals=tuple(sorted(row.principals)),
            default_level=self._default,
            reads_all_experiments=sees_all(Kind.EXPERIMENT),
            reads_all_models=sees_all(Kind.REGISTERED_MODEL),
            token_id=token_id,
            session_id=session_id,
            shown=shown,
            expires_in_s=expires_in_s,
        )

    async def _query(self, ask: Callable[[AsyncConnection], Awaitable[Row[Any] | None]]) -> Row[Any] | None:
        try:
            async with self._engine.connect() as connection:
                return await ask(connection)
        except DATABASE_ERRORS as error:
            raise Busy("The database cannot be reached or is busy; nothing was done, try again.") from error

    def _changed(self) -> None:
        self._listening = True
        self._forget()

    def _lost(self) -> None:
        self._listening = False
        self._forget()

    def _forget(self) -> None:
        self._kept, self._asking = {}, {}
        for forget in self._forgetting:
            forget()

    async def _now_and_then(self) -> None:
        while True:
            await asyncio.sleep(LIFE_S)
            self._forget()
            await self._note()

    async def _note(self) -> None:
        used, self._used = self._used, {}
        if used:
            with suppress(*DATABASE_ERRORS):  # nobody waits for it, and the next use tells it again
                async with self._engine.connect() as connection:
                    await queries.note_use(connection, used)


class _Heard(asyncio.Event):
    """What `listen` sets: it is acted on in that very moment."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act = act

    def set(self) -> None:
        self._act()


@cache
def _nobodys() -> str:
    return secrets.hash_password("")
