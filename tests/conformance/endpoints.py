"""The table of docs/mlflow.md of MLflow's endpoints: `python -m tests.conformance.endpoints` writes it anew.

Which endpoints there are is read from the installed `mlflow`, which of them are not served from `unserved/table.py`;
what is served with other answers stands in `DIFFERENT`: every endpoint of which the differential suite has a
`Deviation` where one server accepts and the other refuses (`compare.py` checks it), but for mistakes that are refused
everywhere.
"""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from fastapi.routing import APIRoute

from runmirror.app import create_app
from runmirror.routing import routes_of
from runmirror.settings import Settings
from runmirror.unserved.table import UNSERVED
from tests.server import clean_environment

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "mlflow.md"
BEGIN, END = "<!-- endpoints: begin -->\n", "<!-- endpoints: end -->\n"

Endpoint = tuple[str, str]

_SEARCH = "one filter language for every search: more is understood, and what is ambiguous is refused"
_REPEAT = "an exact repeat is absorbed"
_MODEL_ID = "a model's id has MLflow's own shape"
_NAME = "names of files are decoded once; what means another place on some machine is refused"

DIFFERENT: dict[Endpoint, str] = {
    ("GET", "/ajax-api/2.0/mlflow/metrics/get-history-bulk"): "a limit below 0 is refused",
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/{}"): "a Range of several parts is answered with the whole file",
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/{}"): _NAME,
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/{}"): "a path that holds whole experiments is refused",
    ("POST", "/api/2.0/mlflow-artifacts/mpu/create/{}"): "see `RUNMIRROR_DIRECT_TRANSFERS`",
    ("GET", "/api/2.0/mlflow-artifacts/presigned/{}"): "served for artifacts in Azure Blob",
    ("POST", "/api/2.0/mlflow/artifacts/presigned-download-url"): "served for artifacts in Azure Blob",
    ("POST", "/api/2.0/mlflow/artifacts/presigned-upload-url"): "served for artifacts in Azure Blob",
    ("GET", "/get-artifact"): "a Range of more bytes from the end than there are is the whole file",
    ("GET", "/model-versions/get-artifact"): "sources of the form `runs:/` are resolved",
    ("GET", "/api/2.0/mlflow/experiments/search"): _SEARCH,
    ("POST", "/api/2.0/mlflow/experiments/search"): _SEARCH,
    ("POST", "/api/2.0/mlflow/runs/search"): _SEARCH,
    ("GET", "/api/2.0/mlflow/model-versions/search"): _SEARCH,
    ("GET", "/api/2.0/mlflow/registered-models/search"): _SEARCH,
    ("POST", "/api/2.0/mlflow/logged-models/search"): "a dataset's name without a digest means every digest",
    ("POST", "/api/2.0/mlflow/experiments/create"): "artifact locations lie in the server's own store",
    ("POST", "/api/2.0/mlflow/logged-models"): _MODEL_ID,
    ("PATCH", "/api/2.0/mlflow/logged-models/{}"): "an unknown status, or another model's id in the body, is refused",
    ("POST", "/api/2.0/mlflow/logged-models/{}/params"): _REPEAT,
    ("POST", "/api/2.0/mlflow/model-versions/create"): "sources lie in the server's own store",
    (
        "POST",
        "/api/2.0/mlflow/registered-models/create",
    ): "an empty tag value, or one too long, is refused",
    ("POST", "/api/2.0/mlflow/runs/create"): "a tag's key has 250 characters at most, as everywhere",
    ("POST", "/api/2.0/mlflow/runs/log-batch"): "all of it is written, or nothing",
    ("POST", "/api/2.0/mlflow/runs/log-inputs"): _MODEL_ID,
    ("POST", "/api/2.0/mlflow/runs/outputs"): f"{_MODEL_ID}; {_REPEAT}",
    ("POST", "/api/3.0/mlflow/traces"): "ids are no paths (CVE-2026-53995)",
    ("POST", "/api/3.0/mlflow/traces/search"): "orders that make MLflow fail are understood",
    ("GET", "/api/3.0/mlflow/datasets/search"): _SEARCH,
    ("POST", "/api/3.0/mlflow/datasets/search"): _SEARCH,
    ("GET", "/api/3.0/mlflow/datasets/{}/records"): "a size of a page that cannot be is refused",
    ("POST", "/api/3.0/mlflow/datasets/{}/records"): "records are a list, of a dataset that is there",
    ("GET", "/api/3.0/mlflow/scorers/get"): "a version too large for any is refused",
    ("POST", "/api/3.0/mlflow/scorers/register"): "a text of 1 MiB at most, whose content is not read",
    ("POST", "/api/2.0/mlflow/runs/set-tag"): "a key that ends in a line feed is refused",
    ("POST", "/api/3.0/mlflow/datasets/create"): "an unknown experiment is 404",
    ("GET", "/api/3.0/mlflow/scorers/online-configs"): "always empty: nothing is scored here",
    ("POST", "/api/2.0/mlflow/webhooks"): "delivered at least once, to public addresses only; no user name in the URL",
    ("PATCH", "/api/2.0/mlflow/webhooks/{}"): "no user name in the URL",
    ("POST", "/api/2.0/mlflow/webhooks/{}/test"): "sent once; 4 KiB of the answer are shown",
    ("POST", "/graphql"): "documents that are too large or too deep are refused",
}


def shape(path: str) -> str:
    """The path with its variables unnamed: Flask writes <model_id>, FastAPI {model_id}."""
    return re.sub(r"<[^>]*>|\{[^}]*\}", "{}", path)


@cache
def mlflows() -> dict[Endpoint, str]:
    """All that `mlflow server` routes: (method, shape) → its path."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.conformance.mlflow_routes"]
    environment = clean_environment({"PYTHONPATH": str(REPOSITORY)})
    asked = subprocess.run(command, env=environment, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return {(method, shape(path)): path for method, path in json.loads(asked.stdout)}


@cache
def _patterns() -> list[tuple[str, re.Pattern[str], Endpoint]]:
    """Our routes in the order in which they are tried, each with its endpoint."""
    app = create_app(Settings(), "postgresql://nowhere/none")
    return [
        (method, route.path_regex, (method, shape(route.path)))
        for route in (context.original_route for context in routes_of(app))
        if isinstance(route, APIRoute)
        for method in sorted(route.methods)
    ]


def is_told_to_differ(method: str, path: str) -> bool:
    """Whether `DIFFERENT` has the endpoint that answers `path`, or its twin below /api."""
    path = unquote(path.partition("?")[0])
    for served, pattern, endpoint in _patterns():
        if served == method and pattern.match(path):
            return endpoint in DIFFERENT or (method, endpoint[1].replace("/ajax-api/", "/api/", 1)) in DIFFERENT
    return False


def table() -> str:
    """The table in Markdown, a line for each path and answer."""
    declined = {(endpoint.method, shape(endpoint.path)): endpoint.reason for endpoint in UNSERVED}
    rows: dict[tuple[str, str], list[str]] = {}
    for endpoint, path in sorted(mlflows().items(), key=lambda item: (item[1], item[0])):
        method, unnamed = endpoint
        if unnamed.startswith("/ajax-api/") and (method, unnamed.replace("/ajax-api/", "/api/", 1)) in mlflows():
            continue
        if endpoint in declined:
            answer = f"not served | {declined[endpoint]}"
        elif endpoint in DIFFERENT:
            answer = f"served differently | {DIFFERENT[endpoint]}"
        else:
            answer = "served |"
        named = re.sub(r"<(?:\w+:)?(\w+)>|\{(\w+)(?::\w+)?\}", lambda match: f"{{{match[1] or match[2]}}}", path)
        rows.setdefault((named, answer), []).append(method)
    lines = [f"| `{'`, `'.join(methods)}` `{path}` | {answer} |" for (path, answer), methods in rows.items()]
    return "\n".join(["| Endpoint | | Why |", "|---|---|---|", *lines]) + "\n"


def written(page: str) -> str:
    """The page with the table as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
