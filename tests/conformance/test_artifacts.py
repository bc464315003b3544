"""The artifact endpoints answer as MLflow's server does; each wanted difference is written down at its call."""

import pytest

from tests.conformance.compare import Both, Deviation

SERVICE = "/api/2.0/mlflow-artifacts/artifacts"
ROOT = f"{SERVICE}/0/{{run}}/artifacts"
INVALID = (400, "INVALID_PARAMETER_VALUE")
MISSING = (404, "RESOURCE_DOES_NOT_EXIST")
STORED = (200, None)
DOWNLOAD_HEADERS = ("content-type", "content-disposition", "content-length", "x-content-type-options", "accept-ranges")


@pytest.fixture
def files(both: Both) -> Both:
    """A run with files in it, the same on both servers."""
    both.call("POST", "runs/create", json={"experiment_id": "0", "start_time": 1000})
    both.bind("run", "run.info.run_id")
    for name, data in {"d/a.txt": b"hello world", "d/e/deep.bin": b"\0\1", "é b.yaml": b"a: 1", "empty": b""}.items():
        both.call("PUT", f"{ROOT}/{name}", content=data)
    return both


def test_files_go_up_and_come_down(files: Both) -> None:
    for name in ("d/a.txt", "d/e/deep.bin", "é b.yaml", "empty"):
        files.call("GET", f"{ROOT}/{name}", compare_headers=DOWNLOAD_HEADERS)
        files.call("GET", f"{ROOT}/{name}".replace("/api/", "/ajax-api/"), compare_headers=DOWNLOAD_HEADERS)
        files.call("HEAD", f"{ROOT}/{name}", compare_headers=DOWNLOAD_HEADERS)
        for key in ("run_id", "run_uuid"):
            params = {key: "{run}", "path": name}
            files.call("GET", "/get-artifact", params=params, compare_headers=DOWNLOAD_HEADERS)
            files.call("HEAD", "/get-artifact", params=params, compare_headers=DOWNLOAD_HEADERS)


@pytest.mark.parametrize("asked", ["bytes=0-3", "bytes=6-", "bytes=-5", "bytes=0-100", "bytes=10-10"])
def test_one_range_is_served(files: Both, asked: str) -> None:
    headers = (*DOWNLOAD_HEADERS, "content-range")
    files.call("GET", f"{ROOT}/d/a.txt", headers={"Range": asked}, compare_headers=headers)
    params = {"run_id": "{run}", "path": "d/a.txt"}
    files.call("GET", "/get-artifact", params=params, headers={"Range": asked}, compare_headers=headers)


def test_more_than_the_whole_from_the_end_is_the_whole(files: Both) -> None:
    headers = {"Range": "bytes=-50"}
    files.call("GET", f"{ROOT}/d/a.txt", headers=headers, compare_headers=("content-range",))
    apart = Deviation((416, None), (206, None), "MLflow's two endpoints differ; RFC 9110 §14.1.2 has it so")
    files.call("GET", "/get-artifact", params={"run_id": "{run}", "path": "d/a.txt"}, headers=headers, deviation=apart)


def test_a_range_behind_the_end_is_refused(files: Both) -> None:
    for asked in ("bytes=11-", "bytes=-0"):
        files.call("GET", f"{ROOT}/d/a.txt", headers={"Range": asked}, compare_headers=("content-range",))


@pytest.mark.parametrize(
    ("asked", "theirs"), [("bytes=5-2", 400), ("lines=0-1", 400), ("bytes=a-b", 400), ("bytes=0-0,2-3", 206)]
)
def test_what_is_not_one_range_is_passed_over(files: Both, asked: str, theirs: int) -> None:
    why = "RFC 9110 lets a server pass over a Range it does not understand; several parts are nothing a client sends"
    answer = files.call(
        "GET", f"{ROOT}/d/a.txt", headers={"Range": asked}, deviation=Deviation((theirs, None), STORED, why)
    )
    assert answer.content == b"hello world"


def test_a_range_of_another_version_brings_the_whole(files: Both) -> None:
    files.call("GET", f"{ROOT}/d/a.txt", headers={"Range": "bytes=0-3", "If-Range": '"another"'})


@pytest.mark.parametrize("path", ["0/{run}/artifacts", "0/{run}/artifacts/d", "0/{run}/artifacts/d/", "0/{run}"])
def test_a_folder_is_listed(files: Both, path: str) -> None:
    files.call("GET", SERVICE, params={"path": path})
    files.call("GET", SERVICE.replace("/api/", "/ajax-api/"), params={"path": path})


@pytest.mark.parametrize("path", ["0/{run}/artifacts/d/a.txt", "0/{run}/artifacts/nothing", "nothing/at/all"])
def test_a_file_or_nothing_has_an_empty_listing(files: Both, path: str) -> None:
    answer = files.call("GET", SERVICE, params={"path": path})
    assert answer.body == {}


@pytest.mark.parametrize(
    "asked",
    [{}, {"path": ""}, {"path": "d"}, {"path": "d/"}, {"path": "d/a.txt"}, {"path": "nothing"}, {"page_token": "x"}],
)
def test_a_run_is_listed_with_paths_in_the_run(files: Both, asked: dict[str, str]) -> None:
    for prefix in ("/api", "/ajax-api"):
        for key in ("run_id", "run_uuid"):
            files.call("GET", f"{prefix}/2.0/mlflow/artifacts/list", params={key: "{run}", **asked})


@pytest.mark.parametrize(
    "asked",
    [
        {}, {"path": "d"}, {"run_id": ""}, {"run_id": "f" * 32}, {"run_id": "f" * 32, "path": "../x"},
        {"run_id": "{run}", "path": "../x"}, {"run_id": "{run}", "path": "/x"}, {"run_id": "{run}", "path": "a/../b"},
        {"run_id": "{run}", "path": "%2e%2e"},
    ],
)  # fmt: skip
def test_a_bad_request_for_a_listing_is_refused(files: Both, asked: dict[str, str]) -> None:
    files.call("GET", "artifacts/list", params=asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"path": "d/a.txt"}, {"run_id": "f" * 32, "path": "d/a.txt"}, {"run_id": "../x", "path": "d/a.txt"},
        {"run_id": "{run}", "path": "nothing"}, {"run_id": "{run}", "path": "d"}, {"run_id": "{run}", "path": ""},
        {"run_id": "{run}", "path": "../../x"}, {"run_id": "{run}", "path": "/etc/passwd"},
        {"run_id": "{run}", "path": "C:/x"}, {"run_id": "{run}", "path": "%2e%2e/x"},
    ],
)  # fmt: skip
def test_a_bad_request_for_a_file_of_a_run_is_refused(files: Both, asked: dict[str, str]) -> None:
    files.call("GET", "/get-artifact", params=asked)


def test_the_messages_about_runs_and_files_are_the_same(files: Both) -> None:
    files.call("GET", "artifacts/list", params={}, message=True)
    files.call("GET", "/get-artifact", params={"run_id": "f" * 32, "path": "x"}, message=True)
    files.call("GET", "/get-artifact", params={"run_id": "{run}", "path": "x"}, message=True)
    files.call("GET", f"{ROOT}/nothing", message=True)


def test_a_file_without_a_path_is_refused_in_json(files: Both) -> None:
    why = "MLflow answers a web page"
    files.call("GET", "/get-artifact", params={"run_id": "{run}"}, deviation=Deviation((400, None), INVALID, why))


@pytest.mark.parametrize("path", [f"{ROOT}/d", f"{ROOT}/", f"{SERVICE}/"])
def test_a_folder_is_no_download(files: Both, path: str) -> None:
    files.call("GET", path, deviation=Deviation((400, None), INVALID, "MLflow leaves the error code out here"))


def test_a_missing_file_is_not_found(files: Both) -> None:
    files.call("GET", f"{ROOT}/nothing")
    files.call("GET", f"{SERVICE}/loose/nothing")


def test_deleting_a_file_or_a_folder_or_nothing(files: Both) -> None:
    for path in ("d/a.txt", "d/a.txt", "nothing", "d/e"):
        files.call("DELETE", f"{ROOT}/{path}")
    files.call("GET", f"{ROOT}/d/a.txt")
    files.call("GET", f"{ROOT}/d/e/deep.bin")
    files.call("DELETE", ROOT)
    files.call("GET", "artifacts/list", params={"run_id": "{run}"})


def test_a_file_is_replaced(files: Both) -> None:
    files.call("PUT", f"{ROOT}/d/a.txt", content=b"newer")
    assert files.call("GET", f"{ROOT}/d/a.txt").content == b"newer"


def test_a_deleted_run_takes_and_gives_files(files: Both) -> None:
    files.call("POST", "runs/delete", json={"run_id": "{run}"})
    files.call("PUT", f"{ROOT}/late", content=b"1")
    files.call("GET", "artifacts/list", params={"run_id": "{run}"})
    files.call("GET", "/get-artifact", params={"run_id": "{run}", "path": "late"})


def test_what_belongs_to_no_run_is_stored_all_the_same(files: Both) -> None:
    name = files.unique("loose")
    for path in (f"{name}/x", f"0/{'f' * 32}/artifacts/{name}"):
        files.call("PUT", f"{SERVICE}/{path}", content=b"1")
        files.call("GET", f"{SERVICE}/{path}")
        files.call("DELETE", f"{SERVICE}/{path}")


@pytest.mark.parametrize(
    "path", ["%252e%252e/x", "a/%252e%252e/x", "..%252fx", "a%2523/../x", "a/..%2f..%2fx", "%2e%2e%2f%2e%2e%2fx"]
)
def test_a_path_that_climbs_is_refused(files: Both, path: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        files.call(method, f"{ROOT}/{path}", content=b"1" if method == "PUT" else None)


@pytest.mark.parametrize(
    ("path", "theirs", "ours", "why"),
    [
        ("d", (500, None), INVALID, "a folder is there: a mistake of the caller"),
        ("d/a.txt/below", (500, None), INVALID, "a file is there: a mistake of the caller"),
        ("", (400, None), INVALID, "MLflow leaves the error code out here"),
        ("a/%2e/b", (500, "INTERNAL_ERROR"), INVALID, "a mistake of the caller"),
        ("%2Fetc/x", (500, "INTERNAL_ERROR"), INVALID, "a mistake of the caller"),
        ("s" * 256, (500, None), INVALID, "no file system takes it"),
        ("x%2F%2Fb", STORED, INVALID, "two spellings of one place"),
        ("x%5Cb", STORED, INVALID, "a separator on the machine of whoever downloads it"),
        ("x%255Cb", STORED, INVALID, "encoded twice"),
        ("x%252Fb", STORED, INVALID, "encoded twice"),
        ("x%00b", STORED, INVALID, "MLflow stores it under another name (x%00b)"),
        ("C:/x", STORED, INVALID, "a drive on the machine of whoever downloads it"),
        ("x%FFb", STORED, INVALID, "not UTF-8: two names would become one"),
        ("x%23b", INVALID, STORED, "a hash is a letter, never parsed"),
        ("x%2523b", INVALID, STORED, "decoded once only"),
    ],
)
def test_names_are_taken_or_refused_by_one_rule(
    files: Both, *, path: str, theirs: tuple[int, str | None], ours: tuple[int, str | None], why: str
) -> None:
    closing = {"Connection": "close"}  # MLflow's server resets the connection after a 500
    files.call("PUT", f"{ROOT}/{path}", content=b"1", headers=closing, deviation=Deviation(theirs, ours, why))


@pytest.mark.parametrize("path", ["x%3Fb", "100%25", "50%25off.txt", "x;b", "%20lead", "x%2Fb", "~", ".hidden"])
def test_unusual_names_are_taken_by_both(files: Both, path: str) -> None:
    files.call("PUT", f"{ROOT}/{path}", content=b"1")
    files.call("GET", f"{ROOT}/{path}")
    files.call("GET", "artifacts/list", params={"run_id": "{run}"})
