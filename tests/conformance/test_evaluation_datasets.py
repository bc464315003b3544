"""Evaluation datasets: the same calls to MLflow's server and to ours."""

import hashlib
import json
from typing import Any

import pytest

from tests.conformance.compare import Answer, Both, Deviation

BAD = (400, "INVALID_PARAMETER_VALUE")
MISSING = (404, "RESOURCE_DOES_NOT_EXIST")
CRASH = (500, "INTERNAL_ERROR")
PAGE_OF_AN_ERROR = (500, None)
OK = (200, None)
UNKNOWN = "d-" + "0" * 32
CALLERS_MISTAKE = "a mistake of the caller"


def call(both: Both, method: str, path: str, **rest: Any) -> Answer:
    """Digests hold the time: a test of their own compares them."""
    return both.call(method, f"/api/3.0/mlflow/datasets/{path}", ignore=("digest", "next_page_token"), **rest)


@pytest.fixture
def dataset(both: Both) -> Both:
    """Both servers with an {experiment} and a {dataset} in it."""
    both.new_experiment()
    tags = json.dumps({"team": "red", "mlflow.user": "ada"})
    call(both, "POST", "create", json={"name": "questions", "experiment_ids": ["{experiment}"], "tags": tags})
    both.bind("dataset", "dataset.dataset_id")
    return both


def upsert(both: Both, records: Any, **rest: Any) -> Answer:
    return call(both, "POST", "{dataset}/records", json={"records": json.dumps(records)}, **rest)


def read(both: Both) -> list[dict[str, Any]]:
    """Both datasets and their records compared; ours. Records written at one time have no order in MLflow."""
    call(both, "GET", "{dataset}")
    found: dict[str, list[dict[str, Any]]] = {}

    def records(url: str) -> list[dict[str, Any]]:
        side = next(side for side in both.sides if side.url == url)
        answer = side.client.get(f"/api/3.0/mlflow/datasets/{side.bound['dataset']}/records")
        assert answer.status_code == 200
        found[side.name] = json.loads(answer.json()["records"])
        return sorted(found[side.name], key=lambda record: json.dumps(record["inputs"], sort_keys=True))

    both.each(records)
    return found["runmirror"]


def test_a_dataset_is_created_read_and_deleted(dataset: Both) -> None:
    call(dataset, "GET", "{dataset}")
    dataset.call("GET", "/ajax-api/3.0/mlflow/datasets/{dataset}", ignore=("digest",))
    call(dataset, "GET", "{dataset}/experiment-ids")
    call(dataset, "GET", "{dataset}/records")
    call(dataset, "DELETE", "{dataset}")
    call(dataset, "GET", "{dataset}", message=True)
    call(dataset, "DELETE", "{dataset}")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": 7},
        {"name": "q", "experiment_ids": "0"},
        {"name": "q", "tags": {"a": "b"}},
        {"name": "q", "experiment_ids": []},
        {"name": "q", "tags": "{}"},
        {"name": "q", "tags": '{"n": 5, "nothing": null}'},
        {"name": "é ☃ / '\""},
    ],
)
def test_a_creation_is_accepted_or_refused_alike(both: Both, body: dict[str, Any]) -> None:
    call(both, "POST", "create", json=body, message=not body)


@pytest.mark.parametrize(
    ("body", "theirs", "ours", "why"),
    [
        ({"name": "q", "experiment_ids": ["999999"]}, OK, MISSING, "a typo would hide the dataset"),
        ({"name": "q", "experiment_ids": ["abc"]}, OK, MISSING, "a typo would hide the dataset"),
        ({"name": "q", "experiment_ids": ["0", "0"]}, (400, "BAD_REQUEST"), OK, "said twice is said once, as in add"),
        ({"name": "q", "tags": "nope"}, PAGE_OF_AN_ERROR, BAD, CALLERS_MISTAKE),
        ({"name": "q", "tags": "[1]"}, CRASH, BAD, CALLERS_MISTAKE),
        ({"name": "q", "tags": "[]"}, OK, BAD, "tags are an object"),
        ({"name": "q", "tags": "[" * 100_000}, PAGE_OF_AN_ERROR, BAD, CALLERS_MISTAKE),
        ({"name": "q" * 256}, OK, BAD, "the limit that MLflow declares"),
        ({"name": "q", "tags": json.dumps({"k" * 256: "v"})}, OK, BAD, "the limit that MLflow declares"),
        ({"name": "q", "tags": json.dumps({"k": "v" * 5001})}, OK, BAD, "the limit that MLflow declares"),
        ({"name": "q", "tags": '{"a": {"b": 1}}'}, (400, "BAD_REQUEST"), OK, "kept as text, as when tags are set"),
        ({"name": "q\0"}, OK, BAD, "no stored text has a NUL"),
    ],
)
def test_a_creation_that_we_see_otherwise(both: Both, body: Any, theirs: Any, ours: Any, why: str) -> None:
    call(both, "POST", "create", json=body, deviation=Deviation(theirs, ours, why))


def test_the_digest_is_of_the_name_and_the_time_of_the_last_change(dataset: Both) -> None:
    for _ in range(2):
        call(dataset, "GET", "{dataset}")
        for side in dataset.sides:
            assert side.last is not None
            shown = side.last.at("dataset")
            of = f"{shown['name']}:{shown['last_update_time']}".encode()
            assert shown["digest"] == hashlib.sha256(of).hexdigest()[:8]
        upsert(dataset, [{"inputs": {"q": 1}}])


def test_records_with_the_same_inputs_are_merged(dataset: Both) -> None:
    upsert(
        dataset,
        [
            {
                "inputs": {"q": 1, "deep": {"b": [1, None], "a": "é\0"}},
                "outputs": "x",
                "expectations": {"e": 1.5, "deep": {"one": 1}},
                "tags": {"t": "u", "mlflow.user": "ada"},
                "source": {"source_type": "trace", "source_data": {"trace_id": "tr-1", "span_id": "s"}},
            },
            {"inputs": {"deep": {"a": "é\0", "b": [1, None]}, "q": 1}, "expectations": {"f": [1], "deep": {"two": 2}}},
            {"inputs": {"q": 2}},
            {"inputs": {"q": 2.0}, "outputs": [{"answer": None}], "tags": None},
        ],
    )
    assert len(read(dataset)) == 3
    upsert(
        dataset,
        [
            {"inputs": {"q": 2}, "outputs": None, "tags": {"mlflow.user": "bob", "n": 1, "l": [1]}},
            {"inputs": {"q": 3}, "expectations": {}, "source": {"source_type": "HUMAN"}},
            {"inputs": {"q": 3}, "source": {"source_type": "CODE"}, "expectations": {"late": True}},
        ],
    )
    assert len(read(dataset)) == 4
    upsert(dataset, [{"inputs": {"q": 2.0}}])
    read(dataset)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{}],
        [{"inputs": {}}],
        [{"inputs": {"a": float("nan"), "b": 1e400}, "unknown": 1}],
        [{"inputs": {"a": 1}, "outputs": None}],
        [{"inputs": {"a": 1}, "outputs": [1, 2]}, {"inputs": {"a": "text"}, "outputs": "other"}],
        [{"inputs": {"a": 1}, "outputs": {"x": 1}}, {"inputs": {"a": 2}, "outputs": {"y": False, "x": "late"}}],
        [{"inputs": {"a": 1}, "expectations": None, "tags": None, "source": None}],
        [{"inputs": {"a": 1}, "source": {}}],
        [{"inputs": {"a": 1}, "source": {"source_type": "document", "source_data": {"source_id": "s", "n": 1}}}],
        [{"inputs": {"a": 1}, "source": {"source_type": "UNSPECIFIED", "source_data": None}}],
        [{"inputs": {"a": 1}, "source": {"source_type": "TRACE", "source_data": {"source_id": "s"}}}],
        [{"inputs": {"a": 1}, "source": {"source_type": "nonsense"}}],
        [{"inputs": {"null": None, "bool": True, "int": 2**70, "float": 1.0, "list": [], "object": {}}}],
        [{"inputs": {"a": 1}, "tags": {"mlflow.user": 3}}],
        [{"inputs": {"a": 1}, "tags": {"mlflow.user": "ada"}}, {"inputs": {"a": 2}}],
        [{"inputs": {"a": 1}, "outputs": ""}, {"inputs": {"a": 2}, "outputs": {}}],
    ],
)
def test_records_are_accepted_or_refused_alike(dataset: Both, records: Any) -> None:
    upsert(dataset, records)
    read(dataset)


@pytest.mark.parametrize(
    ("records", "theirs"),
    [
        ("nope", PAGE_OF_AN_ERROR),
        ("[1]", CRASH),
        ('[{"inputs": null}]', CRASH),
        ('[{"inputs": [1]}]', CRASH),
        ('[{"inputs": {"a": 1}}, {"inputs": "text"}]', CRASH),
        ('[{"inputs": {"a": 1}, "expectations": [1]}]', CRASH),
        ('[{"inputs": {"a": 1}, "expectations": ""}]', CRASH),
        ('[{"inputs": {"a": 1}, "tags": [1]}]', CRASH),
        ('[{"inputs": {"a": 1}, "source": "x"}]', CRASH),
        ('[{"inputs": {"a": 1}, "source": {"source_type": "HUMAN", "x": 1}}]', CRASH),
        ('[{"inputs": {"a": 1}, "source": {"source_type": "HUMAN", "source_data": "x"}}]', CRASH),
        (f'[{{"inputs": {{"a": {"[" * 5000}{"]" * 5000}}}}}]', PAGE_OF_AN_ERROR),
        (f'[{{"inputs": {{"a": {"1" * 5000}}}}}]', PAGE_OF_AN_ERROR),
    ],
)
def test_records_that_cannot_be_are_refused_and_nothing_is_written(dataset: Both, records: str, theirs: Any) -> None:
    refused = Deviation(theirs, BAD, CALLERS_MISTAKE)
    call(dataset, "POST", "{dataset}/records", json={"records": records}, deviation=refused)
    assert read(dataset) == []


def test_records_are_a_list(dataset: Both) -> None:
    no_list = Deviation(OK, BAD, why="MLflow takes the keys of an object for records, and {} for none")
    call(dataset, "POST", "{dataset}/records", json={"records": "{}"}, deviation=no_list)


def test_a_record_without_a_kind_of_source_is_refused(dataset: Both) -> None:
    upsert(
        dataset, [{"inputs": {"a": 1}, "source": {"source_data": {}}}], deviation=Deviation(CRASH, BAD, CALLERS_MISTAKE)
    )


def test_outputs_may_be_of_another_kind_later(dataset: Both) -> None:
    upsert(dataset, [{"inputs": {"a": 1}, "outputs": "text"}])
    mixed = Deviation(CRASH, OK, why="MLflow's schema cannot hold both; ours keeps what it saw first")
    upsert(dataset, [{"inputs": {"a": 2}, "outputs": {"field": 1}}], deviation=mixed)
    shown = call(dataset, "GET", "{dataset}", body=False)
    assert json.loads(shown.at("dataset.schema"))["outputs"] == "string"
    assert json.loads(shown.at("dataset.profile")) == {"num_records": 2}


def test_records_are_sent_as_a_text(dataset: Both) -> None:
    call(dataset, "POST", "{dataset}/records", json={}, message=True)
    call(dataset, "POST", "{dataset}/records", json={"records": [{"inputs": {}}]})


def test_records_of_a_dataset_that_is_not_there(both: Both) -> None:
    both.name("dataset", UNKNOWN)
    call(both, "GET", "{dataset}/records")
    call(both, "DELETE", "{dataset}/records", json={"dataset_record_ids": ["dr-1"]})
    upsert(both, [], deviation=Deviation(OK, MISSING, why="there is nothing to add them to"))
    broken = Deviation((400, "BAD_REQUEST"), MISSING, why="MLflow shows a constraint of its database")
    upsert(both, [{"inputs": {"a": 1}}], deviation=broken)


def test_pages_of_records_follow_each_other_in_the_order_of_their_insertion(dataset: Both) -> None:
    for first in (0, 10):
        upsert(dataset, [{"inputs": {"q": number}} for number in range(first, first + 10)])
    for size in (1, 7, 20):
        seen: dict[str, list[int]] = {side.name: [] for side in dataset.sides}
        for side in dataset.sides:
            token = ""
            while True:
                query = {"max_results": size, "page_token": token} if token else {"max_results": size}
                answer = side.client.get(f"/api/3.0/mlflow/datasets/{side.bound['dataset']}/records", params=query)
                page = json.loads(answer.json()["records"])
                assert 1 <= len(page) <= size
                seen[side.name] += [record["inputs"]["q"] for record in page]
                token = answer.json().get("next_page_token")
                if not token:
                    break
        assert sorted(seen["mlflow"]) == seen["runmirror"] == list(range(20))


@pytest.mark.parametrize(
    ("query", "theirs"),
    [
        ({"max_results": -1}, PAGE_OF_AN_ERROR),
        ({"max_results": "x"}, PAGE_OF_AN_ERROR),
        ({"max_results": 50_001}, OK),
        ({"page_token": "garbage"}, PAGE_OF_AN_ERROR),
        ({"page_token": "Og=="}, PAGE_OF_AN_ERROR),
        ({"page_token": "1"}, OK),
    ],
)
def test_a_page_of_records_that_cannot_be_is_refused(dataset: Both, query: Any, theirs: Any) -> None:
    upsert(dataset, [{"inputs": {"a": 1}}, {"inputs": {"a": 2}}])
    call(dataset, "GET", "{dataset}/records", params=query, deviation=Deviation(theirs, BAD, CALLERS_MISTAKE))
    call(dataset, "GET", "{dataset}/records", params={"max_results": 0}, body=False)


def test_records_are_deleted_by_id(dataset: Both) -> None:
    upsert(dataset, [{"inputs": {"q": number}} for number in range(3)])
    for side in dataset.sides:
        answer = side.client.get(f"/api/3.0/mlflow/datasets/{side.bound['dataset']}/records")
        for record in json.loads(answer.json()["records"]):
            side.bound[f"r{record['inputs']['q']}"] = record["dataset_record_id"]
    for ids in (["{r0}"], ["{r0}", "unknown"], [], ["{r1}", "{r1}", "{r2}"]):
        call(dataset, "DELETE", "{dataset}/records", json={"dataset_record_ids": ids})
        read(dataset)
    call(dataset, "DELETE", "{dataset}/records", json={})
    call(dataset, "DELETE", "{dataset}/records", json={"dataset_record_ids": "x"})
    upsert(dataset, [])
    read(dataset)
    upsert(dataset, [{"inputs": {"q": 9}}])
    read(dataset)


def test_tags_are_set_overwritten_and_deleted(dataset: Both) -> None:
    tags = {"team": "blue", "n": 1, "none": None, "yes": True, "list": [1], "mlflow.user": "bob", "empty": ""}
    call(dataset, "PATCH", "{dataset}/tags", json={"tags": json.dumps(tags)})
    call(dataset, "PATCH", "{dataset}/tags", json={"tags": '{"team": null}'})
    call(dataset, "PATCH", "{dataset}/tags", json={"tags": "{}"})
    call(dataset, "GET", "{dataset}")
    call(dataset, "DELETE", "{dataset}/tags/team")
    call(dataset, "DELETE", "{dataset}/tags/team")
    call(dataset, "DELETE", f"{UNKNOWN}/tags/team")
    call(dataset, "GET", "{dataset}")
    call(dataset, "PATCH", "{dataset}/tags", json={}, message=True)
    call(dataset, "PATCH", "{dataset}/tags", json={"tags": {"a": "b"}})
    call(dataset, "PATCH", f"{UNKNOWN}/tags", json={"tags": "{}"})


@pytest.mark.parametrize(("tags", "theirs"), [("nope", PAGE_OF_AN_ERROR), ("[]", CRASH), ("7", CRASH), ("null", CRASH)])
def test_tags_that_are_no_object_are_refused(dataset: Both, tags: str, theirs: Any) -> None:
    refused = Deviation(theirs, BAD, CALLERS_MISTAKE)
    call(dataset, "PATCH", "{dataset}/tags", json={"tags": tags}, deviation=refused)


def test_a_dataset_is_put_into_experiments_and_taken_out(dataset: Both) -> None:
    dataset.new_experiment("second")
    for action in ("add-experiments", "remove-experiments"):
        for ids in (["{second}"], ["{second}", "0", "{second}"], [], ["987654"], ["abc"], "0"):
            call(dataset, "POST", f"{{dataset}}/{action}", json={"experiment_ids": ids})
            call(dataset, "GET", "{dataset}/experiment-ids")
        call(dataset, "POST", f"{{dataset}}/{action}", json={})
        call(dataset, "POST", f"{UNKNOWN}/{action}", json={"experiment_ids": ["0"]})
    call(dataset, "POST", "search", json={"experiment_ids": ["{second}"]})
    call(dataset, "GET", f"{UNKNOWN}/experiment-ids")
