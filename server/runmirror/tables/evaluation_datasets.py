"""Evaluation datasets: questions and expected answers that versions of an application are judged by."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Table, Text

from runmirror.tables.base import metadata


def _of_dataset() -> Column[str]:
    parent = ForeignKey("evaluation_datasets.dataset_id", ondelete="CASCADE")
    return Column("dataset_id", Text, parent, primary_key=True)


evaluation_datasets = Table(
    "evaluation_datasets",
    metadata,
    Column("dataset_id", Text, primary_key=True),  # "d-" and 32 hex digits
    Column("name", Text(collation="C"), nullable=False),
    Column("digest", Text, nullable=False),
    Column("created_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    Column("created_by", Text),
    Column("last_updated_by", Text),
    Column("schema", Text),  # JSON; none before the first record
    Column("num_records", BigInteger),  # none before the first record
    Index("ix_evaluation_datasets_created_time_ms", "created_time_ms", "dataset_id"),
    Index("ix_evaluation_datasets_name", "name"),
)

evaluation_dataset_tags = Table(
    "evaluation_dataset_tags",
    metadata,
    _of_dataset(),
    Column("key", Text, primary_key=True),
    Column("value", Text),
)

evaluation_dataset_experiments = Table(
    "evaluation_dataset_experiments",
    metadata,
    _of_dataset(),
    Column("experiment_id", BigInteger, ForeignKey("experiments.experiment_id", ondelete="CASCADE"), primary_key=True),
    Column("added_time_ms", BigInteger, nullable=False),
    Index("ix_evaluation_dataset_experiments_experiment_id", "experiment_id"),
)

# Clients' JSON is kept as text: nobody searches it, and it comes back as it was (key order, NaN, escaped NULs).
evaluation_dataset_records = Table(
    "evaluation_dataset_records",
    metadata,
    _of_dataset(),
    # "dr-" and a UUIDv7: in the order of insertion, also within one request.
    Column("record_id", Text(collation="C"), primary_key=True),
    Column("input_hash", Text, nullable=False),  # SHA-256: the same inputs are the same record
    Column("inputs", Text, nullable=False),
    Column("outputs", Text),
    Column("expectations", Text),
    Column("tags", Text, nullable=False),
    Column("source", Text),
    Column("created_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    Column("created_by", Text),
    Column("last_updated_by", Text),
    Index("uq_evaluation_dataset_records_input_hash", "dataset_id", "input_hash", unique=True),
)
