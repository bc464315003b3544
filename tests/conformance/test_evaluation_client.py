"""`mlflow.genai` datasets and scorers through the plain client, in a process of its own per server."""

import json
import subprocess
import sys
import textwrap
from typing import Any

from tests.conformance.compare import Both
from tests.server import clean_environment

PROGRAM = """
import json, sys
import mlflow
from mlflow import MlflowClient
from mlflow.entities import DatasetRecordSource
from mlflow.exceptions import MlflowException
from mlflow.genai import datasets
from mlflow.genai.judges import make_judge
from mlflow.genai.scorers import Guidelines, delete_scorer, get_scorer, list_scorers
from mlflow.genai.scorers.registry import list_scorer_versions

mlflow.set_tracking_uri(sys.argv[1])
name = sys.argv[2]
experiment = mlflow.set_experiment(name).experiment_id
other = MlflowClient().create_experiment(name + "-other")
seen = {}


def refused(act, *args, **kwargs):
    try:
        act(*args, **kwargs)
    except MlflowException as error:
        return error.error_code
    return None


def shown(dataset):
    return {
        "name": dataset.name, "tags": {k: v for k, v in dataset.tags.items() if k == "team"},
        "schema": json.loads(dataset.schema) if dataset.schema else None,
        "profile": json.loads(dataset.profile) if dataset.profile else None,
        "experiments": len(dataset.experiment_ids),
    }


made = datasets.create_dataset(name, experiment_id=experiment, tags={"team": "red"})
seen["made"] = shown(made)
made.merge_records([
    {"inputs": {"question": "one"}, "expectations": {"answer": 1}, "tags": {"kind": "easy"}},
    {"inputs": {"question": "two"}, "expectations": {"answer": 2}},
    {"inputs": {"question": "two"}, "expectations": {"why": "it is"}, "outputs": "b"},
])

with mlflow.start_span("traced") as span:
    span.set_inputs({"question": "three"})
    span.set_outputs("c")
mlflow.flush_trace_async_logging()
made.merge_records([mlflow.get_trace(span.trace_id)])
found = datasets.get_dataset(name=name)
seen["read"] = shown(found)
columns = ["inputs", "outputs", "expectations", "source_type", "tags"]
frame = found.to_df()
rows = json.loads(frame.sort_values("inputs", key=lambda c: c.map(str)).to_json(orient="records"))
seen["frame"] = [
    {key: row.get(key) for key in ("inputs", "outputs", "expectations", "source_type")} | {"tags": sorted(row["tags"])}
    for row in rows
]
seen["trace"] = [row["source"]["source_data"].get("trace_id") == span.trace_id for row in rows if row["source"]]
seen["deleted"] = found.delete_records([frame["dataset_record_id"][0]])
found = datasets.get_dataset(dataset_id=made.dataset_id)
seen["left"] = [len(found.to_df()), shown(found)]
datasets.set_dataset_tags(made.dataset_id, {"team": "blue", "size": 3})
seen["tags"] = datasets.get_dataset(dataset_id=made.dataset_id).tags["size"]
datasets.delete_dataset_tag(made.dataset_id, "size")
datasets.add_dataset_to_experiments(made.dataset_id, [other])
searched = datasets.search_datasets(experiment_ids=other, filter_string="tags.team = 'blue'", order_by=["name"])
seen["searched"] = [shown(dataset) for dataset in searched]
datasets.remove_dataset_from_experiments(made.dataset_id, [other])
seen["removed"] = len(datasets.search_datasets(experiment_ids=[other]))
for number in range(3):
    MlflowClient().create_dataset(f"{name}-{number}", experiment_id=[other])
page = MlflowClient().search_datasets(experiment_ids=[other], max_results=2, order_by=["name"])
rest = MlflowClient().search_datasets(experiment_ids=[other], max_results=2, order_by=["name"], page_token=page.token)
seen["pages"] = [[d.name for d in page], [d.name for d in rest], rest.token]
with mlflow.start_run() as run:
    mlflow.log_input(datasets.get_dataset(name=name))
logged = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
seen["input"] = [[entry.dataset.name, entry.dataset.source_type] for entry in logged]
datasets.delete_dataset(dataset_id=made.dataset_id)
seen["gone"] = refused(datasets.get_dataset, dataset_id=made.dataset_id)

polite = "Is {{ outputs }} polite?"
judge = make_judge(name="tone", instructions=polite, model="openai:/gpt-4o", feedback_value_type=bool)
seen["registered"] = judge.register(experiment_id=experiment).name
judge.register(experiment_id=experiment)
Guidelines(name="rules", guidelines=["be brief"]).register(experiment_id=experiment)
seen["scorers"] = sorted(scorer.name for scorer in list_scorers(experiment_id=experiment))
seen["versions"] = [version for _, version in list_scorer_versions(name="tone", experiment_id=experiment)]
got = get_scorer(name="tone", experiment_id=experiment, version=1)
seen["got"] = [got.name, got.instructions, got.model]
seen["rules"] = get_scorer(name="rules", experiment_id=experiment).guidelines
delete_scorer(name="tone", experiment_id=experiment, version=1)
seen["one left"] = [version for _, version in list_scorer_versions(name="tone", experiment_id=experiment)]
delete_scorer(name="tone", experiment_id=experiment, version="all")
seen["none"] = refused(get_scorer, name="tone", experiment_id=experiment)
print(json.dumps(seen))
"""


def run(url: str, name: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(PROGRAM), url, name]
    done = subprocess.run(command, env=clean_environment({}), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def test_clients_see_the_same_datasets_and_scorers(both: Both) -> None:
    name = both.unique("client")
    seen = both.each(lambda url: run(url, name))
    assert seen["left"][0] == 2
    assert seen["trace"] == [False, True, False]
    assert seen["scorers"] == ["rules", "tone"]
    assert seen["gone"] == seen["none"] == "RESOURCE_DOES_NOT_EXIST"
