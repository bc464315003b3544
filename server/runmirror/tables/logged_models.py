"""Logged models of MLflow 3: files and numbers of a model, made by a run."""

from sqlalchemy import BigInteger, Column, Double, Index, Integer, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from runmirror.tables.base import metadata

logged_models = Table(
    "logged_models",
    metadata,
    Column("model_id", Text, primary_key=True),  # "m-" and 32 hex digits
    Column("experiment_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("artifact_uri", Text, nullable=False),
    Column("creation_timestamp_ms", BigInteger, nullable=False),
    Column("last_updated_timestamp_ms", BigInteger, nullable=False),
    Column("status", Integer, nullable=False),  # LoggedModelStatus: 1 pending, 2 ready, 3 failed
    Column("lifecycle_stage", Text, nullable=False, server_default="active"),
    Column("model_type", Text),
    Column("source_run_id", UUID),
    Column("status_message", Text),
    # Where its files lie in the mirrored run, decided once; NULL: it is older than this column, see mirror/queries.py.
    Column("mirror_folder", Text),
    Index("ix_logged_models_experiment_id", "experiment_id", "creation_timestamp_ms"),
    Index("ix_logged_models_source_run_id", "source_run_id"),
)

logged_model_params = Table(
    "logged_model_params",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

logged_model_tags = Table(
    "logged_model_tags",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# Points that name a logged model stand in `metrics` of their run and here, once more, with the dataset they are of.
logged_model_metrics = Table(
    "logged_model_metrics",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("run_id", UUID, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("timestamp_ms", BigInteger, primary_key=True),
    Column("value", Double, nullable=False),
    Column("dataset_name", Text),
    Column("dataset_digest", Text),
    Index("ix_logged_model_metrics_run_id", "run_id"),
)
