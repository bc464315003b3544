"""Users, groups, tokens and grants; whoever keeps what they say in memory is told of every change.

Triggers notify, so that no writer can forget to, nor whoever mends a row by hand.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0017"
branch_labels = None
depends_on = None

_TABLES = ("principals", "memberships", "tokens", "grants")


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "principals",
        sa.Column("principal_id", sa.BigInteger, sa.Identity(start=1), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("is_admin", sa.Boolean, nullable=False, server_default="false"),
        sa.Column("password", sa.Text),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("principal_id", name="pk_principals"),
        sa.UniqueConstraint("kind", "name", name="uq_principals_kind_name"),
        sa.CheckConstraint("kind IN ('user', 'group')", name="ck_principals_kind"),
    )
    op.create_table(
        "memberships",
        sa.Column("membership_id", sa.BigInteger, sa.Identity(start=1), nullable=False),
        _of_principal("user_id", "memberships"),
        _of_principal("group_id", "memberships"),
        sa.PrimaryKeyConstraint("user_id", "group_id", name="pk_memberships"),
        sa.UniqueConstraint("membership_id", name="uq_memberships_membership_id"),
    )
    op.create_index("ix_memberships_group_id", "memberships", ["group_id"])
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.BigInteger, sa.Identity(start=1), nullable=False),
        _of_principal("user_id", "tokens"),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment),
        sa.Column("revoked_at", moment),
        sa.Column("last_used_at", moment),
        sa.PrimaryKeyConstraint("token_id", name="pk_tokens"),
        sa.UniqueConstraint("digest", name="uq_tokens_digest"),
    )
    op.create_index("ix_tokens_user_id", "tokens", ["user_id"])
    op.create_table(
        "grants",
        sa.Column("grant_id", sa.BigInteger, sa.Identity(start=1), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("resource_id", sa.BigInteger, nullable=False),
        _of_principal("principal_id", "grants"),
        sa.Column("level", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("kind", "resource_id", "principal_id", name="pk_grants"),
        sa.UniqueConstraint("grant_id", name="uq_grants_grant_id"),
        sa.CheckConstraint("kind IN ('experiment', 'registered_model')", name="ck_grants_kind"),
        sa.CheckConstraint("level BETWEEN -1 AND 3", name="ck_grants_level"),
    )
    op.create_index("ix_grants_principal_id", "grants", ["principal_id"])
    op.execute("INSERT INTO principals (kind, name, created_at) VALUES ('group', 'everyone', now())")
    op.execute("""
        CREATE FUNCTION runmirror_identity_changed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('runmirror_identity', '');
            RETURN NULL;
        END $$
    """)
    for table in _TABLES:
        # When a token was last used changes nothing about who may do what.
        change = "UPDATE OF user_id, digest, expires_at, revoked_at" if table == "tokens" else "UPDATE"
        op.execute(f"""
            CREATE TRIGGER {table}_changed AFTER INSERT OR {change} OR DELETE OR TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION runmirror_identity_changed()
        """)
    # Whose place a path in the artifact store is.
    op.create_index("ix_experiments_artifact_location", "experiments", ["artifact_location"])


def downgrade() -> None:
    op.drop_index("ix_experiments_artifact_location", "experiments")
    for table in reversed(_TABLES):
        op.drop_table(table)
    op.execute("DROP FUNCTION runmirror_identity_changed()")


def _of_principal(name: str, table: str) -> sa.Column[int]:
    parent = sa.ForeignKey("principals.principal_id", ondelete="CASCADE", name=f"fk_{table}_{name}")
    return sa.Column(name, sa.BigInteger, parent, nullable=False)
