"""Whatever is sent to what reads it first: understood, or refused in so many words; never another exception.

`RUNMIRROR_FUZZ_EXAMPLES` says how many inputs each gets.
"""

import base64
import json
import os
import time
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from runmirror import wire
from runmirror.artifacts.places import path_of
from runmirror.artifacts.safe_path import safe_path
from runmirror.body_limit import MAX_NESTING, check_nesting
from runmirror.door.hosts import DEFAULT, Hosts
from runmirror.door.origins import Origins, is_own
from runmirror.errors import InvalidParameter, RunmirrorError
from runmirror.evaluation_datasets.search import EVALUATION_DATASETS
from runmirror.logged_models.search import LOGGED_MODELS
from runmirror.run_ids import stored_id
from runmirror.search.languages import EXPERIMENTS, RUNS
from runmirror.search.paging import decode_token
from runmirror.search.parser import parse_filter, parse_order_by
from runmirror.search.registry_language import MODEL_VERSIONS, REGISTERED_MODELS
from runmirror.search.tree import Language
from runmirror.traces.language import TRACES
from runmirror.traces.otlp import parse_export

EXAMPLES = int(os.environ.get("RUNMIRROR_FUZZ_EXAMPLES", "100"))
fuzzed = settings(max_examples=EXAMPLES, deadline=None, print_blob=True)

LANGUAGES = (RUNS, EXPERIMENTS, TRACES, LOGGED_MODELS, REGISTERED_MODELS, MODEL_VERSIONS, EVALUATION_DATASETS)
_LONGEST_S = 2.0

_NAMES = (
    "metrics params tags attributes run_id name status trace span feedback expectation prompt request_metadata "
    "datasets aliases timestamp created `a` 'b' \"c\" . , ( ) = != < >= LIKE ILIKE RLIKE IN NOT IS NULL AND OR BY ASC "
    "DESC 1 -1.5e300 nan 'it''s' ; -- % \\ \0 日本 \ud800 '"
)
_WORDS = st.sampled_from(_NAMES.split())
_FILTERS = st.lists(_WORDS, max_size=25).flatmap(lambda words: st.sampled_from([" ".join(words), "".join(words)]))
_PATHS = st.text(st.sampled_from("a./\\%2eEfF5cC:\0\n?#;é~@+ \ud800\ufffd\u2024\uff0e\uff0f\u2215"), max_size=60)
_HOSTS = st.text(st.sampled_from("localhost127.0.0.1[::1]:5000.evil.example@/\\?#* \t\n%é-_0x"), max_size=40)

_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('[]{}"\\ab', max_size=4), inner, max_size=4),
    max_leaves=20,
)


@fuzzed
@given(st.sampled_from(LANGUAGES), _FILTERS | st.text(max_size=60))
def test_a_filter_or_order_is_understood_or_refused_and_soon(language: Language, text: str) -> None:
    begun = time.process_time()
    with suppress(InvalidParameter):
        parse_filter(text, language)
    with suppress(InvalidParameter):
        parse_order_by([text], language)
    assert time.process_time() - begun < _LONGEST_S


@pytest.mark.parametrize("piece", ["(", "'", "`", "params.a = 'b' AND ", "''", "\\'", " ", "1", "a.", "%"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_filter_as_long_as_a_body_is_refused_soon(language: Language, piece: str) -> None:
    begun = time.process_time()
    with suppress(InvalidParameter):
        parse_filter(piece * (2_000_000 // len(piece)), language)
    assert time.process_time() - begun < _LONGEST_S


@fuzzed
@given(_PATHS | st.text(max_size=60))
@example("․․/x")  # letters that some normal forms turn into dots and slashes
@example("a／../x")
def test_no_path_leads_out_under_any_spelling(path: str) -> None:
    try:
        safe_path(path)
    except InvalidParameter:
        return
    segments = path.split("/")
    assert all(segment not in {"", ".", ".."} for segment in segments)
    assert not set(path) & {"\0", "\n", "\\"}
    path.encode()


@fuzzed
@given(st.sampled_from(["", "mlflow-artifacts:", "file:", "http://", "s3://", "MLFLOW-ARTIFACTS:", "runs:"]), _PATHS)
def test_a_location_lies_in_the_store_or_is_refused(scheme: str, path: str) -> None:
    with suppress(InvalidParameter):
        found = path_of(scheme + path)
        assert found == ("" if not found else safe_path(found))
        assert scheme.casefold() == "mlflow-artifacts:"


@fuzzed
@given(_HOSTS | st.text(max_size=40))
@example("127.0.0.1.evil.example")
@example("localhost\n")
def test_a_host_is_ours_or_it_is_not(host: str) -> None:
    if Hosts(DEFAULT).admits(host):
        assert not any(letter in host for letter in "@/\\?#* \t\n%")
        name = host.lower().rpartition(":")[0] if host.count(":") == 1 else host.lower()
        assert name.removesuffix(".") == "localhost" or not any("g" <= letter <= "z" for letter in name)
    assert not Origins(["https://app.example"]).lists(f"https://{host}", "tracking.example") or "app.example" in host
    assert is_own(f"https://{host}", host, "http")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


@fuzzed
@given(_JSON, st.integers(MAX_NESTING - 8, MAX_NESTING + 3), st.booleans(), st.booleans())
def test_the_nesting_of_json_is_told_exactly(value: Any, around: int, as_list: bool, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    opens, closes = ("[", "]") if as_list else ('{"[\\"": ', "}")
    body = (opens * around + text + closes * around).encode("utf-8", "surrogatepass")
    is_deep = around + _depth(value) > MAX_NESTING
    try:
        check_nesting(body)
    except InvalidParameter:
        assert is_deep
    else:
        assert not is_deep


@fuzzed
@given(
    st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(["", "gzip", "deflate", "br"]),
)
def test_an_export_of_spans_is_read_or_refused(body: bytes, encoding: str) -> None:
    for kind in ("application/json", "application/x-protobuf"):
        with suppress(RunmirrorError):
            parse_export(body, content_type=kind, content_encoding=encoding, limit_bytes=10_000)


@fuzzed
@given(st.data())
def test_a_damaged_export_of_spans_is_read_or_refused(data: st.DataObject) -> None:
    export = ExportTraceServiceRequest()
    span = export.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = b"t" * 16, b"s" * 8, "root"
    attribute = span.attributes.add(key="mlflow.traceRequestId")
    attribute.value.string_value = data.draw(st.text(max_size=10).filter(lambda text: text.isprintable()))
    body = bytearray(export.SerializeToString())
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(RunmirrorError):
        parse_export(bytes(body), content_type="application/x-protobuf", content_encoding="", limit_bytes=10_000)


@fuzzed
@given(st.text(max_size=300) | _JSON.map(lambda value: wire_token(json.dumps(value))))
def test_a_page_token_is_ours_or_it_is_refused(token: str) -> None:
    with suppress(InvalidParameter):
        decode_token(token, "query", [])


def wire_token(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode()


@fuzzed
@given(st.text(max_size=300))
def test_an_id_of_a_run_is_one_or_none(run_id: str) -> None:
    found = stored_id(run_id)
    assert found is None or all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in run_id)
    assert (wire.RUN_ID.match(run_id) is None) or found is not None


_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "key": st.sampled_from(["a", "a/b", "", "a//b", "../a", "x" * 251, "mlflow.runName", "é", "a\0", "\ud800"]),
    "value": st.sampled_from([1, 1.5, "1", "NaN", "-Infinity", "x" * 9000, None, True, 10**400, [], {}, "a\0"]),
    "timestamp": st.sampled_from([0, 1, -1, "5", 2**63, 1.5, None, "x", True]),
    "step": st.sampled_from([0, -5, "7", 2**63, None, 0.5]),
}
_POINT = st.fixed_dictionaries({}, optional=_FIELDS) | _LEAVES
_BODY = st.fixed_dictionaries(
    {}, optional={**_FIELDS, **{name: st.lists(_POINT, max_size=3) | _LEAVES for name in ("metrics", "params", "tags")}}
)


@settings(
    max_examples=max(25, EXAMPLES // 4), deadline=None, print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.sampled_from(["log-metric", "log-parameter", "set-tag", "log-batch"]), _BODY)
async def test_both_ways_of_a_write_answer_and_store_the_same(
    client: httpx.AsyncClient, call: str, body: dict[str, Any]
) -> None:
    """The hot way wants its content type without a charset, so the other one is the ordinary way."""
    told = []
    for kind in ("application/json", "application/json; charset=utf-8"):
        made = await client.post(
            "/api/2.0/mlflow/runs/create", json={"experiment_id": "0", "run_name": "n", "start_time": 1}
        )
        run_id = made.json()["run"]["info"]["run_id"]
        content = json.dumps({"run_id": run_id, **body}).encode("utf-8", "surrogatepass")
        answer = await client.post(f"/api/2.0/mlflow/runs/{call}", content=content, headers={"Content-Type": kind})
        stored = (await client.get("/api/2.0/mlflow/runs/get", params={"run_id": run_id})).text
        told.append((answer.status_code, answer.text.replace(run_id, "…"), stored.replace(run_id, "…")))
        assert answer.status_code in {200, 400}, answer.text
    assert told[0] == told[1]
