"""Sessions of browsers, and what is known of running runs that nobody writes to.

The end of a session before its time is told to whoever keeps in memory who somebody is.
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.BigInteger, sa.Identity(start=1), nullable=False),
        _of("user_id", "principals.principal_id", nullable=False),
        _of("token_id", "tokens.token_id", nullable=True),
        sa.Column("way", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("claimed", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("is_admin", sa.Boolean, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("session_id", name="pk_sessions"),
        sa.UniqueConstraint("digest", name="uq_sessions_digest"),
        sa.CheckConstraint("way IN ('token', 'password', 'oidc')", name="ck_sessions_way"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_index("ix_sessions_token_id", "sessions", ["token_id"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    # One that has ended anyway is swept away without a word, and the beginning of one makes nothing untrue.
    for change, row in (("DELETE", "OLD.expires_at > now()"), ("UPDATE", "true")):
        op.execute(f"""
            CREATE TRIGGER sessions_changed_by_{change.lower()} AFTER {change} ON sessions
            FOR EACH ROW WHEN ({row}) EXECUTE FUNCTION runmirror_identity_changed()
        """)
    op.execute("""
        CREATE TRIGGER sessions_truncated AFTER TRUNCATE ON sessions
        FOR EACH STATEMENT EXECUTE FUNCTION runmirror_identity_changed()
    """)
    op.create_table(
        "idle_runs",
        sa.Column("run_id", sa.UUID, primary_key=True),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("since", moment, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("idle_runs")
    op.drop_table("sessions")


def _of(name: str, parent: str, *, nullable: bool) -> sa.Column[int]:
    key = sa.ForeignKey(parent, ondelete="CASCADE", name=f"fk_sessions_{name}")
    return sa.Column(name, sa.BigInteger, key, nullable=nullable)
