"""Scorers: named, versioned judges of an experiment. What they are made of is text that the server never reads."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from runmirror.tables.base import metadata

scorers = Table(
    "scorers",
    metadata,
    Column("scorer_id", UUID, primary_key=True),
    Column("experiment_id", BigInteger, ForeignKey("experiments.experiment_id", ondelete="CASCADE"), nullable=False),
    Column("name", Text(collation="C"), nullable=False),
    Index("uq_scorers_name", "experiment_id", "name", unique=True),
)

scorer_versions = Table(
    "scorer_versions",
    metadata,
    Column("scorer_id", UUID, ForeignKey("scorers.scorer_id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("serialized_scorer", Text, nullable=False),
    Column("creation_time_ms", BigInteger, nullable=False),
)
