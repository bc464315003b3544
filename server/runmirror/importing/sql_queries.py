"""SQL that reads MLflow's tables, of MLflow 2 and 3: a column or table that is not there reads as NULL or nothing."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from runmirror.importing.source import SourceError
from runmirror.importing.sql_database import Database, Rows, many

_NEEDED = {"experiments", "runs", "metrics", "params", "tags", "latest_metrics"}

_RUN = (
    "run_uuid", "experiment_id", "name", "user_id", "status", "start_time", "end_time", "lifecycle_stage",
    "artifact_uri", "deleted_time",
)  # fmt: skip
_EXPERIMENT = ("experiment_id", "name", "lifecycle_stage", "creation_time", "last_update_time")
_MODEL = (
    "model_id", "experiment_id", "name", "artifact_location", "creation_timestamp_ms", "last_updated_timestamp_ms",
    "status", "lifecycle_stage", "model_type", "source_run_id", "status_message",
)  # fmt: skip
_VERSION = (
    "name", "version", "creation_time", "last_updated_time", "description", "current_stage", "source",
    "storage_location", "run_id", "run_link",
)  # fmt: skip
_TRACE = (
    "request_id", "experiment_id", "timestamp_ms", "execution_time_ms", "status", "client_request_id",
    "request_preview", "response_preview", "trace_name", "session_id", "input_tokens", "output_tokens",
    "total_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
    "cache_creation_input_tokens_above_1hr", "input_cost", "output_cost", "total_cost",
)  # fmt: skip
_ASSESSMENT = (
    "trace_id", "assessment_id", "assessment_type", "name", "value", "error", "source_type", "source_id",
    "created_timestamp", "last_updated_timestamp", "span_id", "rationale", "overrides", "assessment_metadata", "valid",
)  # fmt: skip


class Tables:
    """The tables of one database, as its version of MLflow has them."""

    def __init__(self, database: Database, columns: Mapping[str, frozenset[str]]) -> None:
        self._database = database
        self._columns = columns
        if missing := _NEEDED - columns.keys():
            raise SourceError(f"this is no database of MLflow: it has no table {', '.join(sorted(missing))}")

    @classmethod
    async def of(cls, database: Database) -> "Tables":
        return cls(database, await database.tables())

    def has(self, table: str) -> bool:
        return table in self._columns

    async def experiments(self) -> Rows:
        return await self._database.rows(many(self._select("experiments", _EXPERIMENT)), {})

    async def experiment_tags(self) -> Rows:
        """`(experiment_id, key, value)`."""
        if not self.has("experiment_tags"):
            return []
        return await self._database.rows(many("SELECT experiment_id, key, value FROM experiment_tags"), {})

    async def runs(
        self, *, after: str, most: int, experiment_ids: Collection[str] | None, since_ms: int | None
    ) -> Rows:
        """A page in the order of ids, which is that of the primary key."""
        values: dict[str, Any] = {"after": after, "most": most}
        conditions: list[str] = ["run_uuid > :after"]
        lists: list[str] = []
        if experiment_ids is not None:
            conditions.append("experiment_id IN :experiment_ids")
            lists.append("experiment_ids")
        if since_ms is not None:
            conditions.append("start_time >= :since_ms")
        statement = f"{self._select('runs', _RUN)} WHERE {' AND '.join(conditions)} ORDER BY run_uuid LIMIT :most"
        if experiment_ids is not None:
            values["experiment_ids"] = [int(number) for number in experiment_ids]
        if since_ms is not None:
            values["since_ms"] = since_ms
        return await self._database.rows(many(statement, *lists), values)

    async def params(self, run_ids: Sequence[str]) -> Rows:
        return await self._of_runs("SELECT run_uuid, key, value FROM params WHERE run_uuid IN :ids", run_ids)

    async def tags(self, run_ids: Sequence[str]) -> Rows:
        return await self._of_runs("SELECT run_uuid, key, value FROM tags WHERE run_uuid IN :ids", run_ids)

    async def latest(self, run_ids: Sequence[str]) -> Rows:
        """`(run_uuid, key, value, timestamp, step, is_nan)`."""
        columns = "run_uuid, key, value, timestamp, step, is_nan"
        return await self._of_runs(f"SELECT {columns} FROM latest_metrics WHERE run_uuid IN :ids", run_ids)

    async def point_counts(self, run_ids: Sequence[str]) -> Rows:
        counted = "SELECT run_uuid, count(*) FROM metrics WHERE run_uuid IN :ids GROUP BY run_uuid"
        return await self._of_runs(counted, run_ids)

    def points(self, run_ids: Sequence[str], size: int, *, in_order: bool) -> AsyncIterator[Rows]:
        """`(run_uuid, key, value, timestamp, step, is_nan)`; `in_order`: by run, key and step."""
        statement = "SELECT run_uuid, key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid IN :ids"
        statement += " ORDER BY run_uuid, key, step, timestamp" if in_order else ""
        return self._database.stream(many(statement, "ids"), {"ids": list(run_ids)}, size)

    async def dataset_inputs(self, run_ids: Sequence[str]) -> Rows:
        """`(input_uuid, run_id, name, digest, source_type, source, schema, profile)`."""
        if not self.has("inputs") or not self.has("datasets"):
            return []
        return await self._of_runs(
            """
            SELECT i.input_uuid, i.destination_id, d.name, d.digest, d.dataset_source_type, d.dataset_source,
                d.dataset_schema, d.dataset_profile
            FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id
            WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND i.destination_id IN :ids
            """,
            run_ids,
        )

    async def input_tags(self, input_ids: Sequence[str]) -> Rows:
        if not input_ids:
            return []
        return await self._of_runs("SELECT input_uuid, name, value FROM input_tags WHERE input_uuid IN :ids", input_ids)

    async def run_models(self, run_ids: Sequence[str]) -> Rows:
        """`(source_type, run_id, model_id, step)`; the type says whether the run read it or made it."""
        if not self.has("inputs"):
            return []
        step = "step" if "step" in self._columns["inputs"] else "0"
        return await self._of_runs(
            f"SELECT source_type, source_id, destination_id, {step} FROM inputs "
            "WHERE source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND source_id IN :ids",
            run_ids,
        )

    async def models(self, *, after: str, most: int) -> Rows:
        if not self.has("logged_models"):
            return []
        page = f"{self._select('logged_models', _MODEL)} WHERE model_id > :after ORDER BY model_id LIMIT :most"
        return await self._database.rows(many(page), {"after": after, "most": most})

    async def of_models(self, model_ids: Sequence[str]) -> tuple[Rows, Rows, Rows]:
        """Params and tags `(model_id, key, value)`, metrics."""
        ids = {"ids": list(model_ids)}
        params = "SELECT model_id, param_key, param_value FROM logged_model_params WHERE model_id IN :ids"
        tags = "SELECT model_id, tag_key, tag_value FROM logged_model_tags WHERE model_id IN :ids"
        metrics = """
            SELECT model_id, metric_name, metric_value, metric_timestamp_ms, metric_step, run_id, dataset_name,
                dataset_digest
            FROM logged_model_metrics WHERE model_id IN :ids
        """
        return (
            await self._database.rows(many(params, "ids"), ids),
            await self._database.rows(many(tags, "ids"), ids),
            await self._database.rows(many(metrics, "ids"), ids),
        )

    async def registered_models(self) -> Rows:
        """`(name, creation_time, last_updated_time, description)`."""
        if not self.has("registered_models"):
            return []
        columns = ("name", "creation_time", "last_updated_time", "description")
        return await self._database.rows(many(f"{self._select('registered_models', columns)} ORDER BY name"), {})

    async def of_registered_model(self, name: str) -> tuple[Rows, Rows, Rows, Rows]:
        """Versions, tags `(key, value)`, aliases `(alias, version)`, tags of versions `(version, key, value)`."""
        named = {"name": name}
        versions = f"{self._select('model_versions', _VERSION)} WHERE name = :name ORDER BY version"
        found = [await self._database.rows(many(versions), named)]
        for table, columns in (
            ("registered_model_tags", "key, value"),
            ("registered_model_aliases", "alias, version"),
            ("model_version_tags", "version, key, value"),
        ):
            asked = f"SELECT {columns} FROM {table} WHERE name = :name"
            found.append(await self._database.rows(many(asked), named) if self.has(table) else [])
        return found[0], found[1], found[2], found[3]

    async def traces(self, *, after: str, most: int) -> Rows:
        if not self.has("trace_info"):
            return []
        page = f"{self._select('trace_info', _TRACE)} WHERE request_id > :after ORDER BY request_id LIMIT :most"
        return await self._database.rows(many(page), {"after": after, "most": most})

    async def trace_pairs(self, table: str, trace_ids: Sequence[str]) -> Rows:
        """`(request_id, key, value)` of `trace_tags` or `trace_request_metadata`."""
        if not self.has(table):
            return []
        return await self._of_runs(f"SELECT request_id, key, value FROM {table} WHERE request_id IN :ids", trace_ids)

    async def assessments(self, trace_ids: Sequence[str]) -> Rows:
        if not self.has("assessments"):
            return []
        return await self._of_runs(f"{self._select('assessments', _ASSESSMENT)} WHERE trace_id IN :ids", trace_ids)

    async def spans(self, trace_ids: Sequence[str]) -> Rows:
        """`(trace_id, content)`."""
        if not self.has("spans"):
            return []
        return await self._of_runs("SELECT trace_id, content FROM spans WHERE trace_id IN :ids", trace_ids)

    async def trace_links(self, trace_ids: Sequence[str]) -> Rows:
        """`(trace_id, destination_type, destination_id)`."""
        if not self.has("entity_associations"):
            return []
        return await self._of_runs(
            "SELECT source_id, destination_type, destination_id FROM entity_associations "
            "WHERE source_type = 'trace' AND source_id IN :ids",
            trace_ids,
        )

    async def _of_runs(self, statement: str, ids: Sequence[str]) -> Rows:
        return await self._database.rows(many(statement, "ids"), {"ids": list(ids)}) if ids else []

    def _select(self, table: str, columns: Sequence[str]) -> str:
        there = self._columns[table]
        return f"SELECT {', '.join(c if c in there else f'NULL AS {c}' for c in columns)} FROM {table}"


def first_and_pairs(rows: Rows) -> dict[Any, dict[str, str]]:
    """`(owner, key, value)` as pairs by owner; a value that is NULL is an empty text."""
    found: dict[Any, dict[str, str]] = {}
    for owner, key, value in rows:
        found.setdefault(owner, {})[key] = value if value is not None else ""
    return found
