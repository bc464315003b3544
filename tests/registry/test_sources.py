"""Sources of model versions: every trick of MLflow's advisories is refused, nothing is written, nothing is served."""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.errors import InvalidParameter
from runmirror.registry.sources import VersionRef, parse_version_ref

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
PROMPT_TAG = {"key": "mlflow.prompt.is_prompt", "value": "true"}


@dataclass(frozen=True)
class Registry:
    """A server with a registered model `m`, a run and a logged model with one file each, and a stranger's run."""

    client: httpx.AsyncClient
    run_id: str
    model_id: str
    other_run_id: str

    async def create(self, source: str, **fields: Any) -> httpx.Response:
        return await self.client.post(f"{API}/model-versions/create", json={"name": "m", "source": source, **fields})

    async def file(self, version: int, path: str) -> httpx.Response:
        query = {"name": "m", "version": str(version), "path": path}
        return await self.client.get("/model-versions/get-artifact", params=query)

    def fill(self, source: str) -> str:
        return source.format(run=self.run_id, model=self.model_id, other=self.other_run_id)


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    answer = await client.post(f"{API}/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
async def registry(client: httpx.AsyncClient) -> Registry:
    runs = [(await post(client, "runs/create", experiment_id="0"))["run"]["info"]["run_id"] for _ in range(2)]
    made = await post(client, "logged-models", experiment_id="0", name="made", source_run_id=runs[0])
    model_id = made["model"]["info"]["model_id"]
    await post(client, "registered-models/create", name="m")
    for path in (f"0/{runs[0]}/artifacts/a/f", f"0/models/{model_id}/artifacts/f", f"0/{runs[1]}/artifacts/secret"):
        assert (await client.put(f"{ARTIFACTS}/{path}", content=path.encode())).status_code == 200
    return Registry(client, runs[0], model_id, runs[1])


TRICKS = [
    # CVE-2023-1177, CVE-2023-2780, CVE-2023-6977: a local path as source, then get-artifact
    "file:///etc", "file:/etc", "file://localhost/etc", "//proc/self/root", "/proc/self/root", "/etc/passwd", "etc",
    ".", "..", "C:\\Windows", "C:/Windows", "\\\\host\\share", "FILE:///etc", "file:", "sqlite:///x.db",
    # traversal, plain and encoded (CVE-2023-6831, CVE-2024-1560: decoded twice)
    "runs:/{run}/../../../../etc", "runs:/{run}/..", "runs:/{run}/a/../../../{other}/artifacts/secret",
    "runs:/{run}/%2e%2e/%2e%2e/etc", "runs:/{run}/%252e%252e/x", "runs:/{run}/a%2f..%2f..", "runs:/{run}/a%00",
    "runs:/{run}/a\\..\\..", "runs:/{run}//etc/passwd", "runs:/{run}/./a", "runs:/../{run}/a", "runs:///{run}/a",
    "runs://{run}/a", "runs:/{run}/a\u0000", "runs:/{run}/a\n", "runs:/{run}/.\u2024/x\u0085",
    "mlflow-artifacts:/0/{run}/artifacts/../../{other}/artifacts",
    "mlflow-artifacts:/0/{run}/artifacts/%2e%2e/%2e%2e/{other}/artifacts",
    "mlflow-artifacts:/0/{run}/artifacts/..%2f..%2f{other}", "mlflow-artifacts:/../../etc", "mlflow-artifacts:/",
    "mlflow-artifacts:///etc", "mlflow-artifacts://host/0/{run}/artifacts", "mlflow-artifacts:0/{run}/artifacts",
    "mlflow-artifacts:/0/{run}/artifacts//../x", "mlflow-artifacts:/0/{run}/artifacts\\..\\..",
    # traversal in a query or fragment (CVE-2023-6909, CVE-2024-1483, CVE-2024-2928, CVE-2024-3848, CVE-2024-3573)
    "http:///?/../../etc/", "http:///#/../../etc/", "runs:/{run}/a?/../../../etc", "runs:/{run}/a#/../../../etc",
    "mlflow-artifacts:/0/{run}/artifacts?/../../{other}", "mlflow-artifacts:/0/{run}/artifacts#/../../etc",
    "mlflow-artifacts:/0/{run}/artifacts/a?x", "models:/{model}?/../../etc", "models:/{model}#/../..",
    # other stores and hosts (CVE-2024-8859, CVE-2023-6974, server-side requests)
    "http://169.254.169.254/latest/meta-data", "https://example.com/x", "ftp://example.com/x", "s3://bucket/x",
    "dbfs:/etc", "gs://bucket/x", "wasbs://c@a.blob.core.windows.net/x", "hdfs://h/x", "viewfs:/x", "azureml://x",
    "http://localhost/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts", "uc:/x", "abfss://c@a/x",
    # somebody else's files, and what only looks like ours
    "runs:/{other}/secret", "mlflow-artifacts:/0/{other}/artifacts", "mlflow-artifacts:/0", "mlflow-artifacts:/0/{run}",
    "mlflow-artifacts:/0/{run}/artifactsX", "mlflow-artifacts:/0/models/{model}", "models:/m-" + "0" * 32,
    "models://{model}", "models:{model}", "models:/../{model}", "models:/m/../{model}", "models:/m/..", "models:/..@x",
    "MODELS:/{model}", "RUNS:/{run}/a", " runs:/{run}/a", "runs:/{run}/a\t", "dummy-source", "prompt-template",
    "runs:/{run}/" + "x" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("tags", [[], [PROMPT_TAG], [PROMPT_TAG, {"key": PROMPT_TAG["key"], "value": "false"}]])
@pytest.mark.parametrize("ids", ["none", "run", "model", "both"])
async def test_a_trick_is_refused_whatever_ids_and_tags_come_with_it(
    registry: Registry, engine: AsyncEngine, ids: str, tags: list[dict[str, str]]
) -> None:
    """CVE-2026-2614: the check never depends on a tag that the client sent."""
    fields: dict[str, Any] = {"tags": tags}
    if ids in {"run", "both"}:
        fields["run_id"] = registry.run_id
    if ids in {"model", "both"}:
        fields["model_id"] = registry.model_id
    placeholders = {"dummy-source", "prompt-template"} if tags == [PROMPT_TAG] else set()
    for trick in TRICKS:
        if trick in placeholders:
            continue
        answer = await registry.create(registry.fill(trick), **fields)
        assert answer.status_code in {400, 404}, (trick, answer.text)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM model_versions")) == 0
        assert await connection.scalar(text("SELECT last_version FROM registered_models")) == 0


async def test_files_in_our_store_are_served_and_nothing_beside_them(registry: Registry) -> None:
    run = {"run_id": registry.run_id}
    sources: list[tuple[str, dict[str, str], str]] = [
        ("runs:/{run}/a", run, "f"),
        ("runs:/{run}", run, "a/f"),
        ("mlflow-artifacts:/0/{run}/artifacts/a", run, "f"),
        ("models:/{model}", {"model_id": registry.model_id}, "f"),
        ("models:/m/1", {}, "f"),
    ]
    for number, (source, ids, path) in enumerate(sources, start=1):
        created = await registry.create(registry.fill(source), **ids)
        assert created.status_code == 200, created.text
        served = await registry.file(number, path)
        assert served.status_code == 200
        assert served.content.endswith(b"/f")
        assert served.headers["content-disposition"].startswith("attachment")
        assert served.headers["content-security-policy"] == "sandbox"
        for wrong in ("../f", f"../../{registry.other_run_id}/artifacts/secret", "/etc/passwd", "%2e%2e/f", "a\\f", ""):
            answer = await registry.file(number, wrong)
            assert answer.status_code == 400, (source, wrong, answer.text)
        assert (await registry.file(number, "nothing")).status_code == 404


@pytest.mark.parametrize("placeholder", ["dummy-source", "prompt-template"])
async def test_a_prompt_has_no_files_however_its_tags_change(registry: Registry, placeholder: str) -> None:
    answer = await registry.create(placeholder, tags=[PROMPT_TAG])
    assert answer.status_code == 200
    change = {"name": "m", "version": "1", "key": PROMPT_TAG["key"]}
    await post(registry.client, "model-versions/set-tag", **change, value="false")
    for path in ("f", "../x", "a/f"):
        assert (await registry.file(1, path)).status_code == 400
    assert (await registry.create("models:/m/1")).status_code == 400  # nor is a copy of it a model
    uri = await registry.client.get(f"{API}/model-versions/get-download-uri", params={"name": "m", "version": "1"})
    assert uri.json() == {"artifact_uri": placeholder}


async def test_a_deleted_version_is_not_served(registry: Registry) -> None:
    assert (await registry.create(registry.fill("runs:/{run}/a"), run_id=registry.run_id)).status_code == 200
    gone = {"name": "m", "version": "1"}
    await registry.client.request("DELETE", f"{API}/model-versions/delete", json=gone)
    assert (await registry.file(1, "f")).status_code == 404


async def test_a_head_of_a_file_has_the_headers_of_its_download(registry: Registry) -> None:
    await registry.create(registry.fill("runs:/{run}/a"), run_id=registry.run_id)
    query = {"name": "m", "version": "1", "path": "f"}
    head = await registry.client.head("/model-versions/get-artifact", params=query)
    named = {"X-Request-Id": head.headers["x-request-id"]}
    full = await registry.client.get("/model-versions/get-artifact", params=query, headers=named)
    assert head.status_code == 200
    assert {**head.headers} == {**full.headers}


@pytest.mark.parametrize("run_id", ["x", "../x", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n", "m-" + "0" * 32])
async def test_a_run_id_has_one_shape(registry: Registry, run_id: str) -> None:
    for source, tags in (("models:/{model}", []), ("prompt-template", [PROMPT_TAG])):
        answer = await registry.create(registry.fill(source), model_id=registry.model_id, run_id=run_id, tags=tags)
        assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    ("uri", "ref"),
    [
        ("models:/m-1", None),
        ("models:/a b/12", VersionRef("a b", version="12")),
        ("models:/a/Latest", VersionRef("a")),
        ("models:/a@latest", VersionRef("a")),
        ("models:/a@b@best", VersionRef("a@b", alias="best")),
        ("models:/a/Production", VersionRef("a", stage="Production")),
        ("models:/a#b/1", VersionRef("a#b", version="1")),
    ],
)
def test_a_models_uri_means_one_thing(uri: str, ref: VersionRef | None) -> None:
    assert parse_version_ref(uri) == ref


@pytest.mark.parametrize("uri", ["models:/", "models:/a/", "models:/a/b/c", "models:/a@", "models:/ ", "models:/a/1?b"])
def test_what_is_no_models_uri_is_refused(uri: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid model version source"):
        parse_version_ref(uri)
