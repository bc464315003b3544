"""SQL that notes what was imported, and writes experiments and runs many at a time."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Integer, Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.mirror.queue import CHANNEL, NEVER_HELD


def _array(name: str, of: Any) -> Any:
    return bindparam(name, type_=ARRAY(of))


_SOURCE = text("""
    INSERT INTO import_sources (name) VALUES (:name)
    ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING source_id
""")
_KNOWN_SOURCE = text("SELECT source_id FROM import_sources WHERE name = :name")

_KNOWN = text("""
    SELECT key, target, fingerprint, seqs, points, artifact_uri, files FROM imported
    WHERE source_id = :source_id AND kind = :kind AND key = ANY (:keys)
""").bindparams(_array("keys", Text))

_PAGE = text("""
    SELECT key, target, fingerprint, seqs, points, artifact_uri, files FROM imported
    WHERE source_id = :source_id AND kind = :kind AND key > :after ORDER BY key LIMIT :most
""")

_NOTE = text("""
    INSERT INTO imported AS i (source_id, kind, key, target, fingerprint, seqs, points, artifact_uri)
    SELECT :source_id, :kind, g.key, g.target, g.fingerprint,
        CASE WHEN g.from_seq IS NULL THEN '{}' ELSE ARRAY[g.from_seq, g.to_seq] END, g.points, g.artifact_uri
    FROM unnest(:keys, :targets, :fingerprints, :from_seqs, :to_seqs, :points, :artifact_uris)
        AS g (key, target, fingerprint, from_seq, to_seq, points, artifact_uri)
    ORDER BY g.key
    ON CONFLICT (source_id, kind, key) DO UPDATE SET
        target = excluded.target, fingerprint = excluded.fingerprint, seqs = i.seqs || excluded.seqs,
        points = excluded.points, artifact_uri = excluded.artifact_uri, files = NULL, imported_at = now()
""").bindparams(
    _array("keys", Text), _array("targets", Text), _array("fingerprints", Text), _array("from_seqs", Integer),
    _array("to_seqs", Integer),    _array("points", BigInteger), _array("artifact_uris", Text),
)  # fmt: skip

_NOTE_FILES = text("""
    UPDATE imported SET files = :files, imported_at = now()
    WHERE source_id = :source_id AND kind = :kind AND key = :key
""")

_SHAPE_EXPERIMENT = text("""
    UPDATE experiments SET
        creation_time_ms = :creation_time_ms, last_update_time_ms = :last_update_time_ms
    WHERE experiment_id = :experiment_id
""")
_END_EXPERIMENTS = text("""
    UPDATE experiments SET lifecycle_stage = 'deleted'
    WHERE experiment_id = ANY (:experiment_ids) AND lifecycle_stage = 'active'
""").bindparams(_array("experiment_ids", BigInteger))

_ADD_EXPERIMENT_TAGS = text("""
    INSERT INTO experiment_tags (experiment_id, key, value)
    SELECT :experiment_id, key, value FROM unnest(:keys, :values) AS given (key, value)
    ON CONFLICT (experiment_id, key) DO NOTHING
""").bindparams(_array("keys", Text), _array("values", Text))

_CREATE_RUNS = text("""
    INSERT INTO runs (run_id, azure_run_id, experiment_id, name, user_id, status, start_time_ms, artifact_uri)
    SELECT g.run_id, g.azure_run_id, g.experiment_id, '', '', 'RUNNING', 0,
        e.artifact_location || '/' || encode(uuid_send(g.run_id), 'hex') || '/artifacts'
    FROM unnest(:run_ids, :azure_run_ids, :experiment_ids) AS g (run_id, azure_run_id, experiment_id)
    JOIN experiments e USING (experiment_id)
    ORDER BY g.run_id
    ON CONFLICT (run_id) DO NOTHING
    RETURNING run_id
""").bindparams(_array("run_ids", Uuid), _array("azure_run_ids", Text), _array("experiment_ids", BigInteger))

# Locked for as long as they are written, and active for as long: see runmirror_log_2.
_LOCK_RUNS = text("""
    SELECT run_id, seq, info_seq, lifecycle_stage, deleted_time_ms FROM runs WHERE run_id = ANY (:run_ids)
    ORDER BY run_id FOR NO KEY UPDATE
""").bindparams(_array("run_ids", Uuid))
_BEGIN = text("""
    UPDATE runs SET seq = seq + 1, lifecycle_stage = 'active' WHERE run_id = ANY (:run_ids)
""").bindparams(_array("run_ids", Uuid))

_MARK_BEHIND = text("SELECT runmirror_mark_behind_1(:run_ids)").bindparams(_array("run_ids", Uuid))

_TAGS = text("""
    SELECT run_id, key, value, seq FROM tags WHERE run_id = ANY (:run_ids)
""").bindparams(_array("run_ids", Uuid))

# NULL in `statuses`: of this run nothing is changed but its stage, which goes back to what it was.
_FINISH_RUNS = text("""
    UPDATE runs r SET
        name = coalesce(g.name, r.name), user_id = coalesce(g.user_id, r.user_id),
        status = coalesce(g.status, r.status), start_time_ms = coalesce(g.start_time_ms, r.start_time_ms),
        end_time_ms = CASE WHEN g.status IS NULL THEN r.end_time_ms ELSE g.end_time_ms END,
        lifecycle_stage = g.stage, deleted_time_ms = g.deleted_time_ms,
        info_seq = CASE WHEN g.status IS NULL THEN r.info_seq ELSE r.seq END
    FROM unnest(
        :run_ids, :names, :user_ids, :statuses, :start_times_ms, :end_times_ms, :stages, :deleted_times_ms)
        AS g (run_id, name, user_id, status, start_time_ms, end_time_ms, stage, deleted_time_ms)
    WHERE r.run_id = g.run_id
    RETURNING r.run_id, r.seq
""").bindparams(
    _array("run_ids", Uuid), _array("names", Text), _array("user_ids", Text), _array("statuses", Text),
    _array("start_times_ms", BigInteger), _array("end_times_ms", BigInteger), _array("stages", Text),
    _array("deleted_times_ms", BigInteger),
)  # fmt: skip

# Of the past: they wait behind live runs, the oldest first.
_QUEUE_RUNS = text(f"""
    WITH behind AS (
        INSERT INTO mirrors (run_id, lease_token, unrouted, backfill, due_at)
        SELECT run_id, {NEVER_HELD}, 'past', true,
            to_timestamp(greatest(0, least(start_time_ms, extract(epoch FROM now()) * 1000)) / 1000.0)
        FROM runs WHERE run_id = ANY (:run_ids) RETURNING run_id)
    SELECT pg_notify('{CHANNEL}', '') FROM behind LIMIT 1
""").bindparams(_array("run_ids", Uuid))

# In one order, whoever writes: two transactions that add the same datasets do not wait for each other in a circle.
_ADD_DATASETS = text("""
    INSERT INTO datasets (dataset_id, experiment_id, name, digest, source_type, source, schema, profile)
    SELECT gen_random_uuid(), experiment_id, name, digest, source_type, source, schema, profile
    FROM unnest(:experiment_ids, :names, :digests, :source_types, :sources, :schemas, :profiles)
        AS g (experiment_id, name, digest, source_type, source, schema, profile)
    ORDER BY experiment_id, name, digest
    ON CONFLICT (experiment_id, name, digest) DO NOTHING
""").bindparams(
    _array("experiment_ids", BigInteger), _array("names", Text), _array("digests", Text),
    _array("source_types", Text), _array("sources", Text), _array("schemas", Text), _array("profiles", Text),
)  # fmt: skip

_ADD_DATASET_INPUTS = text("""
    INSERT INTO dataset_inputs (run_id, dataset_id, tags, seq)
    SELECT r.run_id, d.dataset_id, g.tags, r.seq
    FROM unnest(:run_ids, :names, :digests, :tags) AS g (run_id, name, digest, tags)
    JOIN runs r USING (run_id)
    JOIN datasets d ON d.experiment_id = r.experiment_id AND d.name = g.name AND d.digest = g.digest
    ON CONFLICT (run_id, dataset_id) DO NOTHING
""").bindparams(
    _array("run_ids", Uuid), _array("names", Text), _array("digests", Text), bindparam("tags", type_=ARRAY(JSONB))
)  # fmt: skip

_ADD_MODEL_INPUTS = text("""
    INSERT INTO model_inputs (run_id, model_id, seq)
    SELECT r.run_id, g.model_id, r.seq
    FROM unnest(:run_ids, :model_ids) AS g (run_id, model_id) JOIN runs r USING (run_id)
    ON CONFLICT (run_id, model_id) DO NOTHING
""").bindparams(_array("run_ids", Uuid), _array("model_ids", Text))

_ADD_MODEL_OUTPUTS = text("""
    INSERT INTO model_outputs (run_id, model_id, step, seq)
    SELECT r.run_id, g.model_id, g.step, r.seq
    FROM unnest(:run_ids, :model_ids, :steps) AS g (run_id, model_id, step) JOIN runs r USING (run_id)
    ON CONFLICT (run_id, model_id) DO NOTHING
""").bindparams(_array("run_ids", Uuid), _array("model_ids", Text), _array("steps", BigInteger))


async def source_id(connection: AsyncConnection, name: str) -> int:
    """The number of a source, given when it is first imported from."""
    return int((await connection.execute(_SOURCE, {"name": name})).scalar_one())


async def known_source(connection: AsyncConnection, name: str) -> int | None:
    found: int | None = await connection.scalar(_KNOWN_SOURCE, {"name": name})
    return found


async def known(connection: AsyncConnection, source: int, kind: str, keys: Sequence[str]) -> dict[str, Row[Any]]:
    """What was imported of these before, by their ids there."""
    rows = await connection.execute(_KNOWN, {"source_id": source, "kind": kind, "keys": list(keys)})
    return {row.key: row for row in rows}


async def page(connection: AsyncConnection, source: int, kind: str, *, after: str, most: int) -> Sequence[Row[Any]]:
    """What was imported, by id there."""
    return (
        await connection.execute(_PAGE, {"source_id": source, "kind": kind, "after": after, "most": most})
    ).all()  # fmt: skip


async def note(connection: AsyncConnection, source: int, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Say what was imported, in the transaction that does it: `key, target, fingerprint`, of some things more."""
    values = {
        "keys": [row["key"] for row in rows],
        "targets": [row["target"] for row in rows],
        "fingerprints": [row["fingerprint"] for row in rows],
        "from_seqs": [row.get("from_seq") for row in rows],
        "to_seqs": [row.get("to_seq") for row in rows],
        "points": [row.get("points") for row in rows],
        "artifact_uris": [row.get("artifact_uri", "") for row in rows],
    }
    await connection.execute(_NOTE, {"source_id": source, "kind": kind, **values})


async def note_files(connection: AsyncConnection, source: int, kind: str, key: str, files: str | None) -> None:
    """All of its files are here, as that list has them; None: they have to be looked at again."""
    await connection.execute(_NOTE_FILES, {"source_id": source, "kind": kind, "key": key, "files": files})


async def shape_experiment(
    connection: AsyncConnection, experiment_id: int, *, creation_time_ms: int, last_update_time_ms: int
) -> None:
    times = {"creation_time_ms": creation_time_ms, "last_update_time_ms": last_update_time_ms}
    await connection.execute(_SHAPE_EXPERIMENT, {"experiment_id": experiment_id, **times})


async def add_experiment_tags(connection: AsyncConnection, experiment_id: int, tags: Mapping[str, str]) -> None:
    """Those that it does not have."""
    values = {"experiment_id": experiment_id, "keys": list(tags), "values": list(tags.values())}
    await connection.execute(_ADD_EXPERIMENT_TAGS, values)


async def end_experiments(connection: AsyncConnection, experiment_ids: Sequence[int]) -> None:
    """Deleted there, so deleted here; their runs say for themselves what they are."""
    await connection.execute(_END_EXPERIMENTS, {"experiment_ids": list(experiment_ids)})


async def create_runs(connection: AsyncConnection, runs: Sequence[tuple[UUID, str | None, int]]) -> set[UUID]:
    """Empty, active runs `(run_id, azure_run_id, experiment_id)`, of those that are not here: which were made."""
    values = {
        "run_ids": [run[0] for run in runs],
        "azure_run_ids": [run[1] for run in runs],
        "experiment_ids": [run[2] for run in runs],
    }
    return set(await connection.scalars(_CREATE_RUNS, values))


async def open_runs(connection: AsyncConnection, run_ids: Sequence[UUID]) -> dict[UUID, Row[Any]]:
    """Begin a write of each, and make it active; `(run_id, seq, info_seq, lifecycle_stage, deleted_time_ms)` before."""
    found = {row.run_id: row for row in await connection.execute(_LOCK_RUNS, {"run_ids": list(run_ids)})}
    await connection.execute(_BEGIN, {"run_ids": list(run_ids)})
    await connection.execute(_MARK_BEHIND, {"run_ids": list(run_ids)})
    return found


async def tags_of(connection: AsyncConnection, run_ids: Sequence[UUID]) -> dict[UUID, list[Row[Any]]]:
    """`(run_id, key, value, seq)` by run, deleted tags too."""
    found: dict[UUID, list[Row[Any]]] = {run_id: [] for run_id in run_ids}
    for row in await connection.execute(_TAGS, {"run_ids": list(run_ids)}):
        found[row.run_id].append(row)
    return found


async def finish_runs(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> dict[UUID, int]:
    """Give runs their own columns, after all their data; their seqs."""
    columns = {
        "run_ids": "run_id", "names": "name", "user_ids": "user_id", "statuses": "status",
        "start_times_ms": "start_time_ms", "end_times_ms": "end_time_ms", "stages": "stage",
        "deleted_times_ms": "deleted_time_ms",
    }  # fmt: skip
    values = {name: [row[column] for row in rows] for name, column in columns.items()}
    return {row.run_id: row.seq for row in await connection.execute(_FINISH_RUNS, values)}


async def queue_runs(connection: AsyncConnection, run_ids: Sequence[UUID]) -> None:
    """New runs are behind, as runs of the past."""
    await connection.execute(_QUEUE_RUNS, {"run_ids": list(run_ids)})


async def add_datasets(connection: AsyncConnection, rows: Sequence[tuple[Any, ...]]) -> None:
    """`(experiment_id, name, digest, source_type, source, schema, profile)`, none twice."""
    names = ("experiment_ids", "names", "digests", "source_types", "sources", "schemas", "profiles")
    await connection.execute(_ADD_DATASETS, dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


async def add_dataset_inputs(connection: AsyncConnection, rows: Sequence[tuple[Any, ...]]) -> None:
    """`(run_id, name, digest, {tag: value})`."""
    names = ("run_ids", "names", "digests", "tags")
    await connection.execute(_ADD_DATASET_INPUTS, dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


async def add_model_inputs(connection: AsyncConnection, rows: Sequence[tuple[UUID, str]]) -> None:
    values = {"run_ids": [row[0] for row in rows], "model_ids": [row[1] for row in rows]}
    await connection.execute(_ADD_MODEL_INPUTS, values)


async def add_model_outputs(connection: AsyncConnection, rows: Sequence[tuple[UUID, str, int]]) -> None:
    values = {
        "run_ids": [row[0] for row in rows], "model_ids": [row[1] for row in rows], "steps": [row[2] for row in rows],
    }  # fmt: skip
    await connection.execute(_ADD_MODEL_OUTPUTS, values)
