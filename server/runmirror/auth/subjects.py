"""What every route is about: which things a request names, whose permission is then asked for.

A route declares what must be allowed (`routing.Permission`); here stands to what, in one table for all of them, so that
it can be read as a whole. A route that is neither public nor in the table stops the start of the server.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import Headers

from runmirror.auth.levels import Level
from runmirror.errors import InvalidParameter
from runmirror.routing import Permission, routes_of
from runmirror.wire import missing


class Thing(StrEnum):
    """What a request can name, in the words of a refusal."""

    EXPERIMENT = "experiment"
    EXPERIMENT_NAME = "experiment called"
    RUN = "run"
    LOGGED_MODEL = "logged model"
    TRACE = "trace"
    DATASET = "evaluation dataset"
    REGISTERED_MODEL = "registered model"
    VERSION_SOURCE = "source"
    FILE = "artifact"
    TREE = "artifact folder"  # with all that is below it


@dataclass(frozen=True, slots=True)
class Named:
    """Under which names a request names things of one kind: in its path, its query or its body.

    A name with dots leads into the body, through lists too; `header:` names a header. Every name that is given counts.
    A request that gives none is wrong if the thing is `required`, and so is then one that names what is not there.
    `level`: what is needed instead of what the route declares.
    """

    thing: Thing
    names: tuple[str, ...]
    required: bool = True
    level: Level | None = None


class Audience(StrEnum):
    """Who may use a route, before it is asked what the request names."""

    SIGNED_IN = "signed in"  # it names nothing, or leaves out what its caller may not read
    WHOLE = "whole"  # it tells of all there is: for those from whom nothing is hidden, and to change it for admins
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Subject:
    """What one route is about."""

    named: tuple[Named, ...] = ()
    audience: Audience = Audience.SIGNED_IN


@dataclass(frozen=True, slots=True)
class Given:
    """What a request came with; `body` is what JSON it had, or None."""

    path: Mapping[str, str]
    query: Iterable[tuple[str, str]]
    headers: Headers
    body: Any

    def under(self, name: str) -> Iterator[str]:
        """All that is given under a name. Numbers count as text, as they do on MLflow's wire."""
        if name.startswith("header:"):
            yield from self.headers.getlist(name.removeprefix("header:"))
            return
        if name in self.path:  # the route reads it there and nowhere else
            yield self.path[name]
            return
        yield from (value for key, value in self.query if key == name)
        yield from _within(self.body, name.split("."))


def _within(value: Any, way: list[str]) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _within(item, way)
    elif way:
        if isinstance(value, dict):
            yield from _within(value.get(way[0]), way[1:])
    elif isinstance(value, str | int):
        yield str(value)


def named_in(given: Given, named: Named) -> list[str]:
    """The ids that a request gives, each once; an empty one is none.

    Raises `InvalidParameter` when there is none and one is required.
    """
    found = dict.fromkeys(value for name in named.names for value in given.under(name) if value)
    if named.required and not found:
        raise InvalidParameter(missing(named.names[0].rpartition(":")[2]))
    return list(found)


def _one(thing: Thing, *names: str) -> Named:
    return Named(thing, names)


def _any(thing: Thing, *names: str, level: Level | None = None) -> Named:
    return Named(thing, names, required=False, level=level)


_EXPERIMENT = _one(Thing.EXPERIMENT, "experiment_id")
_RUN = _one(Thing.RUN, "run_id", "run_uuid")
_LOGGED_MODEL = _one(Thing.LOGGED_MODEL, "model_id")
_TRACE = _one(Thing.TRACE, "trace_id", "request_id")
_DATASET = _one(Thing.DATASET, "dataset_id")
_MODEL = _one(Thing.REGISTERED_MODEL, "name")
_IN_EXPERIMENTS = _any(Thing.EXPERIMENT, "experiment_ids")

_TABLE: tuple[tuple[Subject, str], ...] = (
    (
        Subject((_EXPERIMENT,)),
        """
        GET /api/2.0/mlflow/experiments/get
        POST /api/2.0/mlflow/experiments/update
        POST /api/2.0/mlflow/experiments/delete
        POST /api/2.0/mlflow/experiments/restore
        POST /api/2.0/mlflow/experiments/set-experiment-tag
        POST /api/2.0/mlflow/experiments/delete-experiment-tag
        POST /api/2.0/mlflow/experiments/permissions/create
        GET /api/2.0/mlflow/experiments/permissions/get
        PATCH /api/2.0/mlflow/experiments/permissions/update
        DELETE /api/2.0/mlflow/experiments/permissions/delete
        POST /api/2.0/mlflow/runs/create
        POST /api/2.0/mlflow/traces
        POST /api/3.0/mlflow/scorers/register
        GET /api/3.0/mlflow/scorers/versions
        GET /api/3.0/mlflow/scorers/get
        DELETE /api/3.0/mlflow/scorers/delete
        """,
    ),
    (
        Subject((_one(Thing.EXPERIMENT_NAME, "experiment_name"),)),
        "GET /api/2.0/mlflow/experiments/get-by-name",
    ),
    (
        Subject((_one(Thing.EXPERIMENT, "header:x-mlflow-experiment-id"), _any(Thing.RUN, "header:x-mlflow-run-id"))),
        "POST /v1/traces",
    ),
    (
        Subject((_IN_EXPERIMENTS,)),
        """
        POST /api/2.0/mlflow/experiments/search-datasets
        GET /api/2.0/mlflow/traces
        POST /api/3.0/mlflow/traces/metrics
        POST /api/3.0/mlflow/traces/calculate-filter-correlation
        """,
    ),
    (
        Subject((_any(Thing.EXPERIMENT, "locations.mlflow_experiment.experiment_id"),)),
        "POST /api/3.0/mlflow/traces/search",
    ),
    (
        Subject((_RUN,)),
        """
        GET /api/2.0/mlflow/runs/get
        POST /api/2.0/mlflow/runs/update
        POST /api/2.0/mlflow/runs/delete
        POST /api/2.0/mlflow/runs/restore
        POST /api/2.0/mlflow/runs/log-parameter
        POST /api/2.0/mlflow/runs/set-tag
        POST /api/2.0/mlflow/runs/delete-tag
        POST /api/2.0/mlflow/runs/log-model
        GET /api/2.0/mlflow/metrics/get-history
        GET /api/2.0/mlflow/artifacts/list
        GET /get-artifact
        HEAD /get-artifact
        POST /api/2.0/mlflow/artifacts/presigned-download-url
        POST /ajax-api/2.0/mlflow/upload-artifact
        GET /api/runmirror/v1/runs/{run_id}/mirror
        GET /mirror/runs/{run_id}
        POST /mirror/runs/{run_id}/retry
        """,
    ),
    (
        Subject((_RUN, _any(Thing.LOGGED_MODEL, "model_id", "metrics.model_id"))),
        """
        POST /api/2.0/mlflow/runs/log-metric
        POST /api/2.0/mlflow/runs/log-batch
        """,
    ),
    (
        Subject((_RUN, _any(Thing.LOGGED_MODEL, "models.model_id", level=Level.READ))),
        "POST /api/2.0/mlflow/runs/log-inputs",
    ),
    (
        Subject((_RUN, _any(Thing.LOGGED_MODEL, "models.model_id"))),
        "POST /api/2.0/mlflow/runs/outputs",
    ),
    (
        Subject((_one(Thing.RUN, "run_ids", "run_id"),)),
        """
        GET /ajax-api/2.0/mlflow/metrics/get-history-bulk
        GET /api/2.0/mlflow/metrics/get-history-bulk-interval
        """,
    ),
    (
        Subject((_any(Thing.RUN, "run_id", "run_uuid"), _any(Thing.LOGGED_MODEL, "model_id"))),
        "POST /api/2.0/mlflow/artifacts/presigned-upload-url",
    ),
    (
        Subject((_EXPERIMENT, _any(Thing.RUN, "source_run_id"))),
        "POST /api/2.0/mlflow/logged-models",
    ),
    (
        Subject((_LOGGED_MODEL,)),
        """
        GET /api/2.0/mlflow/logged-models/{model_id}
        PATCH /api/2.0/mlflow/logged-models/{model_id}
        DELETE /api/2.0/mlflow/logged-models/{model_id}
        POST /api/2.0/mlflow/logged-models/{model_id}/params
        PATCH /api/2.0/mlflow/logged-models/{model_id}/tags
        DELETE /api/2.0/mlflow/logged-models/{model_id}/tags/{tag_key}
        GET /api/2.0/mlflow/logged-models/{model_id}/artifacts/directories
        GET /ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files
        """,
    ),
    (
        Subject((_one(Thing.FILE, "path"),)),
        """
        GET /api/2.0/mlflow-artifacts/artifacts/{path:path}
        HEAD /api/2.0/mlflow-artifacts/artifacts/{path:path}
        PUT /api/2.0/mlflow-artifacts/artifacts/{path:path}
        GET /api/2.0/mlflow-artifacts/presigned/{path:path}
        POST /api/2.0/mlflow-artifacts/mpu/create/{path:path}
        POST /api/2.0/mlflow-artifacts/mpu/complete/{path:path}
        POST /api/2.0/mlflow-artifacts/mpu/abort/{path:path}
        """,
    ),
    (
        Subject((_one(Thing.TREE, "path"),)),
        """
        GET /api/2.0/mlflow-artifacts/artifacts
        DELETE /api/2.0/mlflow-artifacts/artifacts/{path:path}
        """,
    ),
    (
        Subject((_TRACE,)),
        """
        GET /api/3.0/mlflow/traces/get
        GET /api/3.0/mlflow/traces/{trace_id}
        PATCH /api/2.0/mlflow/traces/{trace_id}/tags
        PATCH /api/3.0/mlflow/traces/{trace_id}/tags
        DELETE /api/2.0/mlflow/traces/{trace_id}/tags
        DELETE /api/3.0/mlflow/traces/{trace_id}/tags
        PATCH /api/2.0/mlflow/traces/{request_id}
        GET /api/2.0/mlflow/traces/{request_id}/info
        POST /api/2.0/mlflow/traces/link-prompts
        POST /api/3.0/mlflow/traces/{trace_id}/assessments
        GET /api/3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}
        PATCH /api/3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}
        DELETE /api/3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}
        GET /ajax-api/2.0/mlflow/get-trace-artifact
        GET /ajax-api/3.0/mlflow/get-trace-artifact
        """,
    ),
    (
        Subject((_any(Thing.TRACE, "trace_ids"), _IN_EXPERIMENTS)),
        """
        GET /api/3.0/mlflow/traces/batchGet
        POST /api/3.0/mlflow/traces/batchGetInfos
        """,
    ),
    (
        Subject(
            (
                _one(Thing.EXPERIMENT, "trace.trace_info.trace_location.mlflow_experiment.experiment_id"),
                _any(Thing.TRACE, "trace.trace_info.trace_id"),
            )
        ),
        "POST /api/3.0/mlflow/traces",
    ),
    (
        Subject((_EXPERIMENT, _any(Thing.TRACE, "request_ids"))),
        """
        POST /api/2.0/mlflow/traces/delete-traces
        POST /api/3.0/mlflow/traces/delete-traces
        """,
    ),
    (
        Subject((_any(Thing.TRACE, "trace_ids"), _any(Thing.RUN, "run_id"))),
        "POST /api/2.0/mlflow/traces/link-to-run",
    ),
    (
        Subject((_DATASET,)),
        """
        GET /api/3.0/mlflow/datasets/{dataset_id}
        DELETE /api/3.0/mlflow/datasets/{dataset_id}
        PATCH /api/3.0/mlflow/datasets/{dataset_id}/tags
        DELETE /api/3.0/mlflow/datasets/{dataset_id}/tags/{key}
        GET /api/3.0/mlflow/datasets/{dataset_id}/experiment-ids
        POST /api/3.0/mlflow/datasets/{dataset_id}/records
        GET /api/3.0/mlflow/datasets/{dataset_id}/records
        DELETE /api/3.0/mlflow/datasets/{dataset_id}/records
        """,
    ),
    (
        Subject((_DATASET, _IN_EXPERIMENTS)),
        """
        POST /api/3.0/mlflow/datasets/{dataset_id}/add-experiments
        POST /api/3.0/mlflow/datasets/{dataset_id}/remove-experiments
        """,
    ),
    (
        Subject((_IN_EXPERIMENTS,)),
        "POST /api/3.0/mlflow/datasets/create",
    ),
    (
        Subject((_MODEL,)),
        """
        POST /api/2.0/mlflow/registered-models/permissions/create
        GET /api/2.0/mlflow/registered-models/permissions/get
        PATCH /api/2.0/mlflow/registered-models/permissions/update
        DELETE /api/2.0/mlflow/registered-models/permissions/delete
        GET /api/2.0/mlflow/registered-models/get
        POST /api/2.0/mlflow/registered-models/rename
        PATCH /api/2.0/mlflow/registered-models/update
        DELETE /api/2.0/mlflow/registered-models/delete
        GET /api/2.0/mlflow/registered-models/get-latest-versions
        POST /api/2.0/mlflow/registered-models/get-latest-versions
        POST /api/2.0/mlflow/registered-models/set-tag
        DELETE /api/2.0/mlflow/registered-models/delete-tag
        POST /api/2.0/mlflow/registered-models/alias
        DELETE /api/2.0/mlflow/registered-models/alias
        GET /api/2.0/mlflow/registered-models/alias
        GET /api/2.0/mlflow/model-versions/get
        PATCH /api/2.0/mlflow/model-versions/update
        DELETE /api/2.0/mlflow/model-versions/delete
        GET /api/2.0/mlflow/model-versions/get-download-uri
        POST /api/2.0/mlflow/model-versions/transition-stage
        POST /api/2.0/mlflow/model-versions/set-tag
        DELETE /api/2.0/mlflow/model-versions/delete-tag
        GET /model-versions/get-artifact
        HEAD /model-versions/get-artifact
        """,
    ),
    (
        Subject(
            (
                _MODEL,
                _any(Thing.RUN, "run_id", level=Level.READ),
                _any(Thing.LOGGED_MODEL, "model_id", level=Level.READ),
                _any(Thing.VERSION_SOURCE, "source", level=Level.READ),
            )
        ),
        "POST /api/2.0/mlflow/model-versions/create",
    ),
    (
        # Those that search leave out, in SQL, what their caller may not read; those of users and tokens ask themselves
        # whether the caller is the one it is about, manages what is granted, or is an admin.
        Subject(),
        """
        POST /api/2.0/mlflow/experiments/create
        GET /api/2.0/mlflow/experiments/search
        POST /api/2.0/mlflow/experiments/search
        POST /api/2.0/mlflow/runs/search
        POST /api/2.0/mlflow/logged-models/search
        POST /api/2.0/mlflow/registered-models/create
        GET /api/2.0/mlflow/registered-models/search
        GET /api/2.0/mlflow/model-versions/search
        GET /api/3.0/mlflow/datasets/search
        POST /api/3.0/mlflow/datasets/search
        GET /api/3.0/mlflow/scorers/list
        GET /api/3.0/mlflow/scorers/online-configs
        POST /graphql
        GET /mirror/runs
        GET /api/runmirror/v1/mirror/quarantine
        GET /api/runmirror/v1/mirror/registered-models
        GET /api/runmirror/v1/deployments
        GET /api/runmirror/v1/deployments/{deployment_id}
        GET /ajax-api/2.0/mlflow/gateway-proxy
        POST /ajax-api/2.0/mlflow/gateway-proxy
        GET /ajax-api/3.0/mlflow/assistant/config
        GET /ajax-api/3.0/mlflow/assistant/providers
        GET /api/runmirror/v1/tokens
        POST /api/runmirror/v1/tokens
        DELETE /api/runmirror/v1/tokens/{token_id}
        GET /api/runmirror/v1/sessions
        DELETE /api/runmirror/v1/sessions/{session_id}
        GET /api/2.0/mlflow/users/get
        GET /api/2.0/mlflow/users/current
        PATCH /api/2.0/mlflow/users/update-password
        POST /api/3.0/mlflow/users/permissions/grant
        POST /api/3.0/mlflow/users/permissions/revoke
        GET /api/3.0/mlflow/users/permissions/get
        GET /api/3.0/mlflow/users/permissions/list
        GET /api/3.0/mlflow/users/roles/list
        GET /api/3.0/mlflow/roles/get
        """,
    ),
    (
        Subject(audience=Audience.WHOLE),
        """
        GET /metrics
        GET /mirror
        GET /api/runmirror/v1/mirror
        """,
    ),
    (
        Subject(audience=Audience.ADMIN),
        """
        POST /api/runmirror/v1/mirror/replay
        POST /api/runmirror/v1/deployments
        DELETE /api/runmirror/v1/deployments/{deployment_id}
        POST /api/2.0/mlflow/webhooks
        GET /api/2.0/mlflow/webhooks
        GET /api/2.0/mlflow/webhooks/{webhook_id}
        PATCH /api/2.0/mlflow/webhooks/{webhook_id}
        DELETE /api/2.0/mlflow/webhooks/{webhook_id}
        POST /api/2.0/mlflow/webhooks/{webhook_id}/test
        POST /api/2.0/mlflow/users/create
        GET /api/2.0/mlflow/users/list
        PATCH /api/2.0/mlflow/users/update-admin
        DELETE /api/2.0/mlflow/users/delete
        POST /api/3.0/mlflow/roles/create
        GET /api/3.0/mlflow/roles/list
        PATCH /api/3.0/mlflow/roles/update
        DELETE /api/3.0/mlflow/roles/delete
        POST /api/3.0/mlflow/roles/permissions/add
        DELETE /api/3.0/mlflow/roles/permissions/remove
        GET /api/3.0/mlflow/roles/permissions/list
        PATCH /api/3.0/mlflow/roles/permissions/update
        POST /api/3.0/mlflow/roles/assign
        DELETE /api/3.0/mlflow/roles/unassign
        GET /api/3.0/mlflow/roles/users/list
        """,
    ),
)

# What answers the same to everybody: empty lists for MLflow's pages, and why something is not served.
_SAME_TO_ALL = frozenset({"runmirror.ui.nothing", "runmirror.unserved.routes"})

_BY_ENDPOINT: dict[tuple[str, ...], Subject] = {
    tuple(line.split()): subject
    for subject, lines in _TABLE
    for line in filter(None, map(str.strip, lines.split("\n")))
}


def subjects_of(app: FastAPI) -> dict[tuple[str, str], tuple[Subject, Permission]]:
    """By method and path: what each route that is not public is about, and what it needs.

    Raises `RuntimeError` at one that says nothing of that: deny by default.
    """
    found: dict[tuple[str, str], tuple[Subject, Permission]] = {}
    for context in routes_of(app):
        permission = Permission((context.openapi_extra or {})["x-permission"])
        if permission is Permission.PUBLIC:
            continue
        route, path = context.original_route, str(context.path)
        is_same_to_all = isinstance(route, APIRoute) and route.endpoint.__module__ in _SAME_TO_ALL
        for method in context.methods or ():
            twin = path.replace("/ajax-api/", "/api/", 1)
            subject = _BY_ENDPOINT.get((method, path)) or _BY_ENDPOINT.get((method, twin))
            if subject is None and not is_same_to_all:
                raise RuntimeError(f"runmirror.auth.subjects does not say what {method} {path} is about")
            found[method, path] = subject or Subject(), permission
    return found
