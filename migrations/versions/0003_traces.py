"""Traces, their spans, assessments and links."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TABLES = """
    CREATE TABLE assessments (
        trace_id TEXT NOT NULL,
        assessment_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        error JSONB,
        source_type TEXT NOT NULL,
        source_id TEXT,
        created_ms BIGINT NOT NULL,
        updated_ms BIGINT NOT NULL,
        span_id TEXT,
        rationale TEXT,
        overrides TEXT,
        valid BOOLEAN DEFAULT 'true' NOT NULL,
        assessment_metadata JSONB,
        number DOUBLE PRECISION,
        is_number BOOLEAN DEFAULT 'false' NOT NULL,
        CONSTRAINT pk_assessments PRIMARY KEY (trace_id, assessment_id),
        CONSTRAINT ck_assessments_kind CHECK (kind IN ('feedback', 'expectation', 'issue'))
    );

    CREATE TABLE spans (
        trace_id TEXT NOT NULL,
        span_id TEXT NOT NULL,
        parent_span_id TEXT,
        name TEXT NOT NULL,
        type TEXT,
        status TEXT NOT NULL,
        status_message TEXT DEFAULT '' NOT NULL,
        start_time_ns BIGINT NOT NULL,
        end_time_ns BIGINT,
        attributes JSONB NOT NULL,
        events JSONB NOT NULL,
        links JSONB NOT NULL,
        model_name TEXT,
        model_provider TEXT,
        input_cost DOUBLE PRECISION,
        output_cost DOUBLE PRECISION,
        total_cost DOUBLE PRECISION,
        CONSTRAINT pk_spans PRIMARY KEY (trace_id, span_id)
    );

    CREATE TABLE trace_links (
        trace_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        target TEXT NOT NULL,
        CONSTRAINT pk_trace_links PRIMARY KEY (trace_id, kind, target),
        CONSTRAINT ck_trace_links_kind CHECK (kind IN ('run', 'prompt'))
    );

    CREATE INDEX ix_trace_links_kind_target ON trace_links (kind, target);

    CREATE TABLE traces (
        trace_id TEXT NOT NULL,
        experiment_id BIGINT NOT NULL,
        request_time_ms BIGINT NOT NULL,
        execution_time_ms BIGINT,
        state TEXT NOT NULL,
        client_request_id TEXT,
        request_preview TEXT,
        response_preview TEXT,
        name TEXT,
        session_id TEXT,
        input_tokens BIGINT,
        output_tokens BIGINT,
        total_tokens BIGINT,
        cache_read_input_tokens BIGINT,
        cache_creation_input_tokens BIGINT,
        cache_creation_input_tokens_above_1hr BIGINT,
        input_cost DOUBLE PRECISION,
        output_cost DOUBLE PRECISION,
        total_cost DOUBLE PRECISION,
        usage_is_final BOOLEAN DEFAULT 'false' NOT NULL,
        cost_is_final BOOLEAN DEFAULT 'false' NOT NULL,
        tags JSONB DEFAULT '{}' NOT NULL,
        trace_metadata JSONB DEFAULT '{}' NOT NULL,
        CONSTRAINT pk_traces PRIMARY KEY (trace_id),
        CONSTRAINT ck_traces_state CHECK (state IN ('STATE_UNSPECIFIED', 'OK', 'ERROR', 'IN_PROGRESS'))
    );

    CREATE INDEX ix_traces_experiment_id_request_time_ms ON traces (experiment_id, request_time_ms, trace_id);

    CREATE INDEX ix_traces_session_id ON traces (session_id);
"""


def upgrade() -> None:
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(sa.text(statement))


def downgrade() -> None:
    for line in _TABLES.splitlines():
        if line.strip().startswith("CREATE TABLE"):
            op.execute(sa.text(f"DROP TABLE {line.split()[2]}"))
