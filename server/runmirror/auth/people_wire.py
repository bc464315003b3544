"""Requests and answers about users, roles (groups) and grants, as MLflow's `AuthServiceClient` speaks."""

from typing import Any

from pydantic import Field
from sqlalchemy.engine import Row

from runmirror.auth.levels import word_for
from runmirror.wire import Int64, Wire

ONE_WORKSPACE = "default"


class Username(Wire):
    username: str = Field(min_length=1, max_length=255)


class CreateUser(Username):
    password: str = Field(min_length=1, max_length=1024)


class UpdatePassword(CreateUser):
    current_password: str = Field("", max_length=1024)


class UpdateAdmin(Username):
    is_admin: bool


class UserWire(Wire):
    id: int
    username: str
    is_admin: bool
    roles: list["RoleWire"] | None = None


class UserAnswer(Wire):
    user: UserWire


class CurrentUser(UserAnswer):
    is_basic_auth: bool = True


class Users(Wire):
    users: list[UserWire]


class RoleId(Wire):
    role_id: Int64


class CreateRole(Wire):
    name: str = Field(min_length=1, max_length=255)
    workspace: str = ONE_WORKSPACE
    description: str | None = Field(None, max_length=5000)


class UpdateRole(RoleId):
    name: str | None = Field(None, min_length=1, max_length=255)
    description: str | None = Field(None, max_length=5000)


class ListRoles(Wire):
    workspace: str = ONE_WORKSPACE


class GrantWire(Wire):
    id: int
    role_id: int
    resource_type: str
    resource_pattern: str
    permission: str

    @classmethod
    def of(cls, row: Row[Any]) -> "GrantWire":
        return cls(
            id=row.id,
            role_id=row.role_id,
            resource_type=row.kind,
            resource_pattern=row.resource,
            permission=word_for(row.level),
        )


class RoleWire(Wire):
    id: int
    name: str
    workspace: str = ONE_WORKSPACE
    description: str | None = None
    permissions: list[GrantWire] = []


class RoleAnswer(Wire):
    role: RoleWire


class Roles(Wire):
    roles: list[RoleWire]


class AddGrant(RoleId):
    resource_type: str
    resource_pattern: str = Field(min_length=1, max_length=1000)
    permission: str


class GrantId(Wire):
    role_permission_id: Int64


class UpdateGrant(GrantId):
    permission: str


class GrantAnswer(Wire):
    role_permission: GrantWire


class Grants(Wire):
    role_permissions: list[GrantWire]


class Assignment(RoleId, Username):
    """A user and a role."""


class AssignmentWire(Wire):
    id: int
    user_id: int
    role_id: int


class AssignmentAnswer(Wire):
    assignment: AssignmentWire


class Assignments(Wire):
    assignments: list[AssignmentWire]


class ResourceOf(Username):
    resource_type: str
    resource_id: str = Field(min_length=1, max_length=1000)


class GrantToUser(ResourceOf):
    permission: str


class UsersPermission(Wire):
    """`allowed`: more than reading."""

    allowed: bool
    permission: str


class UsersPermissions(Wire):
    is_admin: bool
    permissions: list[GrantWire]
