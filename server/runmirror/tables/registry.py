"""The model registry: registered models, their versions, tags and aliases; prompts are registered models too."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Table,
    Text,
)

from runmirror.tables.base import metadata


def _of_model() -> Column[int]:
    parent = ForeignKey("registered_models.registered_model_id", ondelete="CASCADE")
    return Column("registered_model_id", BigInteger, parent, primary_key=True)


registered_models = Table(
    "registered_models",
    metadata,
    Column("registered_model_id", BigInteger, Identity(start=1), primary_key=True),
    # By code point, as MLflow sorts: so one index finds a name, gives the order and answers LIKE 'prefix%'.
    Column("name", Text(collation="C"), nullable=False, unique=True),
    Column("description", Text, nullable=False, server_default=""),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_updated_time_ms", BigInteger, nullable=False),
    # The highest version number given out so far: a deleted version's number is not given out again.
    Column("last_version", Integer, nullable=False, server_default="0"),
    # Counts the writes of the model, its versions, tags and aliases, so that a mirror can see what changed.
    Column("seq", BigInteger, nullable=False, server_default="1"),
    Index("ix_registered_models_last_updated_time_ms", "last_updated_time_ms"),
)

registered_model_tags = Table(
    "registered_model_tags",
    metadata,
    _of_model(),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# A deleted version stays as a row of stage Deleted_Internal without its contents; no reader sees it.
model_versions = Table(
    "model_versions",
    metadata,
    _of_model(),
    Column("version", Integer, primary_key=True),
    Column("current_stage", Text, nullable=False, server_default="None"),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_updated_time_ms", BigInteger, nullable=False),
    Column("description", Text),
    Column("source", Text, nullable=False),
    # Where a client downloads the files: runs:/… or mlflow-artifacts:/…; a prompt has a placeholder, which is no place.
    Column("storage_location", Text, nullable=False),
    Column("run_id", Text, nullable=False, server_default=""),
    Column("run_link", Text, nullable=False, server_default=""),
    CheckConstraint(
        "current_stage IN ('None', 'Staging', 'Production', 'Archived', 'Deleted_Internal')", name="current_stage"
    ),
    Index("ix_model_versions_current_stage", "registered_model_id", "current_stage", "version"),
    Index("ix_model_versions_run_id", "run_id"),
    Index("ix_model_versions_last_updated_time_ms", "last_updated_time_ms"),
)

model_version_tags = Table(
    "model_version_tags",
    metadata,
    Column("registered_model_id", BigInteger, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    ForeignKeyConstraint(
        ["registered_model_id", "version"],
        ["model_versions.registered_model_id", "model_versions.version"],
        ondelete="CASCADE",
    ),
)

registered_model_aliases = Table(
    "registered_model_aliases",
    metadata,
    Column("registered_model_id", BigInteger, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    ForeignKeyConstraint(
        ["registered_model_id", "version"],
        ["model_versions.registered_model_id", "model_versions.version"],
        ondelete="CASCADE",
    ),
    Index("ix_registered_model_aliases_version", "registered_model_id", "version"),
)
