"""What a comparison of a search says of one run, as SQL.

`run` is the `runs` table or a subquery with the same columns; what is logged to it is looked up by (run_id, key).
"""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, Table, and_, exists, select, true

from runmirror.search.clauses import metric_matches, number_matches, run_id_matches, text_matches
from runmirror.search.tree import Comparison, Entity, Operator
from runmirror.tables import dataset_inputs, datasets, latest_metrics, params, runs, tags

DATASET_CONTEXT = "mlflow.data.context"

KEYED: dict[Entity, Table] = {Entity.METRIC: latest_metrics, Entity.PARAM: params, Entity.TAG: tags}
ATTRIBUTES = {
    "run_id": runs.c.run_id,
    "run_name": runs.c.name,
    "user_id": runs.c.user_id,
    "status": runs.c.status,
    "start_time": runs.c.start_time_ms,
    "end_time": runs.c.end_time_ms,
    "artifact_uri": runs.c.artifact_uri,
}


def holds(comparison: Comparison, run_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """The condition, which Postgres may turn into a join. Attributes are those of `runs`."""
    if comparison.entity is Entity.ATTRIBUTE:
        return attribute_holds(comparison)
    found = exists(_found(comparison, run_id))
    return ~found if comparison.operator is Operator.IS_NULL else found


def looked_up(comparison: Comparison, run_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """The same of what is logged, as a look-up for every run it is asked of: never a join, and never a hash of all."""
    found = _found(comparison, run_id).limit(1).scalar_subquery()
    return found.is_(None) if comparison.operator is Operator.IS_NULL else found.is_(True)


def attribute_holds(comparison: Comparison) -> ColumnElement[bool]:
    column = ATTRIBUTES[comparison.key]
    if comparison.key == "run_id":
        return run_id_matches(column, comparison)
    if comparison.key in {"start_time", "end_time"}:
        return number_matches(column, comparison)
    return text_matches(column, comparison)


def value_matches(table: FromClause, comparison: Comparison) -> ColumnElement[bool]:
    matches = metric_matches if comparison.entity is Entity.METRIC else text_matches
    return matches(table.c.value, comparison)


def has_key(table: FromClause, key: str, run_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a row of `table` is what the run has under `key`; a deleted tag is no tag."""
    found = and_(table.c.run_id == run_id, table.c.key == key)
    return and_(found, table.c.value.is_not(None)) if table.c.value.nullable else found


def _found(comparison: Comparison, run_id: ColumnElement[Any]) -> Select[Any]:
    """The rows that meet the comparison; for IS NULL, those that break it."""
    if comparison.entity is Entity.DATASET:
        return _datasets(comparison, run_id)
    table = KEYED[comparison.entity].alias()
    found = select(true()).where(has_key(table, comparison.key, run_id))
    if comparison.operator in {Operator.IS_NULL, Operator.IS_NOT_NULL}:
        return found
    return found.where(value_matches(table, comparison))


def _datasets(comparison: Comparison, run_id: ColumnElement[Any]) -> Select[Any]:
    """Any one dataset of the run may match; two comparisons may be met by two datasets, as in MLflow."""
    used, dataset = dataset_inputs.alias(), datasets.alias()
    found = select(true()).where(used.c.run_id == run_id)
    if comparison.key == "context":
        return found.where(text_matches(used.c.tags[DATASET_CONTEXT].astext, comparison))
    column = {"name": dataset.c.name, "digest": dataset.c.digest}[comparison.key]
    return found.where(dataset.c.dataset_id == used.c.dataset_id, text_matches(column, comparison))
