"""logged-models/search: the same logged models in the same order as MLflow's server finds, same refusals."""

import json
from typing import Any

import mlflow
import pytest

from tests.conformance import logged_model_cases as cases
from tests.conformance.compare import Both, Deviation

BAD = (400, "INVALID_PARAMETER_VALUE")
CRASH = (500, "INTERNAL_ERROR")
OK = (200, None)
SEARCHES = cases.searches(90)
TRAIN = {"dataset_name": "train", "dataset_digest": "d1"}

_bound: dict[str, dict[str, str]] = {}  # by server


@pytest.fixture
def searched(both: Both) -> Both:
    """Both servers with the same logged models, once per session: each test only reads."""
    if not _bound:
        both.new_experiment()
        for run in ("run0", "run1"):
            both.new_run(run)
        for side in both.sides:  # ids decide among points of one time and step, and MLflow's are random
            side.bound["run0"], side.bound["run1"] = sorted((side.bound["run0"], side.bound["run1"]))
        for number in range(cases.MODELS):
            request = {"experiment_id": "{experiment}", **cases.fields(number)}
            both.call("POST", "logged-models", json=request)
            both.bind(f"model{number}", "model.info.model_id")
            both.tick()
        for model, run, point in cases.points():
            both.call(
                "POST", "runs/log-metric", json={"run_id": f"{{run{run}}}", "model_id": f"{{model{model}}}", **point}
            )
        _bound.update({side.name: dict(side.bound) for side in both.sides})
    for side in both.sides:
        side.bound |= _bound[side.name]
    return both


def search(both: Both, **request: Any) -> list[list[str]]:
    """The names each side found, in its order."""
    rest = {"deviation": request.pop("deviation")} if "deviation" in request else {"body": False}
    both.call("POST", "logged-models/search", json={"experiment_ids": ["{experiment}"], **request}, **rest)
    return [_names(side.last.body if side.last else None) for side in both.sides]


def _names(body: Any) -> list[str]:
    return [model["info"]["name"] for model in body.get("models", [])]


def _id(case: dict[str, Any]) -> str:
    return json.dumps(case).replace('"', "").replace("field_name: ", "")[:120]


@pytest.mark.parametrize("case", SEARCHES, ids=map(_id, SEARCHES))
def test_a_search_finds_what_mlflow_finds_in_its_order(searched: Both, case: dict[str, Any]) -> None:
    theirs, ours = search(searched, **case)
    assert ours == theirs


def test_the_searches_tell_models_apart(searched: Both) -> None:
    """The data has to tell searches apart, or the comparisons above would prove little."""
    found = [search(searched, **case)[1] for case in SEARCHES[:40]]
    assert len({tuple(names) for names in found}) > 20
    assert len([names for names in found if 0 < len(names) < cases.MODELS]) > 15


def test_what_is_found_is_shown_alike(searched: Both) -> None:
    request = {"experiment_ids": ["{experiment}"], "filter": "metrics.loss > -10", "order_by": [{"field_name": "name"}]}
    for side in searched.sides:
        answer = side.client.post("/api/2.0/mlflow/logged-models/search", json=side.fill(request)).json()
        for model in answer["models"]:
            metrics = model["data"].get("metrics", [])
            model["data"]["metrics"] = sorted(metrics, key=lambda m: (m["key"], m["timestamp"], m["step"], m["value"]))
        side.bound["shown"] = json.dumps([model["data"]["metrics"] for model in answer["models"]])
    theirs, ours = (json.loads(side.bound["shown"]) for side in searched.sides)
    keys = ("key", "value", "timestamp", "step", "dataset_name", "dataset_digest")
    kept = [[[{k: m.get(k) for k in keys} for m in model] for model in side] for side in (theirs, ours)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize(
    "field", ["creation_timestamp", "creation_time", "creation_timestamp_ms", "last_updated_timestamp", ""]
)
def test_models_come_by_their_times(searched: Both, field: str, ascending: bool) -> None:
    order = [{"field_name": field, "ascending": ascending}] if field else []
    theirs, ours = search(searched, order_by=order)
    assert ours == theirs
    assert len(ours) == cases.MODELS


def test_models_come_by_their_ids(searched: Both) -> None:
    for side, names in zip(searched.sides, search(searched, order_by=[{"field_name": "model_id"}]), strict=True):
        ids = {cases.name(number): side.bound[f"model{number}"] for number in range(cases.MODELS)}
        assert [ids[name] for name in names] == sorted(ids.values())


@pytest.mark.parametrize("size", [1, 3, 5, cases.MODELS])
@pytest.mark.parametrize("order", [[], ["metrics.loss", "name"], ["source_run_id", "status_message", "name"]])
@pytest.mark.parametrize("ascending", [True, False])
def test_pages_follow_each_other(searched: Both, size: int, order: list[str], ascending: bool) -> None:
    order_by = [{"field_name": field, "ascending": ascending} for field in order]
    seen: list[str] = []
    token: dict[str, str] = {}
    for _ in range(cases.MODELS):
        theirs, ours = search(searched, max_results=size, order_by=order_by, **token)
        assert ours == theirs
        seen += ours
        more = {side.name: (side.last.body if side.last else {}).get("next_page_token") for side in searched.sides}
        assert bool(more["mlflow"]) == bool(more["runmirror"])
        if not more["runmirror"]:
            break
        for side in searched.sides:
            side.bound["token"] = str(more[side.name])
        token = {"page_token": "{token}"}
    assert len(seen) == len(set(seen)) == cases.MODELS


def test_a_page_token_belongs_to_its_search(searched: Both) -> None:
    search(searched, max_results=1)
    searched.bind("token", "next_page_token")
    for other in ({"filter": "name = 'x'"}, {"order_by": [{"field_name": "metrics.loss"}]}):
        search(searched, page_token="{token}", **other)
    lost = Deviation(OK, BAD, why="MLflow forgets the datasets in its token: an offset into another search")
    search(searched, page_token="{token}", datasets=[TRAIN], deviation=lost)


@pytest.mark.parametrize(
    "bad",
    [
        {"filter": "metrics.loss LIKE 'x'"},
        {"filter": "metrics.loss IN (1)"},
        {"filter": "metric.loss > 1"},
        {"filter": "metrics.loss > 1 OR metrics.acc > 1"},
        {"datasets": "x"},
        {"datasets": [{"dataset_digest": "x"}]},
        {"datasets": [{"dataset_name": ""}]},
        {"datasets": [TRAIN, {}]},
        {"order_by": [{"field_name": "workspace"}]},
        {"order_by": [{"field_name": "last_updated_time"}]},
        {"order_by": [{"field_name": "attributes.name"}]},
        {"order_by": [{"field_name": "params.lr"}]},
        {"order_by": [{"ascending": True}]},
        {"order_by": [{"field_name": ""}]},
    ],
)
def test_a_bad_search_is_refused_alike(searched: Both, bad: dict[str, Any]) -> None:
    search(searched, **bad)
    assert searched.ours.last is not None
    assert searched.ours.last.status == 400


@pytest.mark.parametrize(
    ("request_body", "theirs", "ours", "why"),
    [
        ({"filter": "metrics.loss > 'x'"}, CRASH, BAD, "a mistake of the caller"),
        ({"filter": "metrics.loss > '1'"}, CRASH, BAD, "a mistake of the caller"),
        ({"filter": "metrics.loss = inf"}, OK, BAD, "no number, as in a search of runs"),
        ({"filter": "workspace = 'x'"}, CRASH, BAD, "a mistake of the caller"),
        ({"order_by": [{"field_name": "params"}]}, CRASH, BAD, "a mistake of the caller"),
        ({"order_by": [{"field_name": "to_mlflow_entity"}]}, CRASH, BAD, "a mistake of the caller"),
        ({"max_results": -1}, OK, BAD, "an empty page with a token never ends"),
        ({"max_results": 100_000}, OK, BAD, "as in every other search"),
        ({"datasets": [TRAIN] * 101}, OK, BAD, "a bound on what one statement has to look at"),
        ({"order_by": [{"field_name": "metrics.loss"}] * 17}, OK, BAD, "a bound on what one statement has to look at"),
    ],
    ids=str,
)
def test_a_search_that_we_see_otherwise(
    searched: Both, request_body: dict[str, Any], theirs: Any, ours: Any, why: str
) -> None:
    search(searched, **request_body, deviation=Deviation(theirs, ours, why))


def test_a_dataset_without_a_digest_is_any_dataset_of_the_name(searched: Both) -> None:
    """MLflow's server compares the digest that was left out with null, and so finds nothing."""
    theirs, by_name = search(searched, datasets=[{"dataset_name": "train"}])
    either = [TRAIN, {"dataset_name": "train", "dataset_digest": "d2"}]
    assert theirs == []
    assert by_name == search(searched, datasets=either)[1] != []


def test_clients_find_the_same_logged_models(searched: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")

    def found(url: str) -> Any:
        side = next(side for side in searched.sides if side.url == url)
        mlflow.set_tracking_uri(url)
        experiment = [side.bound["experiment"]]
        best = mlflow.search_logged_models(
            experiment_ids=experiment,
            filter_string="metrics.loss > -10 AND params.lr != '9'",
            datasets=[TRAIN],
            order_by=[{"field_name": "metrics.loss", "ascending": False, **TRAIN}, {"field_name": "name"}],
            output_format="list",
        )
        every = mlflow.search_logged_models(experiment_ids=experiment, order_by=[{"field_name": "name"}], max_results=5)
        return [[model.name, len(model.metrics or ())] for model in best], list(every["name"])

    try:
        best, every = searched.each(found)
    finally:
        mlflow.set_tracking_uri(None)
    assert best
    assert len(every) == 5
