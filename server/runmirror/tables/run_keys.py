"""Keys under which a run is created only once."""

from sqlalchemy import BigInteger, Column, Index, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from runmirror.tables.base import metadata

# Written with the run, in one transaction; who comes second waits for it and finds the first one's run.
run_keys = Table(
    "run_keys",
    metadata,
    Column("experiment_id", BigInteger, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("run_id", UUID, nullable=False),
    Index("ix_run_keys_run_id", "run_id"),
)

# Folders of the artifact store whose runs and models are erased already, see runmirror.gc.
removals = Table("removals", metadata, Column("path", Text, primary_key=True))
