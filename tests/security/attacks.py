"""What was tried on MLflow's servers (`Id`: the CVE, pull request or idea), and what else could be.

`{run}`, `{root}` and other names in braces are filled in by the target. A path that starts with /api is tried under
every alias of it.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

REFUSED = frozenset({400, 401, 403, 404, 405, 409, 413, 414, 415, 422, 431})
NOT_SERVED = frozenset({501})  # what we leave out altogether answers so whatever is sent
_FOLDER = REFUSED | NOT_SERVED  # a folder has no URLs to give out, whichever path is asked for

_API = "/api/2.0/mlflow"
_API3 = "/api/3.0/mlflow"
_STORE = "/api/2.0/mlflow-artifacts"


@dataclass(frozen=True)
class Attack:
    """A request; `body` is sent as JSON unless it is bytes. `allowed` are the statuses it may be answered with.

    What stands before the # of `id` names a group: the same tried in many spellings.
    """

    id: str
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    allowed: frozenset[int] = REFUSED

    @property
    def target(self) -> str:
        return self.path + (f"?{urlencode(self.query)}" if self.query else "")

    @property
    def content(self) -> bytes:
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


# Letter by letter as they stand in a request line; the framework decodes each once.
TRAVERSALS = (
    "../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "%2E%2E%2Fsecret.txt", "%252E%252E%252Fsecret.txt",
    "%25252e%25252e%25252fsecret.txt", "..%5csecret.txt", "..%255csecret.txt", "%5c%5chost%5cshare%5cx",
    "a/../../secret.txt", "a/%2e%2e/%2e%2e/secret.txt", "/etc/passwd", "%2fetc%2fpasswd", "//proc/self/root/etc/passwd",
    "C:/secret.txt", "C%3A%5Csecret.txt", "file:///etc/passwd", "a%00.txt", "a%0d%0ab", "%c0%ae%c0%ae/secret.txt",
    "%ff%fe", ".uploads/x", ".UPLOADS/x", "./a", "a//b", "out/secret.txt", "x" * 300, "x/" * 600 + "y",
)  # fmt: skip
# The same after the one decoding, where a body or a query carries them.
DECODED = (
    "../secret.txt", "../../../../../../etc/passwd", "/etc/passwd", "//proc/self/root/etc/passwd", "..\\secret.txt",
    "%2e%2e/secret.txt", "%252e%252e%252fsecret.txt", "C:/secret.txt", "C:secret.txt", "a/../../secret.txt",
    "file:///etc/passwd", "a\0b", "a\nb", ".uploads/x", "out/secret.txt", "\ud800",
)  # fmt: skip

LOCATIONS = (
    "/etc", "file:///etc/", "file://localhost/etc", "//proc/self/root", "..", "../../etc", "C:/", "C:\\",
    "http:///?/../../../../../etc/", "http:///#/../../../../../etc/", "http://169.254.169.254/latest/meta-data",
    "https://evil.example/x", "ftp://evil.example/x", "dbfs:/etc", "s3://evil/x", "hdfs://evil.example/x",
    "wasbs://c@evil.blob.core.windows.net/x", "mlflow-artifacts://evil.example/x", "mlflow-artifacts:/../x",
    "mlflow-artifacts:/a?/../../x",
    "mlflow-artifacts:/a#/../../x", "mlflow-artifacts:/a;/../../x", "mlflow-artifacts:/%2e%2e/x", "uc://x", "r2://x/y",
    "file:relative", "runs:/{run}/../../x", "gs://evil/x", "sftp://evil.example/x", "\\\\evil\\share",
)  # fmt: skip

INSIDE = (  # where a webhook must not lead
    "https://127.0.0.1/x", "https://[::1]/x", "https://0.0.0.0/x", "https://169.254.169.254/x",
    "https://168.63.129.16/x", "https://10.0.0.1/x", "https://192.168.0.1/x", "https://[fd00::1]/x", "https://2130706433/",
    "https://0x7f000001/", "https://127.1/", "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::7f00:1]/",
    "ftp://1.1.1.1/", "https://user@127.0.0.1/", "https://1.1.1.1\\@127.0.0.1/", "file:///etc/passwd",
    "gopher://127.0.0.1/", "https:///x", "",
)  # fmt: skip

_MARKUP = "<script>alert(1)</script>"


def attacks() -> Iterator[Attack]:
    yield from _store()
    yield from _paths_of_runs()
    yield from _sources()
    yield from _requests_from_our_side()
    yield from _code()
    yield from _browsers()
    yield from _too_much()
    yield from _ids_and_filters()
    yield from _sign_in()


def _store() -> Iterator[Attack]:
    for number, path in enumerate(TRAVERSALS):
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            body = b"planted" if method == "PUT" else None
            yield Attack(f"CVE-2023-6831-{method}#{number}", method, f"{_STORE}/artifacts/{path}", body=body)
        yield Attack(f"CVE-2023-3765#{number}", "GET", f"{_STORE}/artifacts?path={path}")
        for step in ("create", "complete", "abort"):
            body = {"path": "file", "num_parts": 1, "upload_id": "u", "parts": []}
            yield Attack(f"PR-21947-{step}#{number}", "POST", f"{_STORE}/mpu/{step}/{path}", body=body, allowed=_FOLDER)
        yield Attack(f"PR-25071#{number}", "GET", f"{_STORE}/presigned/{path}", allowed=_FOLDER)
        if not path.startswith(("%ff", "%c0")) and "file:" not in path:  # as static files they are names of nothing
            yield Attack(f"static#{number}", "GET", f"/static-files/{path}")
    for path in ("", "a/", "%2e%2e/", ".uploads"):
        yield Attack(f"CVE-2023-6753#{quote(path)}", "PUT", f"{_STORE}/artifacts/{path}", body=b"planted")
    yield Attack("CVE-2024-8859-question", "DELETE", f"{_STORE}/artifacts/..%3f/../x")


def _paths_of_runs() -> Iterator[Attack]:
    for number, path in enumerate(DECODED):
        if path != "\ud800":
            query = {"run_id": "{run}", "path": path}
            yield Attack(f"CVE-2023-30172#{number}", "GET", "/get-artifact", query)
            yield Attack(f"CVE-2023-2356#{number}", "HEAD", "/get-artifact", query)
            yield Attack(f"CVE-2023-30172-uuid#{number}", "GET", "/get-artifact", {"run_uuid": "{run}", "path": path})
            yield Attack(f"list#{number}", "GET", f"{_API}/artifacts/list", query)
            yield Attack(f"upload#{number}", "POST", "/ajax-api/2.0/mlflow/upload-artifact", query, body=b"planted")
            of_version = {"name": "model", "version": "1", "path": path}
            yield Attack(f"CVE-2023-1177-get#{number}", "GET", "/model-versions/get-artifact", of_version)
            model = f"{_API}/logged-models/{{model}}/artifacts/directories"
            yield Attack(f"CVE-2026-2033#{number}", "GET", model, {"artifact_directory_path": path})
            files = "/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files"
            yield Attack(f"CVE-2026-33866#{number}", "GET", files, {"artifact_file_path": path})
            trace = {"request_id": "{trace}", "path": path}
            yield Attack(f"trace-artifact#{number}", "GET", "/ajax-api/3.0/mlflow/get-trace-artifact", trace)
        for name in ("presigned-download-url", "presigned-upload-url"):
            body = {"run_id": "{run}", "path": path}
            yield Attack(f"CVE-2026-2651-{name}#{number}", "POST", f"{_API}/artifacts/{name}", body=body)


def _sources() -> Iterator[Attack]:
    for number, location in enumerate(LOCATIONS):
        version = {"name": "model", "source": location}
        create = f"{_API}/model-versions/create"
        yield Attack(f"CVE-2023-6977#{number}", "POST", create, body=version)
        yield Attack(f"CVE-2023-2780#{number}", "POST", create, body=version | {"run_id": "{run}"})
        prompt = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
        yield Attack(f"CVE-2026-2614#{number}", "POST", create, body=version | {"tags": prompt})
        with_model = version | {"model_id": "{model}"}
        yield Attack(f"CVE-2025-11201#{number}", "POST", create, body=with_model)
        experiment = {"name": f"planted {number}", "artifact_location": location}
        yield Attack(f"CVE-2024-3848#{number}", "POST", f"{_API}/experiments/create", body=experiment)
    for number, trace_id in enumerate(("../x", "..", "/etc/passwd", "tr-../x", "a/b", "tr-\0", "", "tr-" + "x" * 9000)):
        info = {
            "trace_id": trace_id,
            "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
            "request_time": "2026-01-01T00:00:00Z",
            "state": "OK",
        }
        yield Attack(f"CVE-2026-53995#{number}", "POST", f"{_API3}/traces", body={"trace": {"trace_info": info}})


def _requests_from_our_side() -> Iterator[Attack]:
    for number, url in enumerate(INSIDE):
        events = [{"entity": "REGISTERED_MODEL", "action": "CREATED"}]
        body = {"name": "planted", "url": url, "events": events}
        yield Attack(f"CVE-2026-2393#{number}", "POST", f"{_API}/webhooks", body=body)
    yield Attack("CVE-2026-64849", "POST", f"{_API}/webhooks/{{run}}/test", body={})
    proxied = {"gateway_path": "http://169.254.169.254/", "json_data": {}}
    calm = frozenset({200})  # an empty list, whatever is asked: see ui/routes.py
    yield Attack("CVE-2025-52967", "POST", "/ajax-api/2.0/mlflow/gateway-proxy", body=proxied, allowed=calm)
    yield Attack("gateway", "POST", "/gateway/proxy/evil/http:%2f%2f169.254.169.254/", body={}, allowed=NOT_SERVED)
    yield Attack("open-redirect", "GET", "/mirror//evil.example/")


def _code() -> Iterator[Attack]:
    for path in ("/ajax-api/3.0/mlflow/scorer/invoke", "/ajax-api/3.0/jobs/", "/ajax-api/3.0/mlflow/assistant/message"):
        body = {"serialized_scorer": "__import__('os').system('id')", "model_uri": "x; id"}
        yield Attack(f"CVE-2026-116692#{path}", "POST", path, body=body, allowed=NOT_SERVED)
    pickled = b"cos\nsystem\n(S'id'\ntR."
    for path in (f"{_API}/runs/log-batch", f"{_API}/runs/log-metric", "/v1/traces", f"{_API}/experiments/create"):
        yield Attack(f"CVE-2024-37052#{path}", "POST", path, body=pickled)
        kind = {"Content-Type": "application/x-python-pickle"}
        yield Attack(f"CVE-2024-37052-typed#{path}", "POST", path, body=pickled, headers=kind)


def _browsers() -> Iterator[Attack]:
    create = f"{_API}/experiments/create"
    body = {"name": "planted by a page"}
    yield Attack("CVE-2023-6568", "POST", create, body=body, headers={"Content-Type": _MARKUP})
    yield Attack("CVE-2023-43472", "POST", create, body=body, headers={"Content-Type": "text/plain"})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    yield Attack("CVE-2025-1473", "POST", create, body=b"name=planted", headers=form)
    for path in (create, f"{_API}/runs/create", f"{_API}/runs/log-metric", "/graphql", f"{_API}/webhooks"):
        page = {"experiment_id": "0", "run_id": "{run}", "key": "k", "value": 1, "timestamp": 1} | body
        for number, headers in enumerate(
            (
                {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                {"Host": "evil.example"}, {"Host": "10.evil.example:5000"}, {"Host": "evil.example", "Origin": "http://evil.example"},
                {"Host": "127.0.0.1.evil.example"}, {"Host": "localhost:5000@evil.example"}, {"Host": ""},
            )
        ):  # fmt: skip
            yield Attack(f"CVE-2025-14279#{path}{number}", "POST", path, body=page, headers=headers)
    yield Attack(
        "rebound-read", "GET", f"{_API}/experiments/get", {"experiment_id": "0"}, headers={"Host": "evil.example"}
    )
    yield Attack(
        "rebound-artifact", "GET", "/get-artifact", {"run_id": "{run}", "path": "a.txt"}, headers={"Host": "x.evil"}
    )
    yield Attack("markup-in-path", "GET", f"{_API}/{quote(_MARKUP)}")
    yield Attack("markup-in-page", "GET", f"/mirror/runs/{quote(_MARKUP)}")
    yield Attack("markup-in-name", "GET", f"{_API}/experiments/get-by-name", {"experiment_name": _MARKUP})
    yield Attack("markup-in-artifact", "GET", "/get-artifact", {"run_id": "{run}", "path": _MARKUP})
    yield Attack("markup-in-button", "POST", f"/mirror/runs/{quote(_MARKUP)}/retry")
    yield Attack("markup-in-host", "GET", "/", headers={"Host": _MARKUP})
    yield Attack("markup-in-origin", "POST", create, body=body, headers={"Origin": _MARKUP})


def _too_much() -> Iterator[Attack]:
    yield Attack("CVE-2024-6838-name", "POST", f"{_API}/experiments/create", body={"name": "x" * 1_000_000})
    location = {"name": "planted", "artifact_location": "mlflow-artifacts:/" + "x" * 1_000_000}
    yield Attack("CVE-2024-6838-location", "POST", f"{_API}/experiments/create", body=location)
    yield Attack("CVE-2024-3099", "POST", f"{_API}/registered-models/create", body={"name": "mo%64el/x"})
    yield Attack("CVE-2025-0453-batch", "POST", "/graphql", body=[{"query": "{ __typename }"}] * 1000)
    many = " ".join(f'a{n}: mlflowGetExperiment(input: {{experimentId: "0"}}) {{ __typename }}' for n in range(5000))
    yield Attack("CVE-2025-0453-aliases", "POST", "/graphql", body={"query": f"{{ {many} }}"})
    yield Attack("deep-graphql", "POST", "/graphql", body={"query": "{a" * 5000 + "}" * 5000})
    as_json = {"Content-Type": "application/json"}
    for path in (
        f"{_API}/experiments/create",
        f"{_API}/runs/log-batch",
        f"{_API}/runs/create",
        "/graphql",
        "/v1/traces",
    ):
        deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
        for name, content in {
            "deep": deep, "open": b"[" * 1_000_000, "number": b'{"name":' + b"9" * 100_000 + b"}",
            "bytes": b"\xff\xfe{",
            "exponent": b'{"name": 1e999999999}', "surrogate": b'{"name": "\\ud800"}', "null": b'{"name": "a\\u0000b"}',
            "not-an-object": b"[]", "cut": b'{"name": "x',
        }.items():  # fmt: skip
            yield Attack(f"{name}#{path}", "POST", path, body=content, headers=as_json)
    bomb = gzip.compress(b"\0" * 40_000_000)
    packed = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", "x-mlflow-experiment-id": "0"}
    yield Attack("bomb", "POST", "/v1/traces", body=bomb, headers=packed)
    yield Attack("long-query", "GET", f"{_API}/experiments/get", {"experiment_id": "0", "x": "y" * 100_000})
    yield Attack("many-headers", "GET", "/health", headers={f"X-{n}": "y" for n in range(500)})
    yield Attack("long-body", "POST", f"{_API}/experiments/create", headers=as_json | {"Content-Length": "9" * 18})
    for value in (-1, 10**9, 10**30, "x"):
        body = {"experiment_ids": ["0"], "max_results": value}
        yield Attack(f"page#{value}", "POST", f"{_API}/runs/search", body=body)


def _ids_and_filters() -> Iterator[Attack]:
    for number, word in enumerate(
        ("' OR '1'='1", "1; DROP TABLE runs;--", "\0", "../x", "{run}'--", "9" * 400, "%", "-1")
    ):
        yield Attack(f"run-id#{number}", "GET", f"{_API}/runs/get", {"run_id": word})
        yield Attack(f"run-id-delete#{number}", "POST", f"{_API}/runs/delete", body={"run_id": word})
        metric = {"run_id": word, "key": "k", "value": 1, "timestamp": 1}
        yield Attack(f"run-id-metric#{number}", "POST", f"{_API}/runs/log-metric", body=metric)
        yield Attack(f"experiment-id#{number}", "POST", f"{_API}/experiments/delete", body={"experiment_id": word})
        yield Attack(f"model#{number}", "DELETE", f"{_API}/registered-models/delete", body={"name": word})
        yield Attack(f"logged-model#{number}", "DELETE", f"{_API}/logged-models/{quote(word, safe='')}")
        yield Attack(f"trace#{number}", "GET", f"{_API3}/traces/{quote(word, safe='')}")
        deleted = f"{_API3}/datasets/{quote(word, safe='')}"
        yield Attack(f"dataset#{number}", "DELETE", deleted, allowed=REFUSED | {200})  # as MLflow: gone is gone
        yield Attack(f"webhook#{number}", "DELETE", f"{_API}/webhooks/{quote(word, safe='')}")
        found = {"experiment_ids": ["0"], "page_token": word}
        yield Attack(f"token#{number}", "POST", f"{_API}/runs/search", body=found)
    for number, text in enumerate(
        (
            "params.x = 'a'; DROP TABLE runs", "params.x = 'a' OR 1=1", "1=1", "metrics.`x` > 1) UNION SELECT 1--",
            "params.x = 'a' --", "attributes.run_id IN (SELECT 1)", "(" * 5000, "params." + "x" * 100_000 + " = 'a'",
            " AND ".join(["params.x = 'a'"] * 5000), "params.x LIKE '" + "%_" * 50_000 + "'", "params.x = 'a",
        )
    ):  # fmt: skip
        body = {"experiment_ids": ["0"], "filter": text}
        yield Attack(f"filter#{number}", "POST", f"{_API}/runs/search", body=body)
        yield Attack(
            f"filter-experiments#{number}",
            "POST",
            f"{_API}/experiments/search",
            body={"filter": text, "max_results": 5},
        )
        yield Attack(f"filter-models#{number}", "GET", f"{_API}/registered-models/search", {"filter": text})
        traces = {
            "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}],
            "filter": text,
        }
        yield Attack(f"filter-traces#{number}", "POST", f"{_API3}/traces/search", body=traces)
    for number, order in enumerate(
        ("start_time; DROP TABLE runs", "metrics.x DESC, (SELECT 1)", "pg_sleep(9)", "x" * 100_000)
    ):
        body = {"experiment_ids": ["0"], "order_by": [order]}
        yield Attack(f"order#{number}", "POST", f"{_API}/runs/search", body=body)


def _sign_in() -> Iterator[Attack]:
    """Led elsewhere, signed in as somebody, or made to say what a browser would read as a header."""
    going = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    led = REFUSED | {303}  # what is no route of ours leads to the sign-in page, and from there to nowhere else
    stranger = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "cross-site"}
    for number, place in enumerate(
        (
            "//evil.example", "/\\evil.example", "https://evil.example", "\t//evil.example",
            "/\r\nX-Evil: evil.example", "javascript:evil.example", "/../evil.example", "/%2e%2e/evil.example",
            "/" + "evil.example" * 99,
        )
    ):  # fmt: skip
        for path in ("/signin", "/signin/start"):
            yield Attack(f"sign-in-next#{number}{path}", "GET", path, {"next": place}, headers=going, allowed=led)
        yield Attack(f"sign-in-form#{number}", "POST", "/signin", {"next": place}, body=b"secret=x", headers=form)
        told = {"code": "c", "state": place, "error": _MARKUP, "iss": place}
        yield Attack(f"sign-in-callback#{number}", "GET", "/signin/callback", told, headers=going, allowed=led)
    for number, path in enumerate(("//evil.example/", "/%5cx", "/%2f%2fx/%0d%0aX-Evil:%20y")):
        yield Attack(f"sign-in-path#{number}", "GET", path, headers=going, allowed=led)
    for number, secret in enumerate(("rmt_" + "A" * 43, "rms_" + "A" * 43, "' OR 1=1--", "\0", "%ff%fe", "x" * 9000)):
        body = urlencode({"secret": secret, "name": "admin"}).encode()
        yield Attack(f"sign-in-secret#{number}", "POST", "/signin", body=body, headers=form)
        cookie = {"Cookie": f"runmirror_session={quote(secret)}", "Sec-Fetch-Site": "same-origin"}
        yield Attack(
            f"sign-in-cookie#{number}", "DELETE", f"{_API}/users/delete", body={"username": "x"}, headers=cookie
        )
    for path in ("/signin", "/signout"):
        yield Attack(f"sign-in-elsewhere#{path}", "POST", path, body=b"secret=x", headers=stranger)
