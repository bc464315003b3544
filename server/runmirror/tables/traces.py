"""Traces of MLflow 3, their spans and what was judged of them.

Session, token counts and costs are metadata on MLflow's wire; here they are columns, so that they can be summed.
"""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Double, Index, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from runmirror.tables.base import metadata

traces = Table(
    "traces",
    metadata,
    Column("trace_id", Text, primary_key=True),  # "tr-" and the 32 hex digits of the OpenTelemetry id
    Column("experiment_id", BigInteger, nullable=False),
    Column("request_time_ms", BigInteger, nullable=False),
    Column("execution_time_ms", BigInteger),
    Column("state", Text, nullable=False),
    Column("client_request_id", Text),
    Column("request_preview", Text),
    Column("response_preview", Text),
    Column("name", Text),
    Column("session_id", Text),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("total_tokens", BigInteger),
    Column("cache_read_input_tokens", BigInteger),
    Column("cache_creation_input_tokens", BigInteger),
    Column("cache_creation_input_tokens_above_1hr", BigInteger),
    Column("input_cost", Double),
    Column("output_cost", Double),
    Column("total_cost", Double),
    # Told by start-trace: spans that come later do not change the sums.
    Column("usage_is_final", Boolean, nullable=False, server_default="false"),
    Column("cost_is_final", Boolean, nullable=False, server_default="false"),
    Column("tags", JSONB, nullable=False, server_default="{}"),  # {key: text}
    Column("trace_metadata", JSONB, nullable=False, server_default="{}"),  # {key: text}
    CheckConstraint("state IN ('STATE_UNSPECIFIED', 'OK', 'ERROR', 'IN_PROGRESS')", name="state"),
    # MLflow's default order of a search: newest first, then the id.
    Index("ix_traces_experiment_id_request_time_ms", "experiment_id", "request_time_ms", "trace_id"),
    Index("ix_traces_session_id", "session_id"),
)

# `attributes` is {key: JSON text}, as MLflow keeps them; events and links carry their attributes in the same way.
spans = Table(
    "spans",
    metadata,
    Column("trace_id", Text, primary_key=True),
    Column("span_id", Text, primary_key=True),  # 16 hex digits
    Column("parent_span_id", Text),
    Column("name", Text, nullable=False),
    Column("type", Text),
    Column("status", Text, nullable=False),  # OK, ERROR or UNSET
    Column("status_message", Text, nullable=False, server_default=""),
    Column("start_time_ns", BigInteger, nullable=False),
    Column("end_time_ns", BigInteger),
    Column("attributes", JSONB, nullable=False),
    Column("events", JSONB, nullable=False),
    Column("links", JSONB, nullable=False),
    Column("model_name", Text),
    Column("model_provider", Text),
    Column("input_cost", Double),
    Column("output_cost", Double),
    Column("total_cost", Double),
)

assessments = Table(
    "assessments",
    metadata,
    Column("trace_id", Text, primary_key=True),
    Column("assessment_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),  # JSON text: a filter compares it as it stands
    Column("error", JSONB),
    Column("source_type", Text, nullable=False),
    Column("source_id", Text),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("span_id", Text),
    Column("rationale", Text),
    Column("overrides", Text),  # an assessment of the same trace that this one replaces
    Column("valid", Boolean, nullable=False, server_default="true"),
    Column("assessment_metadata", JSONB),  # {key: text}
    Column("number", Double),  # what of the value can be averaged: numbers, and yes and true as 1
    Column("is_number", Boolean, nullable=False, server_default="false"),
    CheckConstraint("kind IN ('feedback', 'expectation', 'issue')", name="kind"),
)

# A run (its id) or a prompt version ("name/version") that a trace was linked to, whether that exists here or not.
trace_links = Table(
    "trace_links",
    metadata,
    Column("trace_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    CheckConstraint("kind IN ('run', 'prompt')", name="kind"),
    Index("ix_trace_links_kind_target", "kind", "target"),
)
