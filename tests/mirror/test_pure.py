"""What is decided without Azure or Postgres: what to do after a failure, where to cut, what to hide."""

import json
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from runmirror.entities import Param, Tag
from runmirror.mirror.azureml_http import Refused, error_for
from runmirror.mirror.azureml_transport import Answer
from runmirror.mirror.azureml_workspace import parse_tracking_uri, workspace_at
from runmirror.mirror.batches import cut
from runmirror.mirror.limits import Limits
from runmirror.mirror.outage import Outage
from runmirror.mirror.redact import redact
from runmirror.mirror.retry import MAX_ATTEMPTS, Pause, Postpone, Quarantine, Release, backoff, decide
from runmirror.mirror.target import (
    RemoteRunVanished,
    SourceChanged,
    SourceUnavailable,
    TargetError,
    TargetRejected,
    TargetThrottled,
    TargetUnauthorized,
    TargetUnavailable,
)
from runmirror.retry_after import retry_after_s
from runmirror.settings import Settings
from tests.mirror.factories import points

SETTINGS = Settings(mirror_backoff_max=timedelta(seconds=60), mirror_settle=timedelta(seconds=5))
WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/ws1"


def decision(error: Exception, *, attempt: int = 0, outages: int = 0, run_outages: int = 0) -> object:
    return decide(
        error, attempt=attempt, outages=outages, run_outages=run_outages, jitter=1.0, settings=SETTINGS
    )  # fmt: skip


def test_a_refusal_is_final() -> None:
    assert decision(TargetRejected("too many")) == Quarantine("too many")


def test_a_run_is_gone_only_when_it_is_missing_again_and_again() -> None:
    settled = Postpone(timedelta(seconds=5))
    found = [decision(RemoteRunVanished("gone"), attempt=attempt) for attempt in range(3)]
    assert found == [settled, settled, Quarantine("gone")]


def test_an_outage_is_nobodys_fault_however_long_it_lasts() -> None:
    for outages in range(100):
        found = decision(TargetUnavailable("gone"), outages=outages, attempt=MAX_ATTEMPTS)
        assert isinstance(found, Pause)
        assert found.wait <= timedelta(seconds=60)


def test_retry_after_is_the_least_wait_and_a_lost_answer_settles_first() -> None:
    assert decision(TargetThrottled("slow", retry_after_s=90)) == Pause(timedelta(seconds=90), timedelta(seconds=90))
    assert decision(TargetUnavailable("?", uncertain=True)) == Pause(timedelta(seconds=1), timedelta(seconds=5))


def test_the_runs_own_failures_are_counted_and_the_stores_are_not() -> None:
    assert decision(SourceChanged("x"), attempt=2) == Postpone(timedelta(seconds=4))
    assert decision(SourceChanged("x"), attempt=MAX_ATTEMPTS - 1) == Quarantine("gave up after 10 attempts: x")
    assert decision(SourceUnavailable("x"), attempt=99, run_outages=1) == Release(timedelta(seconds=2))
    found = decision(KeyError("secret"), attempt=MAX_ATTEMPTS)
    assert isinstance(found, Quarantine)
    assert "secret" not in found.reason


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_backoff_is_never_more_than_the_setting(failures: int, jitter: float) -> None:
    assert timedelta(seconds=0.5) <= backoff(failures, jitter, SETTINGS) <= SETTINGS.mirror_backoff_max


@given(st.integers(0, 1500), st.lists(st.text(max_size=50)), st.integers(0, 250), st.integers(1, 9000))
def test_batches_keep_to_the_limits_and_lose_nothing(
    metric_count: int, tag_values: list[str], param_count: int, length: int
) -> None:
    metrics = points("m", metric_count)
    params = [Param(f"p{n}", "v" * length) for n in range(param_count)]
    tags = [Tag(f"t{n}", value) for n, value in enumerate(tag_values)]
    batches = list(cut(metrics, params, tags, Limits.of(SETTINGS)))
    assert [m for b in batches for m in b.metrics] == metrics
    assert [p for b in batches for p in b.params] == params
    assert [t for b in batches for t in b.tags] == tags
    for batch in batches:
        assert len(batch.metrics) <= 200
        assert len(batch.params) <= 100
        assert len(batch.tags) <= 100
        assert sum(len(param.value) for param in batch.params) < 420_000
    if length < 1000:
        assert len(batches) == max(-(-metric_count // 200), -(-param_count // 100), -(-len(tags) // 100))


def answer(
    status: int, *, headers: dict[str, str] | None = None, body: object = None, sent: bytes | None = b"",
    sent_md5: str | None = None,
) -> Answer:  # fmt: skip
    path = f"/mlflow/v2.0{WORKSPACE}/api/x"
    content = json.dumps(body if body is not None else {}).encode()
    reason, known = HTTPStatus(status).phrase, CIMultiDict(headers or {})
    return Answer("POST", path, status, reason, known, content, sent=sent, sent_md5=sent_md5)


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (400, {}, Refused), (404, {}, Refused), (409, {}, Refused), (413, {}, Refused), (422, {}, Refused),
        (401, {}, TargetUnauthorized), (403, {}, TargetUnauthorized),
        (429, {}, TargetThrottled), (503, {"Retry-After": "3"}, TargetThrottled), (503, {}, TargetUnavailable),
        (408, {}, TargetUnavailable), (500, {}, TargetUnavailable), (504, {}, TargetUnavailable),
        (302, {"Location": "https://evil.example"}, TargetUnavailable),
    ],
)  # fmt: skip
def test_every_status_means_something(status: int, headers: dict[str, str], kind: type[TargetError]) -> None:
    assert type(error_for(answer(status, headers=headers), has_effect=True)) is kind


@pytest.mark.parametrize(
    "body",
    [
        {"Error": {"Code": "ValidationError", "Message": "Limit=200"}, "error_code": "INVALID_PARAMETER_VALUE",
         "Correlation": {"request": "abc"}},
        {"error": {"code": "INVALID_PARAMETER_VALUE", "message": "Limit=200"}, "correlation": {"request": "abc"}},
        {"error_code": "INVALID_PARAMETER_VALUE", "message": "Limit=200", "Correlation": {"request": "abc"}},
    ],
)  # fmt: skip
def test_azures_reason_and_request_id_are_kept(body: dict[str, object]) -> None:
    told = str(error_for(answer(400, body=body), has_effect=False))
    assert told.startswith("INVALID_PARAMETER_VALUE: Limit=200 (HTTP 400 to POST ws1/api/x")
    assert "request id abc" in told
    assert "secret" not in told


def test_what_azure_says_does_not_speak_to_a_terminal_or_break_a_line() -> None:
    assert redact("a\x1b[2J\x00b\n\u202ec ü") == "a [2J b c ü"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"Correlation": {"operation": "o", "request": "abc"}}, {"x-ms-request-id": "other"}),
        ({"correlation": {"RequestId": "abc"}}, {}),
        ({"Correlation": {"operation": "abc"}}, {}),
        ({}, {"x-ms-request-id": "abc"}),
        ({"Correlation": {"request": None}}, {"x-ms-correlation-request-id": "abc"}),
    ],
)
def test_the_request_id_is_found_wherever_azure_tells_it(body: dict[str, object], headers: dict[str, str]) -> None:
    long = {"error": {"code": "c", "message": "m" * 9000}}
    told = str(error_for(answer(400, body=long | body, headers=headers), has_effect=False))
    assert "…" in told
    assert "request id abc" in told, "however long the message is"


def test_a_refusal_holds_the_hash_of_what_was_refused_and_an_outage_does_not() -> None:
    sent, digest = b"{}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert str(error_for(answer(400, sent=sent), has_effect=False)).endswith(f", payload sha256:{digest})")
    for other in (answer(400), answer(429, sent=sent), answer(403, sent=sent), answer(500, sent=sent)):
        assert "payload" not in str(error_for(other, has_effect=False))

    streamed = answer(400, sent=None, sent_md5="/w==")
    assert "payload md5:ff)" in str(error_for(streamed, has_effect=False))


@pytest.mark.parametrize("body", [[], "text", None, 3, {"error": "word"}, {"error": {"message": None}}])
def test_an_error_of_no_known_shape_is_still_told(body: object) -> None:
    assert "HTTP 418" in str(error_for(answer(418, body=body), has_effect=False))


def test_retry_after_is_seconds_or_a_date_by_the_servers_clock() -> None:
    date, later = "Wed, 01 Jan 2031 00:00:00 GMT", "Wed, 01 Jan 2031 00:00:07 GMT"
    assert retry_after_s(answer(429, headers={"Retry-After": "1.5"})) == 1.5
    assert retry_after_s(answer(429, headers={"Retry-After": later, "Date": date})) == 7
    assert retry_after_s(answer(429, headers={"Retry-After": "-3"})) == 0
    assert retry_after_s(answer(429, headers={"Retry-After": "99999999"})) == 600
    for nonsense in ("soon", "nan", ""):
        assert retry_after_s(answer(429, headers={"Retry-After": nonsense})) is None
    assert datetime.now(UTC).year < 2031


@pytest.mark.parametrize(
    "secret",
    [
        "https://a.blob.core.windows.net/c/b?sv=1&sig=S3CRET",
        "Authorization: Bearer S3CRET.a.b",
        "client_secret=S3CRET",
        "sig=S3CRET&x",
        "token eyJhbGciS3CRET.eyJhdWQiOiJ4IS3CRET.S3CRET",
    ],
)
def test_secrets_are_taken_out(secret: str) -> None:
    assert "S3CRET" not in redact(f"failed: {secret} \x00\ud800 end")
    assert redact(f"failed: {secret} end").endswith("end")


@pytest.mark.parametrize(
    "uri",
    [
        f"azureml://eastus.api.azureml.ms.evil.example/mlflow/v1.0{WORKSPACE}",
        f"azureml://evil.example/mlflow/v1.0{WORKSPACE}",
        f"azureml://user@eastus.api.azureml.ms/mlflow/v1.0{WORKSPACE}",
        f"azureml://eastus.api.azureml.ms:444/mlflow/v1.0{WORKSPACE}",
        f"https://eastus.api.azureml.ms{WORKSPACE}",
        "azureml://eastus.api.azureml.ms/mlflow/v1.0/subscriptions/s",
        "azureml://evilazureml.ms/mlflow/v1.0" + WORKSPACE,
    ],
)
def test_tokens_go_to_azures_hosts_only(uri: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)azure"):
        parse_tracking_uri(uri)


@pytest.mark.parametrize("tail", ["", "?", "?is-remote=True", "/"])
def test_tracking_uris_of_all_makers_are_read(tail: str) -> None:
    host, workspace_id = parse_tracking_uri(f"azureml://EastUS.api.azureml.ms/mlflow/v1.0{WORKSPACE}{tail}")
    assert (host, workspace_id) == ("eastus.api.azureml.ms", WORKSPACE)
    found = workspace_at(host, workspace_id, "t")
    assert found.portal_url("r") == (
        "https://ml.azure.com/runs/r?wsid=/subscriptions/s/resourcegroups/g/workspaces/ws1&tid=t"
    )


def test_only_an_answer_to_a_later_question_ends_an_outage() -> None:
    outage = Outage()
    assert outage.failed(timedelta(hours=1))
    assert not outage.failed(timedelta(hours=1)), "one of several that met the same outage"
    assert outage.failures == 1
    assert not outage.answered(asked_at=0.0)
    assert outage.pause_s > 3000
    assert outage.answered(asked_at=float("inf"))
    assert (outage.failures, outage.pause_s) == (0, 0.0)
