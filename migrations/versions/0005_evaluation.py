"""Evaluation datasets and scorers."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLES = """
    CREATE TABLE evaluation_datasets (
        dataset_id TEXT NOT NULL,
        name TEXT COLLATE "C" NOT NULL,
        digest TEXT NOT NULL,
        created_time_ms BIGINT NOT NULL,
        last_update_time_ms BIGINT NOT NULL,
        created_by TEXT,
        last_updated_by TEXT,
        schema TEXT,
        num_records BIGINT,
        CONSTRAINT pk_evaluation_datasets PRIMARY KEY (dataset_id)
    );

    CREATE INDEX ix_evaluation_datasets_created_time_ms ON evaluation_datasets (created_time_ms, dataset_id);

    CREATE INDEX ix_evaluation_datasets_name ON evaluation_datasets (name);

    CREATE TABLE evaluation_dataset_tags (
        dataset_id TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT,
        CONSTRAINT pk_evaluation_dataset_tags PRIMARY KEY (dataset_id, key),
        CONSTRAINT fk_evaluation_dataset_tags_dataset_id FOREIGN KEY (dataset_id)
            REFERENCES evaluation_datasets (dataset_id) ON DELETE CASCADE
    );

    CREATE TABLE evaluation_dataset_experiments (
        dataset_id TEXT NOT NULL,
        experiment_id BIGINT NOT NULL,
        added_time_ms BIGINT NOT NULL,
        CONSTRAINT pk_evaluation_dataset_experiments PRIMARY KEY (dataset_id, experiment_id),
        CONSTRAINT fk_evaluation_dataset_experiments_dataset_id FOREIGN KEY (dataset_id)
            REFERENCES evaluation_datasets (dataset_id) ON DELETE CASCADE,
        CONSTRAINT fk_evaluation_dataset_experiments_experiment_id FOREIGN KEY (experiment_id)
            REFERENCES experiments (experiment_id) ON DELETE CASCADE
    );

    CREATE INDEX ix_evaluation_dataset_experiments_experiment_id ON evaluation_dataset_experiments (experiment_id);

    CREATE TABLE evaluation_dataset_records (
        dataset_id TEXT NOT NULL,
        record_id TEXT COLLATE "C" NOT NULL,
        input_hash TEXT NOT NULL,
        inputs TEXT NOT NULL,
        outputs TEXT,
        expectations TEXT,
        tags TEXT NOT NULL,
        source TEXT,
        created_time_ms BIGINT NOT NULL,
        last_update_time_ms BIGINT NOT NULL,
        created_by TEXT,
        last_updated_by TEXT,
        CONSTRAINT pk_evaluation_dataset_records PRIMARY KEY (dataset_id, record_id),
        CONSTRAINT fk_evaluation_dataset_records_dataset_id FOREIGN KEY (dataset_id)
            REFERENCES evaluation_datasets (dataset_id) ON DELETE CASCADE
    );

    CREATE UNIQUE INDEX uq_evaluation_dataset_records_input_hash
        ON evaluation_dataset_records (dataset_id, input_hash);

    CREATE TABLE scorers (
        scorer_id UUID NOT NULL,
        experiment_id BIGINT NOT NULL,
        name TEXT COLLATE "C" NOT NULL,
        CONSTRAINT pk_scorers PRIMARY KEY (scorer_id),
        CONSTRAINT fk_scorers_experiment_id FOREIGN KEY (experiment_id)
            REFERENCES experiments (experiment_id) ON DELETE CASCADE
    );

    CREATE UNIQUE INDEX uq_scorers_name ON scorers (experiment_id, name);

    CREATE TABLE scorer_versions (
        scorer_id UUID NOT NULL,
        version INTEGER NOT NULL,
        serialized_scorer TEXT NOT NULL,
        creation_time_ms BIGINT NOT NULL,
        CONSTRAINT pk_scorer_versions PRIMARY KEY (scorer_id, version),
        CONSTRAINT fk_scorer_versions_scorer_id FOREIGN KEY (scorer_id)
            REFERENCES scorers (scorer_id) ON DELETE CASCADE
    );
"""


def upgrade() -> None:
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(sa.text(statement))


def downgrade() -> None:
    for table in (
        "scorer_versions",
        "scorers",
        "evaluation_dataset_records",
        "evaluation_dataset_experiments",
        "evaluation_dataset_tags",
        "evaluation_datasets",
    ):
        op.execute(sa.text(f"DROP TABLE {table}"))
