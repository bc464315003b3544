"""How far each registered model is copied into the workspace: see `runmirror.mirror.model_queue`."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, DateTime, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from runmirror.tables.base import metadata

# A row outlives its registered model (`deleted` then), because what it became in the workspace stays there.
mirrored_models = Table(
    "mirrored_models",
    metadata,
    Column("registered_model_id", BigInteger, primary_key=True, autoincrement=False),
    Column("link_id", Integer),  # the workspace of all that follows; NULL: of none yet, see model_places.py
    Column("state", Text, nullable=False, server_default="due"),
    Column("due_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("behind_since", DateTime(timezone=True), server_default=text("now()")),  # NULL while current
    Column("watermark", BigInteger, nullable=False, server_default="0"),  # registered_models.seq the target has
    Column("deleted", Boolean, nullable=False, server_default="false"),
    # The run whose files a version waits for, and the write of it that the workspace must have.
    Column("waits_run_id", UUID),
    Column("waits_seq", Integer),
    Column("waits_aside", Boolean, nullable=False, server_default="false"),  # that run is known to be set aside
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("lease_token", UUID),
    Column("lease_expires_at", DateTime(timezone=True)),
    Column("remote_name", Text),
    # {"tags": [key], "aliases": [alias], "versions": {number: [key]}}: what we may have set there.
    Column("told", JSONB, nullable=False, server_default="{}"),
    Column("problems", JSONB, nullable=False, server_default="[]"),  # what of it the workspace refused, in its words
    Column("last_error", Text),
    Column("last_error_at", DateTime(timezone=True)),
    Column("mirrored_at", DateTime(timezone=True)),
    CheckConstraint("state IN ('current', 'due', 'leased', 'quarantined', 'off')", name="state"),
    Index("ix_mirrored_models_due_at", "due_at", postgresql_where=text("state = 'due'")),
    Index(
        "ix_mirrored_models_remote_name", "link_id", "remote_name", unique=True, postgresql_where=text("NOT deleted")
    ),
)

# Which version there is which of ours: Azure gives out its own numbers.
mirrored_versions = Table(
    "mirrored_versions",
    metadata,
    Column("registered_model_id", BigInteger, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("remote_version", Text),  # NULL: it cannot be there, see `problem`
    Column("problem", Text),
)
