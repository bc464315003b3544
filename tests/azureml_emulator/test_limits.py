"""Azure's limits are enforced, whole requests are refused, and every limit is a setting."""

import pytest

from tests.azureml_emulator.process import EmulatorProcess
from tests.azureml_emulator.rest import Rest, pairs, points, stored_run

OVER = "A field of the entity is over the size limit. "


def _message(answer: object) -> str:
    status, body = answer.status_code, answer.json()  # type: ignore[attr-defined]
    assert (status, body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    return str(body["Error"]["Message"])


def test_a_run_takes_200_params(rest: Rest) -> None:
    run = rest.run()
    for start in (0, 100):
        assert rest.log_batch(run, params=pairs(f"p{start}-", 100)).status_code == 200
    again = rest.log_batch(run, params=pairs("p0-", 100))
    assert again.status_code == 200
    message = _message(rest.log_batch(run, params=pairs("more", 10)))
    assert message.startswith(OVER + "FieldName=Parameters, Limit=200, Size=210.")
    assert len(stored_run(rest.emulator, run)["params"]) == 200


def test_one_metric_takes_250_values_a_request(rest: Rest, emulator: EmulatorProcess) -> None:
    emulator.change_settings(limits={"metrics_per_batch": 1000})
    run = rest.run()
    assert rest.log_batch(run, metrics=points("a", 250) + points("b", 250)).status_code == 200
    message = _message(rest.log_batch(run, metrics=points("a", 251)))
    assert message.startswith(OVER + "FieldName=MetricV2Dto.Value/Count, Limit=250, Size=251.")
    assert len(stored_run(emulator, run)["metrics"]) == 500


def test_a_request_takes_200_points(rest: Rest) -> None:
    run = rest.run()
    assert rest.log_batch(run, metrics=points("a", 200)).status_code == 200
    assert "FieldName=Metrics, Limit=200, Size=201" in _message(rest.log_batch(run, metrics=points("a", 201)))


def test_a_run_takes_50_metric_names(rest: Rest, emulator: EmulatorProcess) -> None:
    run = rest.run()
    metrics = [{"key": f"m{number}", "value": 1, "timestamp": 1} for number in range(50)]
    assert rest.log_batch(run, metrics=metrics).status_code == 200
    assert rest.log_batch(run, metrics=metrics[:3]).status_code == 200
    one_more = {"run_id": run["run_id"], "key": "m50", "value": 1, "timestamp": 1}
    assert "FieldName=Metrics/Names, Limit=50, Size=51" in _message(rest.post("/runs/log-metric", one_more))
    emulator.change_settings(limits={"metric_names_per_run": 51})
    assert rest.post("/runs/log-metric", one_more).status_code == 200


def test_a_run_takes_50_tags_beside_the_services_own(rest: Rest) -> None:
    run = rest.run(tags=pairs("t", 50))
    assert rest.log_batch(run, tags=pairs("t", 50)).status_code == 200
    another = {"run_id": run["run_id"], "key": "more", "value": ""}
    assert "FieldName=Tags, Limit=50, Size=51" in _message(rest.post("/runs/set-tag", another))
    assert rest.post("/runs/delete-tag", {"run_id": run["run_id"], "key": "t0"}).status_code == 200
    assert rest.post("/runs/set-tag", another).status_code == 200


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"tags": [{"key": "k" * 101, "value": "v"}]}, "Tags/Key, Limit=100"),
        ({"tags": [{"key": "k", "value": "v" * 1001}]}, "Tags/Value/k, Limit=1000"),
        ({"metrics": [{"key": "m" * 256, "value": 1, "timestamp": 1}]}, "MetricV2Dto.Name, Limit=255"),
        ({"params": [{"key": "p" * 256, "value": "v"}]}, "Parameters/Key, Limit=255"),
        ({"params": [{"key": "p", "value": "v" * 501}]}, "Parameters/Value/p, Limit=500"),
        ({"params": pairs("p", 101)}, "Parameters/Count, Limit=100, Size=101"),
        ({"tags": pairs("t", 101)}, "Tags/Count, Limit=100, Size=101"),
    ],
)
def test_what_is_too_long_spoils_the_whole_batch(rest: Rest, members: dict[str, list[object]], field: str) -> None:
    run = rest.run()
    good = {"metrics": points("good", 1), "params": [{"key": "good", "value": "1"}]}
    assert f"FieldName={field}" in _message(rest.log_batch(run, **{**good, **members}))
    stored = stored_run(rest.emulator, run)
    assert (stored["metrics"], stored["params"]) == ([], {})


@pytest.mark.parametrize("name", ["with space", "dots.are.bad", "", "-first", "x" * 256, "/slash", "ümlaut"])
def test_experiment_names_are_those_that_azureml_core_can_open(rest: Rest, name: str) -> None:
    answer = rest.post("/experiments/create", {"name": name})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert rest.emulator.state()["experiments"] == []


def test_bodies_over_one_megabyte_are_refused(rest: Rest) -> None:
    run = rest.run()
    answer = rest.log_batch(run, tags=[{"key": "k", "value": "v" * 1_100_000}])
    assert (answer.status_code, answer.json()["Error"]["Code"]) == (413, "RequestBodyTooLarge")
    assert rest.get("/runs/get", run_id=run["run_id"]).status_code == 200


def test_settings_that_make_no_sense_change_nothing(emulator: EmulatorProcess) -> None:
    with emulator.control() as control:
        before = control.get("/settings").json()
        for wrong in ({"colour": 1}, {"token_lifetime": "long"}, {"sas_lifetime": 5, "limits": {"params": 1}}):
            assert control.post("/settings", json=wrong).status_code == 400
        assert control.get("/settings").json() == before
