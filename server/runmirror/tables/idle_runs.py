"""Runs that are running, and since when no write to them was seen; kept by the worker, see `runmirror.runs.stale`."""

from sqlalchemy import Column, DateTime, Integer, Table
from sqlalchemy.dialects.postgresql import UUID

from runmirror.tables.base import metadata

idle_runs = Table(
    "idle_runs",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("seq", Integer, nullable=False),  # of the run's last write
    Column("since", DateTime(timezone=True), nullable=False),
)
