"""Writes of the registry on a real Postgres: numbers, seq, races and the number of statements."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.entities import Tag
from runmirror.registry import queries, search, service
from runmirror.registry.wire import SearchModels, SearchVersions

API = "/api/2.0/mlflow"


async def call(client: httpx.AsyncClient, method: str, path: str, **body: Any) -> Any:
    answer = await client.request(method, f"{API}/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def new_run(client: httpx.AsyncClient) -> str:
    return str((await call(client, "POST", "runs/create", experiment_id="0"))["run"]["info"]["run_id"])


async def scalar(engine: AsyncEngine, statement: str, **values: Any) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text(statement), values)


@pytest.fixture
async def run_id(client: httpx.AsyncClient) -> str:
    """A run; and a registered model `m`."""
    await call(client, "POST", "registered-models/create", name="m")
    return await new_run(client)


async def test_versions_created_at_once_have_a_number_each(client: httpx.AsyncClient, run_id: str) -> None:
    source = f"runs:/{run_id}/model"
    made = await asyncio.gather(
        *(call(client, "POST", "model-versions/create", name="m", source=source, run_id=run_id) for _ in range(20))
    )
    assert sorted(int(one["model_version"]["version"]) for one in made) == list(range(1, 21))


async def test_a_model_created_twice_at_once_is_there_once(client: httpx.AsyncClient) -> None:
    path = f"{API}/registered-models/create"
    answers = await asyncio.gather(*(client.post(path, json={"name": "twice"}) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7
    assert {answer.json().get("error_code") for answer in answers} == {None, "RESOURCE_ALREADY_EXISTS"}


async def test_two_models_renamed_to_one_name_at_once_do_not_meet(client: httpx.AsyncClient) -> None:
    for name in ("a", "b"):
        await call(client, "POST", "registered-models/create", name=name)
    path = f"{API}/registered-models/rename"
    answers = await asyncio.gather(*(client.post(path, json={"name": name, "new_name": "c"}) for name in ("a", "b")))
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    refused = next(answer for answer in answers if answer.status_code == 400)
    assert refused.json()["error_code"] == "RESOURCE_ALREADY_EXISTS"


async def test_every_write_counts_once_and_a_refused_one_does_not(
    client: httpx.AsyncClient, engine: AsyncEngine, run_id: str
) -> None:
    version = {"name": "m", "version": "1"}
    writes: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "model-versions/create", {"name": "m", "source": f"runs:/{run_id}/x", "run_id": run_id}),
        ("PATCH", "registered-models/update", {"name": "m", "description": "d"}),
        ("POST", "registered-models/set-tag", {"name": "m", "key": "a", "value": "b"}),
        ("DELETE", "registered-models/delete-tag", {"name": "m", "key": "a"}),
        ("PATCH", "model-versions/update", {**version, "description": "d"}),
        ("POST", "model-versions/set-tag", {**version, "key": "a", "value": "b"}),
        ("DELETE", "model-versions/delete-tag", {**version, "key": "a"}),
        ("POST", "model-versions/transition-stage", {**version, "stage": "Staging"}),
        ("POST", "registered-models/alias", {**version, "alias": "best"}),
        ("DELETE", "registered-models/alias", {"name": "m", "alias": "best"}),
        ("DELETE", "model-versions/delete", version),
        ("POST", "registered-models/rename", {"name": "m", "new_name": "m"}),
    ]
    seq = "SELECT seq FROM registered_models WHERE name = 'm'"
    for number, (method, path, body) in enumerate(writes, start=2):
        await call(client, method, path, **body)
        assert await scalar(engine, seq) == number, path
    for method, path, body in writes[4:9]:  # the version is gone
        assert (await client.request(method, f"{API}/{path}", json=body)).status_code == 404
    assert await scalar(engine, seq) == len(writes) + 1


async def test_registering_a_logged_model_is_a_change_of_the_run_that_made_it(
    client: httpx.AsyncClient, engine: AsyncEngine, run_id: str
) -> None:
    made = await call(client, "POST", "logged-models", experiment_id="0", name="x", source_run_id=run_id)
    model_id = made["model"]["info"]["model_id"]
    before = await scalar(engine, "SELECT seq FROM runs WHERE run_id = :run_id", run_id=run_id)
    request = {"name": "m", "source": f"models:/{model_id}", "model_id": model_id}
    answers = await asyncio.gather(*(call(client, "POST", "model-versions/create", **request) for _ in range(5)))
    assert {answer["model_version"]["run_id"] for answer in answers} == {run_id}
    assert await scalar(engine, "SELECT seq FROM runs WHERE run_id = :run_id", run_id=run_id) == before + 5
    value = await scalar(engine, "SELECT value FROM logged_model_tags WHERE key = 'mlflow.modelVersions'")
    assert sorted(entry["version"] for entry in json.loads(value)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("spoiled", ["no json", "7", "[" * 100_000, "{}"])
async def test_a_spoiled_list_of_versions_on_a_logged_model_begins_anew(
    client: httpx.AsyncClient, engine: AsyncEngine, run_id: str, spoiled: str
) -> None:
    tags = [{"key": "mlflow.modelVersions", "value": spoiled}]
    made = await call(client, "POST", "logged-models", experiment_id="0", name="x", tags=tags)
    model_id = made["model"]["info"]["model_id"]
    await call(client, "POST", "model-versions/create", name="m", source=f"models:/{model_id}", model_id=model_id)
    value = await scalar(engine, "SELECT value FROM logged_model_tags WHERE key = 'mlflow.modelVersions'")
    assert json.loads(value) == [{"name": "m", "version": 1}]


async def test_text_that_cannot_be_stored_is_refused(client: httpx.AsyncClient, run_id: str) -> None:
    for bad in ("a\x00b", "a\ud800b"):
        for path, body in (
            ("registered-models/create", {"name": bad}),
            ("registered-models/create", {"name": "n", "description": bad}),
            ("registered-models/create", {"name": "n", "tags": [{"key": "a", "value": bad}]}),
            ("registered-models/set-tag", {"name": "m", "key": "a", "value": bad}),
            ("registered-models/get-latest-versions", {"name": bad}),
            ("model-versions/create", {"name": "m", "source": bad}),
            ("model-versions/create", {"name": "m", "source": f"runs:/{run_id}/x", "run_id": run_id, "run_link": bad}),
            ("model-versions/create", {"name": "m", "source": f"models:/{bad}/1"}),
        ):
            answer = await client.post(f"{API}/{path}", content=json.dumps(body), headers=JSON)
            assert answer.status_code == 400, (path, body, answer.text)
            assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"


JSON = {"Content-Type": "application/json"}


async def test_the_number_of_statements_does_not_grow(engine: AsyncEngine) -> None:
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *call: statements.append(call[2]))

    async def count(size: int) -> list[int]:
        """Create `size` prompts with `size` tags and versions each, and count the statements of each kind of call."""
        tags = [Tag(f"t{number}", "x") for number in range(size)]
        prompt = Tag("mlflow.prompt.is_prompt", "true")
        counts: list[int] = []
        async with engine.connect() as connection, connection.begin():
            names = [f"{size}-{number}" for number in range(size)]
            for name in names:
                statements.clear()
                await service.create_model(connection, name, "", [prompt, *tags])
                made = len(statements)
                for _ in range(size):
                    statements.clear()
                    await service.create_version(
                        connection, name, source="prompt-template", run_id=None, model_id=None, tags=[prompt, *tags],
                        run_link="", description="",
                    )  # fmt: skip
            counts += [made, len(statements)]
            statements.clear()
            wanted = f"tags.`{prompt.key}` = 'true' AND name LIKE '{size}-%'"
            found, _ = await search.search_models(connection, SearchModels(filter=wanted))
            rows = await queries.load_models(connection, found)
            versions, _ = await search.search_versions(connection, SearchVersions(filter=wanted))
            loaded: Sequence[Any] = await queries.load_versions(connection, versions)
            counts.append(len(statements))
            assert (len(rows), len(loaded)) == (size, size * size)
            statements.clear()
            await service.move_version(connection, names[0], "1", "Staging", archive=True)
            await service.rename(connection, names[0], f"renamed-{size}")
            await service.delete_model(connection, f"renamed-{size}")
            counts.append(len(statements))
        return counts

    assert await count(1) == await count(8)


async def test_pages_stay_put_while_models_come_and_go(client: httpx.AsyncClient) -> None:
    for number in range(6):
        await call(client, "POST", "registered-models/create", name=f"page-{number}")
    query = {"max_results": "2", "filter": "name LIKE 'page-%'"}
    first = (await client.get(f"{API}/registered-models/search", params=query)).json()
    await call(client, "DELETE", "registered-models/delete", name="page-0")
    await call(client, "POST", "registered-models/create", name="page-00")
    query["page_token"] = first["next_page_token"]
    second = (await client.get(f"{API}/registered-models/search", params=query)).json()
    assert [model["name"] for model in second["registered_models"]] == ["page-2", "page-3"]
