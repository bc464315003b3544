"""The rules of users, roles and grants, and their order."""

import asyncio
from typing import Any

from sqlalchemy.engine import Row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit
from runmirror.auth import people_queries, secrets, service
from runmirror.auth.levels import Kind, Level, word_for
from runmirror.auth.permits import current
from runmirror.auth.subjects import Thing
from runmirror.auth.things import not_found, places_of
from runmirror.errors import AlreadyExists, DoesNotExist, InvalidParameter, PermissionDenied

_SHORTEST_PASSWORD = 12  # as MLflow's
EVERYWHERE = "*"
_ALL = -1
_THINGS = {
    "experiment": Thing.EXPERIMENT,
    "registered_model": Thing.REGISTERED_MODEL,
    "prompt": Thing.REGISTERED_MODEL,  # prompts are registered models
}
_EVERYONE = "everyone"


def require_admin() -> None:
    if not current().is_admin:
        raise PermissionDenied("Permission denied: this is for admins.")


def require_admin_or(username: str) -> None:
    viewer = current().viewer
    if viewer is None or viewer.name != username:
        require_admin()


async def user(connection: AsyncConnection, username: str) -> Row[Any]:
    found = await people_queries.user(connection, username) if "\0" not in username else None
    if found is None:
        raise DoesNotExist(f"User with username={username} not found")
    return found


async def group(connection: AsyncConnection, group_id: int) -> Row[Any]:
    found = await people_queries.groups(connection, group_id)
    if not found:
        raise DoesNotExist(f"Role with id={group_id} not found")
    return found[0]


async def own_group(connection: AsyncConnection, group_id: int) -> Row[Any]:
    """One that may be changed: everyone is in `everyone`, always."""
    found = await group(connection, group_id)
    if found.name == _EVERYONE:
        raise InvalidParameter("All users are in 'everyone': only its permissions can be changed.")
    return found


async def hashed(password: str) -> str:
    if len(password) < _SHORTEST_PASSWORD:
        raise InvalidParameter(f"Password must be at least {_SHORTEST_PASSWORD} characters long.")
    return await asyncio.to_thread(secrets.hash_password, password)


async def create_user(connection: AsyncConnection, username: str, hashed_password: str) -> int:
    service.check_name(username)
    created = await people_queries.create(connection, "user", username, password=hashed_password)
    if created is None:
        raise AlreadyExists(f"User (username={username}) already exists.")
    await audit.record(connection, "user.create", username)
    return created


async def create_group(connection: AsyncConnection, name: str, description: str | None) -> int:
    service.check_name(name, "name of a role")
    created = await people_queries.create(connection, "group", name, description=description)
    if created is None:
        raise AlreadyExists(f"Role (name={name}) already exists.")
    await audit.record(connection, "role.create", name)
    return created


async def update_group(connection: AsyncConnection, group_id: int, name: str | None, description: str | None) -> None:
    if name is not None:
        service.check_name(name, "name of a role")
    try:
        await people_queries.update_group(connection, group_id, name, description)
    except IntegrityError as error:
        raise AlreadyExists(f"Role (name={name}) already exists.") from error
    await audit.record(connection, "role.update", f"{group_id} {name or ''}".rstrip())


async def resource(connection: AsyncConnection, resource_type: str, resource_id: str) -> tuple[Kind, int]:
    """What a grant is about. Raises `InvalidParameter` for a type without permissions here, and `DoesNotExist`."""
    thing = _THINGS.get(resource_type)
    if thing is None:
        raise InvalidParameter(
            f"Permissions are of experiments, registered models and prompts here, not of {resource_type[:80]!r}: what "
            "lies in an experiment has its permission."
        )
    kind = Kind.EXPERIMENT if thing is Thing.EXPERIMENT else Kind.REGISTERED_MODEL
    if resource_id == EVERYWHERE:
        return kind, _ALL
    places = await places_of(connection, thing, [resource_id])
    if resource_id not in places:
        raise not_found(thing, resource_id)
    return kind, places[resource_id][0]


async def require_manager(connection: AsyncConnection, resource_type: str, resource_id: str) -> tuple[Kind, int]:
    """What a grant is about that the caller may give: managers give what they manage, admins everything."""
    if resource_id == EVERYWHERE:
        require_admin()
    kind, number = await resource(connection, resource_type, resource_id)
    await current().require(_THINGS[resource_type], [resource_id], Level.MANAGE, connection=connection)
    return kind, number


async def grant(connection: AsyncConnection, to: Row[Any], what: tuple[Kind, int], level: Level) -> int:
    """The id of the grant; `to` is a user or a group."""
    kind, number = what
    granted = await people_queries.grant(connection, to.id, kind, number, level)
    await audit.record(connection, "permission.grant", f"{word_for(level)} of {named(kind, number)} to {to.name}")
    return granted


async def revoke(connection: AsyncConnection, of: Row[Any], what: tuple[Kind, int]) -> bool:
    """Whether there was a grant; `of` is a user or a group."""
    kind, number = what
    if not await people_queries.revoke(connection, of.id, kind, number):
        return False
    await audit.record(connection, "permission.revoke", f"{named(kind, number)} from {of.name}")
    return True


def named(kind: Kind, number: int) -> str:
    """What a grant is about, for the audit log: ids, since names change."""
    return f"every {kind}" if number == _ALL else f"{kind} {number}"
