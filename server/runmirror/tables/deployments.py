"""Model versions deployed in a workspace: see `runmirror.deployments`."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from runmirror.tables.base import metadata

# A row is one deployment and the operation that makes it. It outlives registered model and link, because what it became
# in the workspace is still there.
deployments = Table(
    "deployments",
    metadata,
    Column("deployment_id", UUID, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("created_by", Text, nullable=False, server_default=""),
    Column("workspace_id", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("registered_model_id", BigInteger, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("spec", JSONB, nullable=False, server_default="{}"),
    Column("state", Text, nullable=False, server_default="waiting"),
    Column("message", Text, nullable=False, server_default=""),  # what is being done, in words
    Column("history", JSONB, nullable=False, server_default="[]"),  # [{"at", "state", "message"}]
    Column("reason", Text),  # why it failed
    Column("last_error", Text),  # what holds it up, and is tried again
    Column("remote_name", Text),  # of the registered model there
    Column("remote_version", Text),
    Column("remote_operation", Text),
    Column("scoring_uri", Text),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("due_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("deadline_at", DateTime(timezone=True), nullable=False),
    Column("lease_token", UUID),
    Column("lease_expires_at", DateTime(timezone=True)),
    CheckConstraint("target IN ('aci', 'aks', 'online-endpoint')", name="target"),
    CheckConstraint(
        "state IN ('waiting', 'creating', 'deploying', 'succeeded', 'failed', 'deleting', 'deleted', 'replaced')",
        name="state",
    ),
)
Index(
    "ix_deployments_name", func.lower(deployments.c.workspace_id), deployments.c.name, unique=True,
    postgresql_where=text("state NOT IN ('deleted', 'replaced')"),
)  # fmt: skip
Index(
    "ix_deployments_due_at", deployments.c.due_at,
    postgresql_where=text("state IN ('waiting', 'creating', 'deploying', 'deleting')"),
)  # fmt: skip
