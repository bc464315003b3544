"""HTTP of users, roles and grants, so that `mlflow.server.get_app_client("basic-auth", …)` works here as there.

A role of MLflow's is a group here. What a user is granted alone is theirs; MLflow keeps it in a role of their own.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit
from runmirror.auth import people, people_queries, queries, secrets
from runmirror.auth import people_wire as wire
from runmirror.auth.levels import Level, parse_level, word_for
from runmirror.auth.old_permissions_wire import UserWithPermissions, UserWithPermissionsAnswer
from runmirror.auth.permits import current
from runmirror.db import ReadConnection, WriteConnection
from runmirror.errors import DoesNotExist, InvalidParameter, PermissionDenied
from runmirror.routing import Permission, mlflow_route
from runmirror.signin import queries as sessions
from runmirror.wire import Empty

router = APIRouter(tags=["users"])

_read = partial(mlflow_route, router, permission=Permission.READ)
_manage = partial(mlflow_route, router, permission=Permission.MANAGE)
_V3 = "3.0"


@_manage("POST", "/users/create")
async def create_user(request: wire.CreateUser, connection: WriteConnection) -> UserWithPermissionsAnswer:
    """A user with a password; one with tokens alone is made by `runmirror token create`."""
    created = await people.create_user(connection, request.username, await people.hashed(request.password))
    user = UserWithPermissions(id=created, username=request.username, is_admin=False)
    return UserWithPermissionsAnswer(user=user)


@_read("GET", "/users/get")
async def get_user(request: Annotated[wire.Username, Query()], connection: ReadConnection) -> UserWithPermissionsAnswer:
    people.require_admin_or(request.username)
    user = await people.user(connection, request.username)
    granted = await people_queries.grants(connection, [user.id])
    return UserWithPermissionsAnswer(user=UserWithPermissions.of(user, granted))


@_read("GET", "/users/current")
async def get_current_user(connection: ReadConnection) -> wire.CurrentUser:
    viewer = current().viewer
    if viewer is None:
        raise DoesNotExist("Nobody is signed in: RUNMIRROR_AUTH is none.")
    return wire.CurrentUser(user=_user(await people.user(connection, viewer.name)))


@_manage("GET", "/users/list")
async def list_users(connection: ReadConnection) -> wire.Users:
    return wire.Users(users=[_user(row) for row in await people_queries.users(connection)])


@_read("PATCH", "/users/update-password")
async def update_user_password(request: wire.UpdatePassword, connection: WriteConnection) -> Empty:
    """Whoever changes their own password says the one they have, if they have one; an admin changes anybody's."""
    people.require_admin_or(request.username)
    user = await people.user(connection, request.username)
    viewer = current().viewer
    if viewer is not None and viewer.name == request.username and user.password is not None:
        if not request.current_password:
            raise InvalidParameter("Current password is required when changing your own password.")
        if not await asyncio.to_thread(secrets.password_fits, request.current_password, user.password):
            raise InvalidParameter("Current password does not match.")
        if request.password == request.current_password:
            raise InvalidParameter("New password must differ from the current password.")
    await people_queries.set_password(connection, user.id, await people.hashed(request.password))
    await sessions.end_all(connection, user.id)  # whoever knew the old one is out
    await audit.record(connection, "user.password", user.name)
    return Empty()


@_manage("PATCH", "/users/update-admin")
async def update_user_admin(request: wire.UpdateAdmin, connection: WriteConnection) -> Empty:
    user = await people.user(connection, request.username)
    await people_queries.set_admin(connection, user.id, is_admin=request.is_admin)
    await audit.record(connection, "user.admin" if request.is_admin else "user.no_admin", user.name)
    return Empty()


@_manage("DELETE", "/users/delete")
async def delete_user(request: wire.Username, connection: WriteConnection) -> Empty:
    """With tokens and grants; what the user logged stays."""
    await people_queries.delete(connection, (await people.user(connection, request.username)).id)
    await audit.record(connection, "user.delete", request.username)
    return Empty()


@_read("POST", "/users/permissions/grant", version=_V3)
async def grant_user_permission(request: wire.GrantToUser, connection: WriteConnection) -> Empty:
    """Managers grant what they manage."""
    level = parse_level(request.permission)
    what = await people.require_manager(connection, request.resource_type, request.resource_id)
    await people.grant(connection, await people.user(connection, request.username), what, level)
    return Empty()


@_read("POST", "/users/permissions/revoke", version=_V3)
async def revoke_user_permission(request: wire.ResourceOf, connection: WriteConnection) -> Empty:
    what = await people.require_manager(connection, request.resource_type, request.resource_id)
    if not await people.revoke(connection, await people.user(connection, request.username), what):
        raise DoesNotExist(f"Nothing was granted to {request.username} there.")
    return Empty()


@_read("GET", "/users/permissions/get", version=_V3)
async def get_user_permission(
    request: Annotated[wire.ResourceOf, Query()], connection: ReadConnection
) -> wire.UsersPermission:
    """What a user may do, all told: for themselves, and for managers of what it is about."""
    viewer = current().viewer
    if viewer is None or viewer.name != request.username:
        await people.require_manager(connection, request.resource_type, request.resource_id)
    user = await people.user(connection, request.username)
    try:
        kind, number = await people.resource(connection, request.resource_type, request.resource_id)
    except DoesNotExist:
        return wire.UsersPermission(allowed=False, permission=word_for(Level.NONE))
    level = int(Level.MANAGE)
    if not user.is_admin:
        of = [user.id, *(group.id for group in await people_queries.groups_of(connection, user.id))]
        default = viewer.default_level if viewer else int(Level.NONE)
        level = (await queries.levels(connection, kind, [number], of, default))[number]
    return wire.UsersPermission(allowed=level > Level.READ, permission=word_for(level))


@_read("GET", "/users/permissions/list", version=_V3)
async def list_user_permissions(
    request: Annotated[wire.Username, Query()], connection: ReadConnection
) -> wire.UsersPermissions:
    people.require_admin_or(request.username)
    user = await people.user(connection, request.username)
    of = [user.id, *(group.id for group in await people_queries.groups_of(connection, user.id))]
    granted = await people_queries.grants(connection, of)
    return wire.UsersPermissions(is_admin=user.is_admin, permissions=[wire.GrantWire.of(row) for row in granted])


@_manage("POST", "/roles/create", version=_V3)
async def create_role(request: wire.CreateRole, connection: WriteConnection) -> wire.RoleAnswer:
    _only_workspace(request.workspace)
    created = await people.create_group(connection, request.name, request.description)
    return wire.RoleAnswer(role=wire.RoleWire(id=created, name=request.name, description=request.description))


@_read("GET", "/roles/get", version=_V3)
async def get_role(request: Annotated[wire.RoleId, Query()], connection: ReadConnection) -> wire.RoleAnswer:
    """For admins and for who is in it."""
    viewer = current().viewer
    if not current().is_admin and (viewer is None or request.role_id not in viewer.principals):
        raise PermissionDenied("Permission denied: you are not in this role.")
    [role] = await _roles(connection, [await people.group(connection, request.role_id)])
    return wire.RoleAnswer(role=role)


@_manage("GET", "/roles/list", version=_V3)
async def list_roles(request: Annotated[wire.ListRoles, Query()], connection: ReadConnection) -> wire.Roles:
    _only_workspace(request.workspace)
    return wire.Roles(roles=await _roles(connection, await people_queries.groups(connection)))


@_manage("PATCH", "/roles/update", version=_V3)
async def update_role(request: wire.UpdateRole, connection: WriteConnection) -> wire.RoleAnswer:
    group = await people.own_group(connection, request.role_id)
    await people.update_group(connection, group.id, request.name, request.description)
    [role] = await _roles(connection, [await people.group(connection, group.id)])
    return wire.RoleAnswer(role=role)


@_manage("DELETE", "/roles/delete", version=_V3)
async def delete_role(request: wire.RoleId, connection: WriteConnection) -> Empty:
    group = await people.own_group(connection, request.role_id)
    await people_queries.delete(connection, group.id)
    await audit.record(connection, "role.delete", group.name)
    return Empty()


@_manage("POST", "/roles/permissions/add", version=_V3)
async def add_role_permission(request: wire.AddGrant, connection: WriteConnection) -> wire.GrantAnswer:
    level = parse_level(request.permission)
    group = await people.group(connection, request.role_id)
    what = await people.resource(connection, request.resource_type, request.resource_pattern)
    return await _grant(connection, await people.grant(connection, group, what, level))


@_manage("DELETE", "/roles/permissions/remove", version=_V3)
async def remove_role_permission(request: wire.GrantId, connection: WriteConnection) -> Empty:
    row = await people_queries.delete_grant(connection, request.role_permission_id)
    if row is None:
        raise DoesNotExist(f"Role permission with id={request.role_permission_id} not found")
    what = people.named(row.kind, row.resource_id)
    await audit.record(connection, "permission.revoke", f"{what} from {row.name}")
    return Empty()


@_manage("GET", "/roles/permissions/list", version=_V3)
async def list_role_permissions(request: Annotated[wire.RoleId, Query()], connection: ReadConnection) -> wire.Grants:
    group = await people.group(connection, request.role_id)
    granted = await people_queries.grants(connection, [group.id])
    return wire.Grants(role_permissions=[wire.GrantWire.of(row) for row in granted])


@_manage("PATCH", "/roles/permissions/update", version=_V3)
async def update_role_permission(request: wire.UpdateGrant, connection: WriteConnection) -> wire.GrantAnswer:
    level = parse_level(request.permission)
    row = await people_queries.set_level(connection, request.role_permission_id, level)
    if row is not None:
        what = people.named(row.kind, row.resource_id)
        await audit.record(connection, "permission.grant", f"{word_for(level)} of {what} to {row.name}")
    return await _grant(connection, request.role_permission_id)


@_manage("POST", "/roles/assign", version=_V3)
async def assign_role(request: wire.Assignment, connection: WriteConnection) -> wire.AssignmentAnswer:
    group = await people.own_group(connection, request.role_id)
    user = await people.user(connection, request.username)
    row = await people_queries.assign(connection, user.id, group.id)
    await audit.record(connection, "role.assign", f"{group.name} to {user.name}")
    return wire.AssignmentAnswer(assignment=wire.AssignmentWire(**row._asdict()))


@_manage("DELETE", "/roles/unassign", version=_V3)
async def unassign_role(request: wire.Assignment, connection: WriteConnection) -> Empty:
    group = await people.own_group(connection, request.role_id)
    user = await people.user(connection, request.username)
    if not await people_queries.unassign(connection, user.id, group.id):
        raise DoesNotExist(f"User {request.username} is not in the role with id={request.role_id}")
    await audit.record(connection, "role.unassign", f"{group.name} from {user.name}")
    return Empty()


@_manage("GET", "/roles/users/list", version=_V3)
async def list_role_users(request: Annotated[wire.RoleId, Query()], connection: ReadConnection) -> wire.Assignments:
    rows = await people_queries.members(connection, (await people.group(connection, request.role_id)).id)
    return wire.Assignments(assignments=[wire.AssignmentWire(**row._asdict()) for row in rows])


@_read("GET", "/users/roles/list", version=_V3)
async def list_user_roles(request: Annotated[wire.Username, Query()], connection: ReadConnection) -> wire.Roles:
    people.require_admin_or(request.username)
    user = await people.user(connection, request.username)
    return wire.Roles(roles=await _roles(connection, await people_queries.groups_of(connection, user.id)))


def _user(row: Row[Any]) -> wire.UserWire:
    return wire.UserWire(id=row.id, username=row.name, is_admin=row.is_admin)


async def _roles(connection: AsyncConnection, groups: Sequence[Row[Any]]) -> list[wire.RoleWire]:
    granted = [wire.GrantWire.of(row) for row in await people_queries.grants(connection, [row.id for row in groups])]
    return [
        wire.RoleWire(
            id=row.id, name=row.name, description=row.description,
            permissions=[grant for grant in granted if grant.role_id == row.id],
        )
        for row in groups
    ]  # fmt: skip


async def _grant(connection: AsyncConnection, grant_id: int) -> wire.GrantAnswer:
    rows = await people_queries.grants(connection, [], grant_id)
    if not rows:
        raise DoesNotExist(f"Role permission with id={grant_id} not found")
    return wire.GrantAnswer(role_permission=wire.GrantWire.of(rows[0]))


def _only_workspace(workspace: str) -> None:
    if workspace != wire.ONE_WORKSPACE:
        raise InvalidParameter(f"There is one workspace here, '{wire.ONE_WORKSPACE}', and no '{workspace[:80]}'.")
