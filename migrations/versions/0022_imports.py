"""What `runmirror import` brought, and as what it stood at its source: a call goes on where one broke off."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "import_sources",
        sa.Column("source_id", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("first_import_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.UniqueConstraint("name", name="uq_import_sources_name"),
    )
    op.create_table(
        "imported",
        sa.Column(
            "source_id",
            sa.Integer,
            sa.ForeignKey("import_sources.source_id", ondelete="CASCADE", name="fk_imported_source_id"),
            primary_key=True,
        ),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("key", sa.Text(collation="C"), primary_key=True),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("seqs", sa.ARRAY(sa.Integer), nullable=False, server_default="{}"),
        sa.Column("points", sa.BigInteger),
        sa.Column("artifact_uri", sa.Text, nullable=False, server_default=""),
        sa.Column("files", sa.Text),
        sa.Column("imported_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.CheckConstraint(
            "kind IN ('experiment', 'run', 'logged_model', 'registered_model', 'trace')", name="ck_imported_kind"
        ),
    )
    # Whose a run or a model is that is here already.
    op.create_index("ix_imported_target", "imported", ["kind", "target"])


def downgrade() -> None:
    op.drop_table("imported")
    op.drop_table("import_sources")
