"""How far each run is copied into the workspace. The states are drawn in `runmirror.mirror.queue`."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

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
    Column("link_id", Integer),  # the workspace of this row's watermarks; NULL: of none yet
    Column("unrouted", Text, server_default="live"),  # not NULL: its workspace is to be decided, see destinations.py
    Column("backfill", Boolean, nullable=False, server_default="false"),  # of the past: it waits behind live runs
    CheckConstraint("state IN ('current', 'due', 'leased', 'quarantined', 'off')", name="state"),
    CheckConstraint("unrouted IN ('live', 'past')", name="unrouted"),
    Index("ix_mirrors_live", "link_id", "due_at", postgresql_where=text("state = 'due' AND NOT backfill")),
    Index("ix_mirrors_past", "link_id", "due_at", "run_id", postgresql_where=text("state = 'due' AND backfill")),
    Index("ix_mirrors_unrouted", "unrouted", "due_at", postgresql_where=text("unrouted IS NOT NULL")),
    Index("ix_mirrors_off", "run_id", postgresql_where=text("state = 'off'")),
    Index("ix_mirrors_lease_expires_at", "lease_expires_at", postgresql_where=text("state = 'leased'")),
    Index("ix_mirrors_partial", "run_id", postgresql_where=text("partial")),
    Index("ix_mirrors_behind_since", "behind_since", postgresql_where=text("behind_since IS NOT NULL")),
    Index("ix_mirrors_quarantined", "run_id", postgresql_where=text("state = 'quarantined'")),
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

# Limits that a linked workspace was heard to have, where they are tighter than the settings say.
mirror_limits = Table(
    "mirror_limits",
    metadata,
    Column("link_id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),  # a field of runmirror.mirror.limits.Limits
    Column("value", BigInteger, nullable=False),
    Column("learned_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
)

mirrored_experiments = Table(
    "mirrored_experiments",
    metadata,
    Column("experiment_id", BigInteger, primary_key=True),
    Column("link_id", Integer, primary_key=True, autoincrement=False),
    Column("remote_experiment_id", Text, nullable=False),
    Column("remote_name", Text, nullable=False),
)

# The linked workspaces, and what the workers last heard of them. A row's workspace never changes, and its number is
# never given to another: whoever names a link means one workspace.
mirror_links = Table(
    "mirror_links",
    metadata,
    Column("link_id", Integer, Identity(), primary_key=True),
    Column("name", Text, nullable=False),
    Column("workspace_id", Text, nullable=False),  # ARM id
    Column("experiments", ARRAY(Text), nullable=False, server_default="{}"),  # patterns of names, with * and ?
    Column("position", Integer, nullable=False, server_default="0"),  # the first link whose patterns fit is taken
    Column("is_default", Boolean, nullable=False, server_default="true"),
    Column("tracking_uri", Text),  # skips ARM and discovery
    Column("portal_base", Text),
    Column("linked_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("last_contact_at", DateTime(timezone=True)),
    Column("last_error", Text),
    Column("last_error_at", DateTime(timezone=True)),
    Column("sampled_at", DateTime(timezone=True)),  # when a worker last began to verify a sample
    Column("backfill_at", DateTime(timezone=True)),  # up to when the pace of the past is used up
    Index("uq_mirror_links_name", text("lower(name)"), unique=True),
    Index("uq_mirror_links_workspace_id", text("lower(workspace_id)"), unique=True),
    Index("uq_mirror_links_is_default", "is_default", unique=True, postgresql_where=text("is_default")),
)

# There while the routes of all runs are to be decided anew: up to which run they are marked for that.
mirror_reroutes = Table(
    "mirror_reroutes",
    metadata,
    Column("reroute_id", Integer, Identity(), primary_key=True),
    Column("after_run", UUID, nullable=False, server_default="00000000-0000-0000-0000-000000000000"),
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
    Column("overflowed", BigInteger, nullable=False, server_default="0"),  # what went to overflow files instead
    Column("throttles", BigInteger, nullable=False, server_default="0"),  # attempts that the workspace throttled
    Column("outages", BigInteger, nullable=False, server_default="0"),  # attempts when it could not be used
)

# Workers that run: a row is renewed while its worker lives, and deleted when it stops in good order.
mirror_workers = Table(
    "mirror_workers",
    metadata,
    Column("worker_id", UUID, primary_key=True),
    Column("name", Text, nullable=False),  # machine and process
    Column("version", Text, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
)

# How far behind the mirror was in each minute of the last day: the worst that any worker saw.
mirror_lag = Table(
    "mirror_lag",
    metadata,
    Column("minute", DateTime(timezone=True), primary_key=True),
    Column("lag_s", Double, nullable=False),
)

# What was last found when a run's copy was read back and compared.
mirror_verifications = Table(
    "mirror_verifications",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("verified_at", DateTime(timezone=True), nullable=False),
    Column("verdict", Text, nullable=False),
    Column("differences", JSONB, nullable=False, server_default="[]"),  # the first hundred
    CheckConstraint("verdict IN ('equal', 'different', 'repairing')", name="verdict"),
    Index("ix_mirror_verifications_verified_at", "verified_at"),
    Index("ix_mirror_verifications_different", "run_id", postgresql_where=text("verdict = 'different'")),
)
