"""Permissions as clients of MLflow before 3.10 or so speak of them: of one user for one experiment, or one model."""

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field
from sqlalchemy.engine import Row

from runmirror.auth.levels import Kind, word_for
from runmirror.wire import Wire


class OfExperiment(Wire):
    experiment_id: str = Field(min_length=1, max_length=1000)
    username: str = Field(min_length=1, max_length=255)


class PermitExperiment(OfExperiment):
    permission: str


class ExperimentPermission(Wire):
    experiment_id: str
    user_id: int
    permission: str


class ExperimentPermissionAnswer(Wire):
    experiment_permission: ExperimentPermission


class OfModel(Wire):
    name: str = Field(min_length=1, max_length=1000)
    username: str = Field(min_length=1, max_length=255)


class PermitModel(OfModel):
    permission: str


class ModelPermission(Wire):
    name: str
    user_id: int
    permission: str


class ModelPermissionAnswer(Wire):
    registered_model_permission: ModelPermission


class UserWithPermissions(Wire):
    """Without the two lists these clients cannot read a user; what is granted for all of a kind is in neither."""

    id: int
    username: str
    is_admin: bool
    experiment_permissions: list[ExperimentPermission] = []
    registered_model_permissions: list[ModelPermission] = []

    @classmethod
    def of(cls, row: Row[Any], granted: Sequence[Row[Any]]) -> Self:
        each = [one for one in granted if one.resource != "*"]
        return cls(
            id=row.id,
            username=row.name,
            is_admin=row.is_admin,
            experiment_permissions=[
                ExperimentPermission(experiment_id=one.resource, user_id=row.id, permission=word_for(one.level))
                for one in each
                if one.kind == Kind.EXPERIMENT
            ],
            registered_model_permissions=[
                ModelPermission(name=one.resource, user_id=row.id, permission=word_for(one.level))
                for one in each
                if one.kind == Kind.REGISTERED_MODEL
            ],
        )


class UserWithPermissionsAnswer(Wire):
    user: UserWithPermissions
