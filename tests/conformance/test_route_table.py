"""Every route of the installed `mlflow` is served, or listed with the reason why not."""

import re
from collections import Counter
from pathlib import Path

import httpx
import pytest

from runmirror.app import create_app
from runmirror.routing import routes_of
from runmirror.settings import Settings
from runmirror.unserved.table import UNSERVED
from tests.conformance.compare import Both
from tests.conformance.endpoints import DIFFERENT, PAGE, Endpoint, mlflows, shape, written


@pytest.fixture
def served(tmp_path: Path) -> Counter[Endpoint]:
    """Our routes with an answer of their own, without those that only say 501."""
    app = create_app(Settings(data_dir=tmp_path), "postgresql://nowhere/none")
    found = Counter(
        (method, shape(str(context.path)))
        for context in routes_of(app)
        for method in getattr(context.original_route, "methods", None) or ()
    )
    return found - Counter((endpoint.method, shape(endpoint.path)) for endpoint in UNSERVED)


LISTED = Counter((endpoint.method, shape(endpoint.path)) for endpoint in UNSERVED)


def test_mlflow_has_the_routes_this_test_is_about() -> None:
    assert len(mlflows()) > 400
    for endpoint in (("POST", "/api/2.0/mlflow/runs/create"), ("POST", "/v1/traces"), ("GET", "/static-files/{}")):
        assert endpoint in mlflows()


def test_every_route_of_mlflow_is_served_or_listed(served: Counter[Endpoint]) -> None:
    assert sorted(set(mlflows()) - set(served) - set(LISTED)) == []


def test_no_route_is_both_served_and_listed(served: Counter[Endpoint]) -> None:
    """When a listed endpoint gets an answer of its own, its line in unserved/table.py goes."""
    assert sorted(set(served) & set(LISTED)) == []


def test_only_routes_of_mlflow_are_listed_and_each_once() -> None:
    assert sorted(set(LISTED) - set(mlflows())) == []
    assert [endpoint for endpoint, times in LISTED.items() if times > 1] == []


def test_what_is_served_differently_is_an_endpoint_of_mlflow_that_is_served(served: Counter[Endpoint]) -> None:
    assert sorted(set(DIFFERENT) - (set(mlflows()) & set(served))) == []


def test_the_page_lists_every_endpoint() -> None:
    """`python -m tests.conformance.endpoints` writes the list anew."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page)


def test_probes_of_clients_are_answered_alike(both: Both) -> None:
    for path in ("/health", "/version"):
        both.call("GET", path)


async def test_a_listed_endpoint_answers_501_with_its_name(client: httpx.AsyncClient) -> None:
    for endpoint in UNSERVED:
        path = re.sub(r"\{[^}]*\}", "x", endpoint.path)
        answer = await client.request(endpoint.method, path)
        assert answer.status_code == 501, (endpoint, answer.text)
        assert answer.json()["error_code"] == "NOT_IMPLEMENTED"
        assert f"{endpoint.method} {path}" in answer.json()["message"]


async def test_an_endpoint_nobody_has_is_404(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/2.0/mlflow/nonsense")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
