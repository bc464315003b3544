"""/graphql: the documents of MLflow's pages, to MLflow's server and to ours; and what one document may ask for."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from graphql import lexicographic_sort_schema, print_schema

from runmirror.graphql.execution import SCHEMA
from tests.conformance.compare import Both, Deviation
from tests.server import clean_environment

BAD = (400, "INVALID_PARAMETER_VALUE")
# Strings of MLflow's scripts that hold a document: `query GetRun($data: …) { … }`.
DOCUMENT = re.compile(r"`\s*((?:query|mutation) \w+\([^`]*)`")


def documents() -> dict[str, str]:
    """Every document in the pages of the installed `mlflow`, by the name of its operation."""
    package = find_spec("mlflow")
    assert package is not None
    assert package.origin is not None
    scripts = (Path(package.origin).parent / "server" / "js" / "build" / "static" / "js").glob("*.js")
    found = [text for script in scripts for text in DOCUMENT.findall(script.read_text(encoding="utf-8"))]
    return {text.split("(")[0].split()[1]: text for text in found}


@pytest.fixture
def filled(both: Both) -> Both:
    """An {experiment} with a {run} that has something of everything, and a {bare} one."""
    both.new_experiment()
    both.call(
        "POST", "experiments/set-experiment-tag", json={"experiment_id": "{experiment}", "key": "k", "value": "v"}
    )
    both.new_run(run_name="full", user_id="me")
    both.new_run("bare", run_name="bare")
    batch = {
        "run_id": "{run}",
        "metrics": [{"key": "loss", "value": value, "timestamp": 5 + step, "step": step} for step, value in
                    enumerate([0.5, 0.25, 0.125])],
        "params": [{"key": "p", "value": "1"}],
        "tags": [{"key": "t", "value": "x"}],
    }  # fmt: skip
    both.call("POST", "runs/log-batch", json=batch)
    dataset = {"name": "d", "digest": "x", "source_type": "local", "source": "s"}
    given = [{"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": "train"}]}]
    both.call("POST", "runs/log-inputs", json={"run_id": "{run}", "datasets": given})
    both.call("POST", "runs/outputs", json={"run_id": "{run}", "models": [{"model_id": "m-" + "0" * 32, "step": 2}]})
    both.call("POST", "runs/update", json={"run_id": "{run}", "status": "FINISHED", "end_time": 2000})
    name = both.unique("model")
    both.call("POST", "registered-models/create", json={"name": name})
    version = {"name": name, "source": "runs:/{run}/model", "run_id": "{run}", "description": "one"}
    both.call("POST", "model-versions/create", json=version)
    return both


def ask(both: Both, query: str, **variables: Any) -> Any:
    answer = both.call("POST", "/graphql", json={"query": query, "variables": variables})
    assert answer.body["errors"] is None, answer.body
    return answer.body["data"]


def test_the_pages_still_send_the_documents_that_are_tested_here() -> None:
    assert set(documents()) == {"GetRun", "SearchRuns", "MlflowGetExperimentQuery", "GetMetricHistoryBulkInterval"}


def test_the_page_of_a_run(filled: Both) -> None:
    query = documents()["GetRun"]
    run = ask(filled, query, data={"runId": "{run}"})["mlflowGetRun"]["run"]
    assert run["experiment"]["tags"] == [{"key": "k", "value": "v"}]
    assert len(run["modelVersions"]) == len(run["inputs"]["datasetInputs"]) == len(run["outputs"]["modelOutputs"]) == 1
    ask(filled, query, data={"runId": "{bare}"})
    ask(filled, query, data={"runUuid": "{bare}"})


def test_a_search_of_runs(filled: Both) -> None:
    data: dict[str, Any] = {"experimentIds": ["{experiment}"], "filter": "params.p = '1'"}
    found = ask(filled, documents()["SearchRuns"], data=data)
    assert len(found["mlflowSearchRuns"]["runs"]) == 1
    query = """query Q($data: MlflowSearchRunsInput) {
        mlflowSearchRuns(input: $data) { runs { info { runName status endTime } } } }"""
    data = {"experimentIds": ["{experiment}"], "orderBy": ["attributes.run_name"], "maxResults": 5}
    found = ask(filled, query, data=data)["mlflowSearchRuns"]["runs"]
    assert [run["info"]["runName"] for run in found] == ["bare", "full"]
    ask(filled, query.replace("query Q", "mutation Q"), data=data)


def test_deleted_runs_can_be_searched_too(filled: Both) -> None:
    """MLflow declares the argument and fails over every value of it."""
    filled.call("POST", "runs/delete", json={"run_id": "{bare}"})
    query = """query Q($data: MlflowSearchRunsInput) { mlflowSearchRuns(input: $data) { runs { info { runName } } } }"""
    data = {"experimentIds": ["{experiment}"], "runViewType": "DELETED_ONLY"}
    answer = filled.call("POST", "/graphql", json={"query": query, "variables": {"data": data}}, body=False)
    assert answer.body["data"]["mlflowSearchRuns"]["runs"] == [{"info": {"runName": "bare"}}]


def test_the_page_of_an_experiment(filled: Both) -> None:
    ask(filled, documents()["MlflowGetExperimentQuery"], input={"experimentId": "{experiment}"})


def test_sampled_metrics(filled: Both) -> None:
    query = documents()["GetMetricHistoryBulkInterval"]
    ask(filled, query, data={"runIds": ["{run}", "{bare}"], "metricKey": "loss"})


def test_a_range_of_steps_counts_here_too(filled: Both) -> None:
    """MLflow looks for the range in the address of the request, where GraphQL has none, and so answers all steps."""
    query = documents()["GetMetricHistoryBulkInterval"]
    data = {"runIds": ["{run}"], "metricKey": "loss", "startStep": 1, "endStep": 1}
    answer = filled.call("POST", "/graphql", json={"query": query, "variables": {"data": data}}, body=False)
    assert [point["step"] for point in answer.body["data"]["mlflowGetMetricHistoryBulkInterval"]["metrics"]] == ["1"]


def test_everything_that_the_types_have_is_answered_alike(filled: Both) -> None:
    """Also what no page asks for: fields that are not set read as protobuf's defaults."""
    filled.call(
        "POST", "/ajax-api/2.0/mlflow/upload-artifact", params={"run_uuid": "{run}", "path": "a/b.txt"}, content=b"x"
    )
    ask(filled, """query Q($run: MlflowGetRunInput, $list: MlflowListArtifactsInput) {
        mlflowGetRun(input: $run) {
            run { info { runId runUuid runName } data { metrics { key value step timestamp runId modelId datasetName } }
                  modelVersions { name version runId currentStage description runLink status statusMessage userId
                                  aliases tags { key value } modelId deploymentJobState { jobId runId } } } }
        mlflowListArtifacts(input: $list) { rootUri nextPageToken files { path isDir fileSize } }
    }""", run={"runId": "{run}"}, list={"runId": "{run}", "path": "a"})  # fmt: skip
    ask(filled, """mutation M($data: MlflowSearchDatasetsInput) {
        mlflowSearchDatasets(input: $data) { dataset_summaries: datasetSummaries { name digest context } }
    }""", data={"experimentIds": ["{experiment}"]})  # fmt: skip
    ask(filled, """query V($data: MlflowSearchModelVersionsInput) {
        mlflowSearchModelVersions(input: $data) { modelVersions { name version source description } nextPageToken }
    }""", data={"filter": "run_id = '{run}'", "maxResults": "10"})  # fmt: skip


def test_nan_is_null(filled: Both) -> None:
    filled.call("POST", "runs/log-metric", json={"run_id": "{bare}", "key": "m", "value": "NaN", "timestamp": 1})
    ask(filled, documents()["GetRun"], data={"runId": "{bare}"})


@pytest.mark.parametrize(
    "query",
    [
        '{ mlflowGetRun(input: {runId: "00000000000000000000000000000000"}) { run { info { runId } } } }',
        '{ mlflowGetExperiment(input: {experimentId: "987654321"}) { experiment { name } } }',
        '{ mlflowSearchRuns(input: {experimentIds: ["0"], filter: "nonsense"}) { runs { info { runId } } } }',
    ],
)
def test_an_error_of_the_endpoint_is_a_message_and_no_data(both: Both, query: str) -> None:
    answer = both.call("POST", "/graphql", json={"query": query}, ignore=("errors",))
    assert len(answer.body["errors"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        "{ nonsense }",
        "{ mlflowGetRun { run { nonsense } } }",
        "query A { __typename } query B { __typename }",
        "{" + " ".join(f"a{i}: mlflowGetRun {{ run {{ info {{ runId }} }} }}" for i in range(11)) + "}",
        "{ __schema { types { " + "fields { type { " * 6 + "name" + " } }" * 6 + " } } }",
        "query { ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
    ],
)  # fmt: skip
def test_a_document_that_is_wrong_or_asks_for_too_much_is_refused_alike(both: Both, query: str) -> None:
    answer = both.call("POST", "/graphql", json={"query": query}, ignore=("errors",))
    assert answer.body["data"] is None
    assert answer.body["errors"]


def test_wide_documents_are_refused(both: Both) -> None:
    fields = " ".join(f"{name} " for name in ["runId"] * 400)
    roots = " ".join(f'mlflowGetRun(input: {{runId: "x"}}) {{ run {{ info {{ {fields} }} }} }}' for _ in range(3))
    answer = both.call("POST", "/graphql", json={"query": f"{{ {roots} }}"}, ignore=("errors",))
    assert "1000" in answer.body["errors"][0]


def test_fragments_that_multiply_end_early(both: Both) -> None:
    """Each level spreads the next one twice: 2^30 fields, if anybody counted them all."""
    run = "on MlflowRunExtension"
    levels = " ".join(
        f"fragment F{i} {run} {{ x{i}: info {{ runId }} ...F{i + 1} ... {run} {{ ...F{i + 1} }} }}" for i in range(30)
    )
    last = f"fragment F30 {run} {{ info {{ runId }} }}"
    query = f'{{ mlflowGetRun(input: {{runId: "x"}}) {{ run {{ ...F0 }} }} }} {levels} {last}'
    answer = both.call("POST", "/graphql", json={"query": query}, ignore=("errors",))
    assert "aliases" in answer.body["errors"][0]


@pytest.mark.parametrize(
    ("body", "theirs"),
    [
        ({}, (500, None)),
        ({"query": "{"}, (500, None)),
        ({"query": 7}, (500, None)),
        ({"query": "{ __typename }", "variables": "x"}, (500, None)),
        ([{"query": "{ __typename }"}], (500, None)),
    ],
)
def test_what_is_no_request_is_refused(both: Both, body: Any, theirs: tuple[int, str | None]) -> None:
    """A list of documents (batching) is none either."""
    mistake = Deviation(theirs, BAD, why="a client's mistake is a 400")
    both.call("POST", "/graphql", json=body, deviation=mistake)


def test_a_very_long_document_is_not_even_parsed(both: Both) -> None:
    refused = Deviation((200, None), BAD, why="parsing alone would hold up everybody else")
    both.call("POST", "/graphql", json={"query": "{ __typename" + " #" * 60_000 + "\n}"}, deviation=refused)
    both.call("POST", "/graphql", json={"query": "{ " + "__typename " * 5000 + "}"}, deviation=refused)


def test_our_schema_is_mlflows_but_for_its_echo() -> None:
    """Types, fields, arguments and their types; the installed package is asked in a process of its own."""
    program = (
        "from graphql import lexicographic_sort_schema, print_schema\n"
        "from mlflow.server.graphql.graphql_schema_extensions import schema\n"
        "print(print_schema(lexicographic_sort_schema(schema.graphql_schema)))"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    asked = subprocess.run(command, env=clean_environment({}), check=True, capture_output=True, text=True)
    theirs = re.sub(r'\n *"""(?:.|\n)*?"""', "", "\n" + asked.stdout)
    theirs = re.sub(r"\ntype Test(?:Mutation)? \{[^}]*\}\n", "", theirs)
    theirs = re.sub(r"\n  test(?:Mutation)?\(inputString: String\): \w+", "", theirs).replace(" = null", "")
    ours = print_schema(lexicographic_sort_schema(SCHEMA))
    assert blocks(ours) == blocks(theirs)


def blocks(printed: str) -> list[str]:
    """The definitions of a schema, without empty lines."""
    definitions = re.split(r"\n(?=\w)", printed)
    return sorted("\n".join(line for line in text.split("\n") if line) for text in definitions if text.strip())
