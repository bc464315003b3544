"""Faults on request reach the client as the real thing would, on every host."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import pytest

from tests.azureml_emulator.process import EmulatorProcess
from tests.azureml_emulator.rest import Rest, points, stored_run

CREATE = {"path": "experiments/create$"}


def _names(emulator: EmulatorProcess) -> list[str]:
    return [experiment["name"] for experiment in emulator.state()["experiments"]]


def test_a_status_comes_with_headers_and_body_as_often_as_asked(rest: Rest, emulator: EmulatorProcess) -> None:
    match = {"host": "*.api.azureml.ms", "method": "POST", **CREATE}
    emulator.add_fault(
        "status", match, status=429, headers={"Retry-After": "1"}, body={"error": "slow"}, times=2, skip=1
    )
    answers = [rest.post("/experiments/create", {"name": f"e{number}"}) for number in range(4)]
    assert [answer.status_code for answer in answers] == [200, 429, 429, 200]
    assert answers[1].headers["retry-after"] == "1"
    assert answers[1].json() == {"error": "slow"}
    assert _names(emulator) == ["e0", "e3"]
    assert emulator.faults()[0]["hits"] == 2


def test_a_reset_before_changes_nothing(rest: Rest, emulator: EmulatorProcess) -> None:
    emulator.add_fault("reset_before", CREATE)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        rest.post("/experiments/create", {"name": "lost"})
    assert _names(emulator) == []


def test_a_reset_after_has_done_the_work(rest: Rest, emulator: EmulatorProcess) -> None:
    run = rest.run()
    emulator.add_fault("reset_after", {"path": "log-batch"})
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        rest.log_batch(run, metrics=points("loss", 3))
    assert len(stored_run(emulator, run)["metrics"]) == 3


def test_a_truncated_answer_ends_early(rest: Rest, emulator: EmulatorProcess) -> None:
    run = rest.run()
    emulator.add_fault("truncate", {"path": "runs/get"})
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        rest.get("/runs/get", run_id=run["run_id"])
    assert rest.get("/runs/get", run_id=run["run_id"]).status_code == 200


def test_an_answer_may_drip(rest: Rest, emulator: EmulatorProcess) -> None:
    run = rest.run()
    emulator.add_fault("drip", {"path": "runs/get"}, seconds=0.2)
    answer = rest.get("/runs/get", run_id=run["run_id"])
    assert answer.elapsed.total_seconds() >= 0.2
    assert answer.json()["run"]["info"]["run_id"] == run["run_id"]


def test_a_wait_may_be_told_as_a_date(rest: Rest, emulator: EmulatorProcess) -> None:
    emulator.add_fault("status", {"path": "runs/get"}, status=429, headers={"Retry-After": "date+60"})
    told = parsedate_to_datetime(rest.get("/runs/get", run_id="any").headers["retry-after"])
    assert 50 <= (told - datetime.now(UTC)).total_seconds() <= 60


def test_the_effects_of_requests_are_told_in_their_order(rest: Rest, emulator: EmulatorProcess) -> None:
    run = rest.run()
    emulator.add_fault("reset_before", {"path": "log-batch"})
    points = [{"key": "m", "value": 1, "timestamp": 2, "step": 3}]
    with pytest.raises(httpx.TransportError):
        rest.post("/runs/log-batch", {"run_id": run["run_id"], "metrics": points})
    rest.post("/runs/log-batch", {"run_id": run["run_id"], "metrics": points})
    assert rest.put(rest.write_url(run, "a/b"), b"hello").status_code == 201
    rest.post("/runs/update", {"run_id": run["run_id"], "status": "FINISHED", "end_time": 5})
    with emulator.control() as control:
        effects = control.get("/effects").json()["effects"]
        artifact = control.get(f"/blobs/ExperimentRun/dcid.{run['run_id']}/a/b")
    assert [effect["kind"] for effect in effects] == ["created", "batch", "file", "state"]
    assert {effect["run_id"] for effect in effects} == {run["run_id"]}
    assert effects[1]["what"]["points"] == [["m", 3, 2, 1.0]]
    assert artifact.content == b"hello"


def test_a_hanging_request_is_dropped_with_its_client(rest: Rest, emulator: EmulatorProcess) -> None:
    emulator.add_fault("hang", CREATE, seconds=60)
    with pytest.raises(httpx.ReadTimeout):
        rest.client.post(
            f"{emulator.api_url}/mlflow/v2.0{emulator.workspace_id}/api/2.0/mlflow/experiments/create",
            json={"name": "late"},
            headers={"Authorization": f"Bearer {rest.token}"},
            timeout=0.2,
        )
    assert _names(emulator) == []


def test_a_short_hang_is_only_slow(rest: Rest, emulator: EmulatorProcess) -> None:
    emulator.add_fault("hang", CREATE, seconds=0.05)
    emulator.add_fault("hang_after", CREATE, seconds=0.05)
    assert rest.post("/experiments/create", {"name": "a"}).status_code == 200
    assert rest.post("/experiments/create", {"name": "b"}).status_code == 200


def test_blobs_and_logins_fail_too(rest: Rest, emulator: EmulatorProcess) -> None:
    run = rest.run()
    url = rest.write_url(run, "f")
    emulator.add_fault("status", {"host": "*.blob.core.windows.net", "method": "put"}, status=503)
    emulator.add_fault("reset_after", {"host": "*.blob.core.windows.net"})
    emulator.add_fault("status", {"host": "login.*"}, status=500)
    large = b"x" * 3_000_000
    assert rest.put(url, large).status_code == 503
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
        rest.put(url, large)
    assert stored_run(emulator, run)["artifacts"][0]["size"] == len(large)
    with pytest.raises(httpx.HTTPStatusError):
        emulator.token()


def test_a_lasting_fault_ends_when_it_is_deleted(rest: Rest, emulator: EmulatorProcess) -> None:
    fault = emulator.add_fault("status", status=500, times=-1)
    assert [rest.get("/x").status_code for _ in range(3)] == [500] * 3
    with emulator.control() as control:
        assert control.delete(f"/faults/{fault}").status_code == 200
        assert control.delete(f"/faults/{fault}").status_code == 404
    assert rest.get("/x").status_code == 404
    assert [request["fault"] for request in emulator.requests()][-4:] == ["status", "status", "status", None]


@pytest.mark.parametrize(
    "wrong", [{"kind": "explode"}, {"kind": "status", "match": {"path": "("}}, {"kind": "status", "colour": 1}, {}]
)
def test_a_fault_that_makes_no_sense_is_refused(emulator: EmulatorProcess, wrong: dict[str, object]) -> None:
    with emulator.control() as control:
        assert control.post("/faults", json=wrong).status_code == 400


def test_reset_empties_the_workspace(rest: Rest, emulator: EmulatorProcess) -> None:
    run = rest.run()
    rest.put(rest.write_url(run, "f"), b"x")
    emulator.add_fault("status", {"path": "nowhere"})
    emulator.reset()
    state = emulator.state()
    assert [state[kind] for kind in ("experiments", "runs", "artifacts", "models")] == [[], [], [], []]
    assert emulator.requests() == emulator.faults() == []
    assert rest.get("/runs/get", run_id=run["run_id"]).status_code == 404
