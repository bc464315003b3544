"""A run and all that is logged to it.

`runs.seq` counts the writes of the run. A write bumps it under the row's lock and stamps every row it touches, so
seqs commit in order and "everything above the mirror's watermark" is exactly what the workspace has not seen.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from runmirror.tables.base import metadata

runs = Table(
    "runs",
    metadata,
    Column("run_id", UUID, primary_key=True),  # time-ordered (UUIDv7), so that new runs share index pages
    Column("experiment_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("user_id", Text, nullable=False, server_default=""),
    Column("status", Text, nullable=False),
    Column("start_time_ms", BigInteger, nullable=False),
    Column("end_time_ms", BigInteger),
    Column("lifecycle_stage", Text, nullable=False, server_default="active"),
    Column("deleted_time_ms", BigInteger),
    Column("artifact_uri", Text, nullable=False),
    # What clients call a run that was born in an Azure ML workspace; `run_id` follows from it (see runmirror.run_ids).
    Column("azure_run_id", Text),
    Column("seq", Integer, nullable=False, server_default="1"),
    # The write that last changed a column of this row (name, status, end time, lifecycle stage).
    Column("info_seq", Integer, nullable=False, server_default="1"),
    CheckConstraint("status IN ('RUNNING', 'SCHEDULED', 'FINISHED', 'FAILED', 'KILLED')", name="status"),
    CheckConstraint("lifecycle_stage IN ('active', 'deleted')", name="lifecycle_stage"),
    # MLflow's default order of a search: newest start first, then the id.
    Index("ix_runs_experiment_id_start_time_ms", "experiment_id", "start_time_ms", "run_id"),
    postgresql_with={"fillfactor": "80"},  # room for in-page updates of seq
)

# One row per point that came alone or among few: 48 bytes of data. `metric_id` numbers the keys of one run (see
# latest_metrics). Readers use the view metric_points, which has the points of metric_chunks too.
metrics = Table(
    "metrics",
    metadata,
    Column("run_id", UUID),
    Column("metric_id", Integer),
    Column("seq", Integer, nullable=False),
    Column("step", BigInteger),
    Column("timestamp_ms", BigInteger),
    Column("value", Double),  # in the key, so that an exact repeat is absorbed; NaN equals NaN here
    PrimaryKeyConstraint("run_id", "metric_id", "timestamp_ms", "step", "value"),  # in the order of a history
    Index("ix_metrics_run_id_seq", "run_id", "seq"),
)

# Points of one metric that came together, each with a higher step than the one before. No point is in two chunks, or in
# a chunk and in `metrics`: see migration 0015.
metric_chunks = Table(
    "metric_chunks",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("metric_id", Integer, primary_key=True),
    Column("newest_ms", BigInteger, primary_key=True),  # the greatest of timestamp_ms_array
    Column("last_step", BigInteger, primary_key=True),
    Column("oldest_ms", BigInteger, primary_key=True),  # in the key, so that a look for a point stays within the index
    Column("first_step", BigInteger, primary_key=True),
    Column("points", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("step_array", ARRAY(BigInteger), nullable=False),
    Column("timestamp_ms_array", ARRAY(BigInteger), nullable=False),
    Column("value_array", ARRAY(Double), nullable=False),
    Index("ix_metric_chunks_run_id_seq", "run_id", "seq"),
    postgresql_with={"toast_tuple_target": "8160"},  # up to a page as it is
)

# One row per metric key of a run: its number, and the point with the greatest (step, timestamp, value).
latest_metrics = Table(
    "latest_metrics",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("metric_id", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("timestamp_ms", BigInteger, nullable=False),
    Column("value", Double, nullable=False),
    Column("experiment_id", BigInteger),  # of its run; a trigger fills it where a writer does not
    UniqueConstraint("run_id", "metric_id"),
    # Searches that ask for or order by the value of a metric.
    Index("ix_latest_metrics_experiment_id_key_value", "experiment_id", "key", "value", "run_id"),
)

# A longer text may not fit an index: a third of a page, and four bytes a character.
LONGEST_INDEXED = 250
PARENT_TAG = "mlflow.parentRunId"

params = Table(
    "params",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("experiment_id", BigInteger),  # as in latest_metrics
    Index(
        "ix_params_experiment_id_key_value", "experiment_id", "key", "value", "run_id",
        postgresql_where=text(f"length(value) <= {LONGEST_INDEXED}"),
    ),
)  # fmt: skip

# A NULL value is a tag that was deleted: readers pass over it, the mirror still has to hear of it.
# seq 0 is a tag the mirror wrote itself, which it never has to hear of.
tags = Table(
    "tags",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text),
    Column("seq", Integer, nullable=False),
    # The runs of a sweep are asked for by their parent.
    Index(
        "ix_tags_parent_run_id", "value", "run_id",
        postgresql_where=text(f"key = '{PARENT_TAG}' AND length(value) <= {LONGEST_INDEXED}"),
    ),
)  # fmt: skip

# Stored once per experiment, however many runs read them.
datasets = Table(
    "datasets",
    metadata,
    Column("dataset_id", UUID, primary_key=True),
    Column("experiment_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("source_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("schema", Text),
    Column("profile", Text),
    UniqueConstraint("experiment_id", "name", "digest"),
)

dataset_inputs = Table(
    "dataset_inputs",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("dataset_id", UUID, primary_key=True),
    Column("tags", JSONB, nullable=False, server_default="{}"),  # {key: value}; mlflow.data.context is searched
    Column("seq", Integer, nullable=False),
)

model_inputs = Table(
    "model_inputs",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("seq", Integer, nullable=False),
)

model_outputs = Table(
    "model_outputs",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("step", BigInteger, nullable=False, server_default="0"),
    Column("seq", Integer, nullable=False),
)

# What was uploaded for a run: files under its own artifact root (model_id '') and files of the logged models it made.
# The store is the truth for readers; these rows tell the mirror what to copy.
artifacts = Table(
    "artifacts",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("model_id", Text, primary_key=True, server_default=""),
    Column("path", Text, primary_key=True),  # relative to the artifact root of the run or of the logged model
    Column("size_bytes", BigInteger, nullable=False),
    Column("md5", Text),  # hex, of the bytes as they were received
    Column("deleted", Boolean, nullable=False, server_default="false"),
    Column("seq", Integer, nullable=False),
    Index("ix_artifacts_run_id_seq", "run_id", "seq"),
)
