"""Scorers over HTTP, on a real Postgres: what the comparison with MLflow's server cannot see."""

import asyncio

import httpx
import pytest

API = "/api/3.0/mlflow/scorers"
JUDGE = {"experiment_id": "0", "name": "judge"}


async def test_versions_registered_at_once_are_numbered_one_after_the_other(client: httpx.AsyncClient) -> None:
    body = JUDGE | {"serialized_scorer": '{"name": "judge"}'}
    answers = await asyncio.gather(*(client.post(f"{API}/register", json=body) for _ in range(9)))
    assert sorted(answer.json()["version"] for answer in answers) == list(range(1, 10))
    assert len({answer.json()["scorer_id"] for answer in answers}) == 1


@pytest.mark.parametrize("text", ['{ "b": 1,\n "a": 1e5, "b": 2 }', '{"deep": ' + "[" * 900 + "]" * 900 + "}"])
async def test_the_text_of_a_scorer_comes_back_as_it_was(client: httpx.AsyncClient, text: str) -> None:
    assert (await client.post(f"{API}/register", json=JUDGE | {"serialized_scorer": text})).status_code == 200
    answer = await client.get(f"{API}/get", params=JUDGE)
    assert answer.json()["scorer"]["serialized_scorer"] == text


@pytest.mark.parametrize("depth", [900, 100_000])
async def test_source_code_is_refused_however_deep_it_is_hidden(client: httpx.AsyncClient, depth: int) -> None:
    text = '{"a": ' * depth + '{"call_source": "import os"}' + "}" * depth
    answer = await client.post(f"{API}/register", json=JUDGE | {"serialized_scorer": text})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert (await client.get(f"{API}/get", params=JUDGE)).status_code == 404
