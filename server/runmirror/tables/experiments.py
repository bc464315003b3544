"""Experiments: their id is a number, sent as text; "0" is the default experiment."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, Table, Text

from runmirror.tables.base import metadata

experiments = Table(
    "experiments",
    metadata,
    Column("experiment_id", BigInteger, Identity(start=1), primary_key=True),
    Column("name", Text, nullable=False, unique=True),  # deleted experiments keep their name, as in MLflow
    Column("artifact_location", Text, nullable=False),
    Column("lifecycle_stage", Text, nullable=False, server_default="active"),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    CheckConstraint("lifecycle_stage IN ('active', 'deleted')", name="lifecycle_stage"),
    Index("ix_experiments_artifact_location", "artifact_location"),
)

# By which ids of Azure ML clients inside its jobs name experiments of ours.
adopted_experiments = Table(
    "adopted_experiments",
    metadata,
    Column("azure_experiment_id", Text, primary_key=True),  # in lower case
    Column("experiment_id", BigInteger, nullable=False),
)

experiment_tags = Table(
    "experiment_tags",
    metadata,
    Column("experiment_id", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
