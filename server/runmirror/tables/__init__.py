"""Rows as Postgres stores them: one file per resource, SQLAlchemy Core tables, no rules.

Every table of a run has a primary key that begins with `run_id`, so that it can be hash-partitioned or distributed
by run, and every row carries `seq`: the number of the run's write that last touched it (see `runs.seq`).
"""

from runmirror.tables.audit import audit_log
from runmirror.tables.base import metadata
from runmirror.tables.deployments import deployments
from runmirror.tables.evaluation_datasets import (
    evaluation_dataset_experiments,
    evaluation_dataset_records,
    evaluation_dataset_tags,
    evaluation_datasets,
)
from runmirror.tables.experiments import adopted_experiments, experiment_tags, experiments
from runmirror.tables.identity import grants, memberships, principals, sessions, tokens
from runmirror.tables.idle_runs import idle_runs
from runmirror.tables.imports import import_sources, imported
from runmirror.tables.logged_models import (
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
)
from runmirror.tables.mirrored_models import mirrored_models, mirrored_versions
from runmirror.tables.mirrors import (
    mirror_lag,
    mirror_links,
    mirror_throughput,
    mirror_verifications,
    mirror_workers,
    mirrored_experiments,
    mirrors,
)
from runmirror.tables.pending_uploads import pending_uploads
from runmirror.tables.registry import (
    model_version_tags,
    model_versions,
    registered_model_aliases,
    registered_model_tags,
    registered_models,
)
from runmirror.tables.run_keys import removals, run_keys
from runmirror.tables.runs import (
    artifacts,
    dataset_inputs,
    datasets,
    latest_metrics,
    metric_chunks,
    metrics,
    model_inputs,
    model_outputs,
    params,
    runs,
    tags,
)
from runmirror.tables.scorers import scorer_versions, scorers
from runmirror.tables.traces import assessments, spans, trace_links, traces
from runmirror.tables.webhooks import webhook_deliveries, webhooks

__all__ = [
    "adopted_experiments",
    "artifacts",
    "assessments",
    "audit_log",
    "dataset_inputs",
    "datasets",
    "deployments",
    "evaluation_dataset_experiments",
    "evaluation_dataset_records",
    "evaluation_dataset_tags",
    "evaluation_datasets",
    "experiment_tags",
    "experiments",
    "grants",
    "idle_runs",
    "import_sources",
    "imported",
    "latest_metrics",
    "logged_model_metrics",
    "logged_model_params",
    "logged_model_tags",
    "logged_models",
    "memberships",
    "metadata",
    "metric_chunks",
    "metrics",
    "mirror_lag",
    "mirror_links",
    "mirror_throughput",
    "mirror_verifications",
    "mirror_workers",
    "mirrored_experiments",
    "mirrored_models",
    "mirrored_versions",
    "mirrors",
    "model_inputs",
    "model_outputs",
    "model_version_tags",
    "model_versions",
    "params",
    "pending_uploads",
    "principals",
    "registered_model_aliases",
    "registered_model_tags",
    "registered_models",
    "removals",
    "run_keys",
    "runs",
    "scorer_versions",
    "scorers",
    "sessions",
    "spans",
    "tags",
    "tokens",
    "trace_links",
    "traces",
    "webhook_deliveries",
    "webhooks",
]
