"""Files for which a client was given a URL to upload to, until the URL can no more be in use."""

from sqlalchemy import Column, DateTime, Index, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from runmirror.tables.base import metadata

pending_uploads = Table(
    "pending_uploads",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("model_id", Text, primary_key=True),  # '' when it is a file of the run itself
    Column("path", Text, primary_key=True),
    Column("issued_at", DateTime(timezone=True), nullable=False),
    Column("check_at", DateTime(timezone=True), nullable=False),
    Column("last_check_at", DateTime(timezone=True), nullable=False),
    Index("ix_pending_uploads_check_at", "check_at"),
)
