"""Who may call, and what they may do: users and groups, their tokens and sessions, and what each was granted."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from runmirror.tables.base import metadata

# Users and groups are of one kind here, so that a grant names either. The group `everyone` has all users in it.
principals = Table(
    "principals",
    metadata,
    Column("principal_id", BigInteger, Identity(start=1), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text(collation="C"), nullable=False),
    Column("description", Text),
    Column("is_admin", Boolean, nullable=False, server_default="false"),
    Column("password", Text),  # scrypt$n$r$p$salt$hash; none: only tokens
    Column("created_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("kind", "name"),
    CheckConstraint("kind IN ('user', 'group')", name="kind"),
)

memberships = Table(
    "memberships",
    metadata,
    Column("membership_id", BigInteger, Identity(start=1), nullable=False, unique=True),  # MLflow's clients see it
    Column("user_id", BigInteger, ForeignKey("principals.principal_id", ondelete="CASCADE"), primary_key=True),
    Column("group_id", BigInteger, ForeignKey("principals.principal_id", ondelete="CASCADE"), primary_key=True),
    Index("ix_memberships_group_id", "group_id"),
)

# Of the token itself nothing is kept but its SHA-256: 256 random bits cannot be guessed, so the hash need not be slow.
tokens = Table(
    "tokens",
    metadata,
    Column("token_id", BigInteger, Identity(start=1), primary_key=True),
    Column("user_id", BigInteger, ForeignKey("principals.principal_id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),  # by which people tell it
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    Index("ix_tokens_user_id", "user_id"),
)

# Of a browser that was signed in, with its cookie's SHA-256. One that a token was pasted for ends with that token.
# `claimed`: roles and groups that the identity provider told of; `is_admin`: whether its admins' role was among them.
sessions = Table(
    "sessions",
    metadata,
    Column("session_id", BigInteger, Identity(start=1), primary_key=True),
    Column("user_id", BigInteger, ForeignKey("principals.principal_id", ondelete="CASCADE"), nullable=False),
    Column("token_id", BigInteger, ForeignKey("tokens.token_id", ondelete="CASCADE")),
    Column("way", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("claimed", ARRAY(Text), nullable=False),
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("way IN ('token', 'password', 'oidc')", name="way"),
    Index("ix_sessions_user_id", "user_id"),
    Index("ix_sessions_token_id", "token_id"),
    Index("ix_sessions_expires_at", "expires_at"),
)

# `resource_id` -1 is every resource of the kind. `level`: -1 denies whatever else is granted, 0 nothing, 1 reader,
# 2 editor, 3 manager; see runmirror.auth.levels.
grants = Table(
    "grants",
    metadata,
    Column("grant_id", BigInteger, Identity(start=1), nullable=False, unique=True),  # MLflow's clients see it
    Column("kind", Text, primary_key=True),
    Column("resource_id", BigInteger, primary_key=True, autoincrement=False),
    Column("principal_id", BigInteger, ForeignKey("principals.principal_id", ondelete="CASCADE"), primary_key=True),
    Column("level", SmallInteger, nullable=False),
    CheckConstraint("kind IN ('experiment', 'registered_model')", name="kind"),
    CheckConstraint("level BETWEEN -1 AND 3", name="level"),
    Index("ix_grants_principal_id", "principal_id"),
)
