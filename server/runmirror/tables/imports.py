"""What was imported from other tracking servers, see `runmirror.importing`."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from runmirror.tables.base import metadata

import_sources = Table(
    "import_sources",
    metadata,
    Column("source_id", Integer, Identity(), primary_key=True),
    Column("name", Text, nullable=False),  # its address without credentials, or what --source-name said
    Column("first_import_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    UniqueConstraint("name"),
)

# Written in the transaction that brings the thing itself. `key` is its id there, `target` its id here.
imported = Table(
    "imported",
    metadata,
    Column("source_id", Integer, ForeignKey("import_sources.source_id", ondelete="CASCADE"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("key", Text(collation="C"), primary_key=True),
    Column("target", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),  # of what was read: the same again has not changed
    # Of a run: from which of its writes to which imports wrote it, pair after pair. What any other write has left was
    # written here, and stays.
    Column("seqs", ARRAY(Integer), nullable=False, server_default="{}"),
    Column("points", BigInteger),  # how many different metric points a run had there
    Column("artifact_uri", Text, nullable=False, server_default=""),  # where its files are there
    Column("files", Text),  # fingerprint of the list of its files, once all of them are here
    Column("imported_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    CheckConstraint("kind IN ('experiment', 'run', 'logged_model', 'registered_model', 'trace')", name="kind"),
    Index("ix_imported_target", "kind", "target"),
)
