"""The table of what runmirror does not serve of MLflow 3.17's endpoints.

A path below /api stands for its twin below /ajax-api too, except where the line ends in "(clients)": MLflow's pages get
an empty list there (`ui/nothing.py`). `GET|POST path` stands for both methods. A test compares this
table and our routes with the installed `mlflow`: an endpoint of MLflow stands in exactly one of the two.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unserved:
    """One endpoint; `reason` completes "… is not served: "."""

    method: str
    path: str
    reason: str


_GATEWAY = "runmirror stores and mirrors, it is no gateway to language models"
_RUNS_CODE = "the server would run code or call models for its clients, and runmirror executes nothing"

_GROUPS: tuple[tuple[str, str], ...] = (
    (
        _GATEWAY,
        """
        GET /api/3.0/mlflow/gateway/budgets/get
        GET /api/3.0/mlflow/gateway/budgets/list
        GET /api/3.0/mlflow/gateway/budgets/windows
        POST /api/3.0/mlflow/gateway/budgets/create
        POST /api/3.0/mlflow/gateway/budgets/update
        DELETE /api/3.0/mlflow/gateway/budgets/delete
        GET /api/3.0/mlflow/gateway/endpoints/get
        GET /api/3.0/mlflow/gateway/endpoints/list
        POST /api/3.0/mlflow/gateway/endpoints/create
        POST /api/3.0/mlflow/gateway/endpoints/update
        POST /api/3.0/mlflow/gateway/endpoints/set-tag
        DELETE /api/3.0/mlflow/gateway/endpoints/delete
        DELETE /api/3.0/mlflow/gateway/endpoints/delete-tag
        GET /api/3.0/mlflow/gateway/endpoints/bindings/list
        POST /api/3.0/mlflow/gateway/endpoints/bindings/create
        DELETE /api/3.0/mlflow/gateway/endpoints/bindings/delete
        POST /api/3.0/mlflow/gateway/endpoints/models/attach
        POST /api/3.0/mlflow/gateway/endpoints/models/detach
        GET /api/3.0/mlflow/gateway/guardrails/get
        GET /api/3.0/mlflow/gateway/guardrails/list
        GET /api/3.0/mlflow/gateway/guardrails/list-for-endpoint
        POST /api/3.0/mlflow/gateway/guardrails/create
        POST /api/3.0/mlflow/gateway/guardrails/add-to-endpoint
        PATCH /api/3.0/mlflow/gateway/guardrails/update-config
        DELETE /api/3.0/mlflow/gateway/guardrails/delete
        DELETE /api/3.0/mlflow/gateway/guardrails/remove-from-endpoint
        GET /api/3.0/mlflow/gateway/model-definitions/get
        GET /api/3.0/mlflow/gateway/model-definitions/list
        POST /api/3.0/mlflow/gateway/model-definitions/create
        POST /api/3.0/mlflow/gateway/model-definitions/update
        DELETE /api/3.0/mlflow/gateway/model-definitions/delete
        GET /api/3.0/mlflow/gateway/secrets/get
        GET /api/3.0/mlflow/gateway/secrets/list
        POST /api/3.0/mlflow/gateway/secrets/create
        POST /api/3.0/mlflow/gateway/secrets/update
        DELETE /api/3.0/mlflow/gateway/secrets/delete
        GET /ajax-api/3.0/mlflow/gateway/secrets/config
        GET /ajax-api/3.0/mlflow/gateway/provider-config
        GET /ajax-api/3.0/mlflow/gateway/supported-models
        GET /ajax-api/3.0/mlflow/gateway/supported-providers
        POST /ajax-api/2.0/mlflow/runs/create-promptlab-run
        POST /gateway/{endpoint_name}/mlflow/invocations
        GET /gateway/mlflow/v1/models
        POST /gateway/mlflow/v1/chat/completions
        POST /gateway/openai/v1/chat/completions
        POST /gateway/openai/v1/embeddings
        POST /gateway/openai/v1/responses
        POST /gateway/openai/v1/responses/compact
        POST /gateway/anthropic/v1/messages
        POST /gateway/gemini/v1beta/models/{endpoint_name}:generateContent
        POST /gateway/gemini/v1beta/models/{endpoint_name}:streamGenerateContent
        POST /gateway/typesafe/v1/systemone
        POST /gateway/proxy/{endpoint_name}/{path:path}
        """,
    ),
    (
        _RUNS_CODE,
        """
        PUT /ajax-api/3.0/mlflow/assistant/config
        POST /ajax-api/3.0/mlflow/assistant/message
        GET /ajax-api/3.0/mlflow/assistant/providers/{provider}/health
        GET /ajax-api/3.0/mlflow/assistant/providers/{provider}/models
        PATCH /ajax-api/3.0/mlflow/assistant/sessions/{session_id}
        POST /ajax-api/3.0/mlflow/assistant/sessions/{session_id}/permission
        GET /ajax-api/3.0/mlflow/assistant/sessions/{session_id}/stream
        POST /ajax-api/3.0/mlflow/assistant/sessions/{session_id}/tool-result
        POST /ajax-api/3.0/mlflow/assistant/skills/install
        POST /ajax-api/3.0/jobs/
        POST /ajax-api/3.0/jobs/search
        GET /ajax-api/3.0/jobs/{job_id}
        PATCH /ajax-api/3.0/jobs/cancel/{job_id}
        GET /ajax-api/3.0/mlflow/jobs/{job_id}
        PATCH /ajax-api/3.0/mlflow/jobs/cancel/{job_id}
        POST /ajax-api/3.0/mlflow/scorer/invoke
        PUT /api/3.0/mlflow/scorers/online-config
        POST /ajax-api/3.0/mlflow/issues/invoke
        POST /ajax-api/3.0/mlflow/genai/evaluate/invoke
        POST /api/3.0/mlflow/prompt-optimization/jobs
        GET|POST /api/3.0/mlflow/prompt-optimization/jobs/search
        GET|DELETE /api/3.0/mlflow/prompt-optimization/jobs/{job_id}
        POST /api/3.0/mlflow/prompt-optimization/jobs/{job_id}/cancel
        """,
    ),
    (
        "reviews, labels and issues are not part of tracking, and a workspace has no place for them",
        """
        POST /api/3.0/mlflow/issues
        POST /api/3.0/mlflow/issues/search (clients)
        GET|PATCH /api/3.0/mlflow/issues/{issue_id}
        GET /api/3.0/mlflow/label-schemas/get
        GET /api/3.0/mlflow/label-schemas/get-by-name
        GET /api/3.0/mlflow/label-schemas/list (clients)
        POST /api/3.0/mlflow/label-schemas/create
        PATCH /api/3.0/mlflow/label-schemas/update
        DELETE /api/3.0/mlflow/label-schemas/delete
        GET /api/3.0/mlflow/review-queues/get
        GET /api/3.0/mlflow/review-queues/get-by-name
        GET /api/3.0/mlflow/review-queues/list (clients)
        POST /api/3.0/mlflow/review-queues/create
        POST /api/3.0/mlflow/review-queues/update
        POST /api/3.0/mlflow/review-queues/delete
        POST /api/3.0/mlflow/review-queues/get-or-create-user (clients)
        GET /api/3.0/mlflow/review-queues/items/list
        POST /api/3.0/mlflow/review-queues/items/add
        POST /api/3.0/mlflow/review-queues/items/remove
        POST /api/3.0/mlflow/review-queues/items/set-status
        """,
    ),
    (
        "one server has one workspace, as `mlflow server` without MLFLOW_ENABLE_WORKSPACES",
        """
        GET|POST /api/3.0/mlflow/workspaces
        GET|PATCH|DELETE /api/3.0/mlflow/workspaces/{workspace_name}
        """,
    ),
    (
        "a registry of MCP servers is not part of tracking",
        """
        GET /api/3.0/mlflow/mcp-servers (clients)
        POST /api/3.0/mlflow/mcp-servers
        GET /api/3.0/mlflow/mcp-servers/endpoints (clients)
        POST /api/3.0/mlflow/mcp-servers/{name:path}/aliases
        GET|DELETE /api/3.0/mlflow/mcp-servers/{name:path}/aliases/{alias:path}
        GET|POST /api/3.0/mlflow/mcp-servers/{name:path}/endpoints
        GET|PATCH|DELETE /api/3.0/mlflow/mcp-servers/{name:path}/endpoints/{endpoint_id}
        POST /api/3.0/mlflow/mcp-servers/{name:path}/versions/{version:path}/tags
        DELETE /api/3.0/mlflow/mcp-servers/{name:path}/versions/{version:path}/tags/{key:path}
        GET|POST /api/3.0/mlflow/mcp-servers/{name:path}/versions
        GET|PATCH|DELETE /api/3.0/mlflow/mcp-servers/{name:path}/versions/{version:path}
        POST /api/3.0/mlflow/mcp-servers/{name:path}/tags
        DELETE /api/3.0/mlflow/mcp-servers/{name:path}/tags/{key:path}
        GET|PATCH|DELETE /api/3.0/mlflow/mcp-servers/{name:path}
        """,
    ),
    (
        "MLflow has it for its demo data; `runmirror demo` is ours",
        """
        POST /ajax-api/3.0/mlflow/demo/generate
        POST /ajax-api/3.0/mlflow/demo/delete
        """,
    ),
    (
        "MLflow has a name for it and nothing behind it",
        """
        GET /api/2.0/mlflow/get-online-trace-details
        GET /api/2.0/mlflow/unified-traces
        POST /api/2.0mlflow/experiments/search-datasets
        """,
    ),
    ("a GraphQL document is sent as POST", "GET /graphql"),
    ("the pages' files are at /static-files", "GET /build/{filename:path}"),
)


def _endpoints() -> Iterator[Unserved]:
    for reason, listed in _GROUPS:
        for line in filter(None, map(str.strip, listed.split("\n"))):
            methods, path, *clients_only = line.split(" ")
            for method in methods.split("|"):
                yield Unserved(method, path, reason)
                if path.startswith("/api/") and not clients_only:
                    yield Unserved(method, path.replace("/api/", "/ajax-api/", 1), reason)


UNSERVED = tuple(_endpoints())
