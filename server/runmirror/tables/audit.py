"""The audit log: rows are only added."""

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, Table, Text, text

from runmirror.tables.base import metadata

audit_log = Table(
    "audit_log",
    metadata,
    Column("entry_id", BigInteger, Identity(), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("caller", Text, nullable=False),
    Column("request_id", Text, nullable=False, server_default=""),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Index("ix_audit_log_at", "at"),
)
