"""Conditions of a list: what its reader may not read is not in it, nor does it count for a page."""

from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, false, func, or_, select, true

from runmirror.auth.levels import Kind, Level
from runmirror.auth.permits import current
from runmirror.auth.queries import LEVEL
from runmirror.tables import evaluation_dataset_experiments, grants


def may_read_experiment(experiment_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether the reader may read the experiment whose id stands in this column."""
    return true() if current().reads_all_experiments else _may_read(Kind.EXPERIMENT, experiment_id)


def may_read_model(registered_model_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether the reader may read the registered model whose id stands in this column."""
    return true() if current().reads_all_models else _may_read(Kind.REGISTERED_MODEL, registered_model_id)


def may_read_dataset(dataset_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether the reader may read one of the experiments that this evaluation dataset is in."""
    if current().reads_all_experiments:
        return true()
    place = evaluation_dataset_experiments.alias()
    return exists().where(and_(place.c.dataset_id == dataset_id, may_read_experiment(place.c.experiment_id)))


def readers_values() -> dict[str, Any]:
    """Values of the parameters of `experiment_is_readable` and `model_is_readable`."""
    permits = current()
    return {
        "viewer_all": permits.reads_all_experiments and permits.reads_all_models,
        "viewer_principals": list(permits.viewer.principals) if permits.viewer else [],
        "viewer_default": permits.viewer.default_level if permits.viewer else int(Level.NONE),
    }


def _in_words(kind: Kind, column: str) -> str:
    level = LEVEL.format(kind=kind, column=column)
    level = level.replace(":viewer_principals", "CAST(:viewer_principals AS bigint[])")
    return f"(:viewer_all OR {level.replace(':viewer_default', 'CAST(:viewer_default AS smallint)')} >= 1)"


def experiment_is_readable(column: str) -> str:
    """The condition of `may_read_experiment` for a statement that is text; `column` is written by us."""
    return _in_words(Kind.EXPERIMENT, column)


def model_is_readable(column: str) -> str:
    """The condition of `may_read_model` for a statement that is text; `column` is written by us."""
    return _in_words(Kind.REGISTERED_MODEL, column)


def _may_read(kind: Kind, column: ColumnElement[int]) -> ColumnElement[bool]:
    viewer = current().viewer
    if viewer is None:
        return false()
    grant = grants.alias()
    highest = case((func.min(grant.c.level) < 0, 0), else_=func.coalesce(func.max(grant.c.level), viewer.default_level))
    level = (
        select(highest)
        .where(
            grant.c.kind == kind,
            or_(grant.c.resource_id == column, grant.c.resource_id == -1),
            grant.c.principal_id.in_(viewer.principals),
        )
        .scalar_subquery()
    )
    return level >= int(Level.READ)
