"""How far each run is copied into the workspace. The states are drawn in `runmirror.mirror.queue`."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, DateTime, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from runmirror.tables.base import metadata

mirrors = Table(
    "mirrors",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("state", Text, nullable=False, server_default="due"),
    Column("due_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("behind_since", DateTime(timezone=True), server_default=text("now()")),  # NULL while current
    Column("watermark", Integer, nullable=False, server_default="0"),  # highest seq the target acknowledged
    Column("info_watermark", Integer, nullable=False, server_default="0"),  # highest runs.info_seq it acknowledged
    Column(
        "sent_upto", Integer, nullable=False, server_default="0"
    ),  # above the watermark: sent, perhaps, before a crash
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("lease_token", UUID),  # while nobody ever held the run: the timeline's number, see queue
    Column("lease_expires_at", DateTime(timezone=True)),
    Column("remote_experiment_id", Text),
    Column("remote_run_id", Text),
    Column("portal_url", Text),
    Column("last_error", Text),
    Column("last_error_at", DateTime(timezone=True)),
    Column("mirrored_at", DateTime(timezone=True)),
    Column("partial", Boolean, nullable=False, server_default="false"),  # some of it stands in the overflow file only
    Column("waiting", Boolean, nullable=False, server_default="false"),  # due for its overflow file alone
    Column("overflow_seq", Integer, nullable=False, server_default="0"),  # the write that last changed that file
    Column("overflow_told", Integer, nullable=False, server_default="0"),  # overflow_seq when it was last copied
    Column("overflow_at", DateTime(timezone=True)),
    Column("points", JSONB, nullable=False, server_default="{}"),  # {metric: points meant for the target itself}
    Column("points_upto", Integer, nullable=False, server_default="0"),  # up to which write `points` has counted
    CheckConstraint("state IN ('current', 'due', 'leased', 'quarantined')", name="state"),
    Index("ix_mirrors_due_at", "due_at", postgresql_where=text("state = 'due'")),
    Index("ix_mirrors_lease_expires_at", "lease_expires_at", postgresql_where=text("state = 'leased'")),
    Index("ix_mirrors_partial", "run_id", postgresql_where=text("partial")),
    Index("ix_mirrors_behind_since", "behind_since", postgresql_where=text("behind_since IS NOT NULL")),
    postgresql_with={"fillfactor": "80"},
)

# What of a run goes to its overflow file: written down before anything is sent, so that a crash changes no decision.
mirror_overflows = Table(
    "mirror_overflows",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("kind", Text, primary_key=True),  # see runmirror.mirror.overflow
    Column("key", Text, primary_key=True),
    Column("from_seq", Integer, nullable=False),  # of a metric: its points from this write on
    Column("reason", Text, nullable=False),  # the name of a limit, or the words in which the target refused
)

# Limits that the linked workspace was heard to have, where they are tighter than the settings say.
mirror_limits = Table(
    "mirror_limits",
    metadata,
    Column("name", Text, primary_key=True),  # a field of runmirror.mirror.limits.Limits
    Column("value", BigInteger, nullable=False),
    Column("learned_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
)

mirrored_experiments = Table(
    "mirrored_experiments",
    metadata,
    Column("experiment_id", BigInteger, primary_key=True),
    Column("remote_experiment_id", Text, nullable=False),
    Column("remote_name", Text, nullable=False),
)

# The linked workspace (one row), and what the worker last heard of it.
mirror_links = Table(
    "mirror_links",
    metadata,
    Column("link_id", Integer, primary_key=True, autoincrement=False),  # always 1 while one workspace is linked at once
    Column("workspace_id", Text, nullable=False),  # ARM id
    Column("tracking_uri", Text),  # skips ARM and discovery
    Column("portal_base", Text),
    Column("linked_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("last_contact_at", DateTime(timezone=True)),
    Column("last_error", Text),
    Column("last_error_at", DateTime(timezone=True)),
)

# What one worker sent in one minute.
mirror_throughput = Table(
    "mirror_throughput",
    metadata,
    Column("minute", DateTime(timezone=True), primary_key=True),
    Column("worker_id", UUID, primary_key=True),
    Column("runs", BigInteger, nullable=False, server_default="0"),
    Column("points", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
)
