"""A real server process: raw targets, broken connections, memory, and the unmodified mlflow client."""

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import mlflow
import pytest
import requests
from mlflow.artifacts import download_artifacts
from mlflow.tracking import MlflowClient

from runmirror.artifacts.safe_path import RESERVED
from runmirror.settings import Settings
from tests.artifacts.live import Live, live_server
from tests.artifacts.test_multipart import MULTIPART
from tests.artifacts.test_presigned import DOWNLOAD, PRESIGNED, UPLOAD
from tests.artifacts.test_routes import SERVICE

MEBIBYTE = 1024**2
DEADLINE_S = 30

# Field notes, section C1: each is sent as the rest of a URL, and as the value of `path=`.
TRICKS = [
    "../../../../etc/passwd", "..%2f..%2f..%2fetc/passwd", "%2e%2e/%2e%2e/etc/passwd", "%2E%2E%2F%2E%2E%2Fetc",
    "%252e%252e%252fetc", "%252E%252E/x", "%25252e%25252e/x", "a/../../x", "a/%2e%2e/%2e%2e/x", "./x", "a/./x", "%2e/x",
    "%2Fetc/passwd", "//etc/passwd", "a//x", "C:/Windows/x", "C%3A%5CWindows", "c:x", "..%5c..%5cx", "..%255c..%255cx",
    "%5c%5chost%5cshare", "a%00b", "a%00/../x", "a%0d", "a%01b", "a%7fb", "a%2500b", "%ff", "%c0%ae%c0%ae/x",
    "a%ef%bf%bdb", RESERVED + "/x", "%2euploads/x", ".UPLOADS/x", "s" * 256, "/".join(["segment"] * 130),
]  # fmt: skip

# What a multipart upload says its file is called at the client.
BAD_NAMES = [
    "..", ".", "", "/", "a/..", "C:", "C:\\..", "a\\b", "\0", "%2e%2e", "%252e", "s" * 256, "\ud800", RESERVED,
]  # fmt: skip


@pytest.fixture
def live(settings: Settings, tmp_path: Path) -> Iterator[Live]:
    with live_server(settings, tmp_path) as made:
        yield made


@pytest.fixture
def run_id(live: Live) -> str:
    answer = httpx.post(f"{live.url}/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}, trust_env=False)
    made: str = answer.json()["run"]["info"]["run_id"]
    return made


def listed(live: Live, path: str = "") -> list[str]:
    answer = httpx.get(live.url + SERVICE, params={"path": path}, trust_env=False)
    return [file["path"] for file in answer.json().get("files", [])]


def test_no_trick_reaches_another_place(live: Live, run_id: str, tmp_path: Path) -> None:
    assert live.raw("PUT", f"{SERVICE}/0/{run_id}/artifacts/kept", b"kept")[0] == 200
    run = f"run_id={run_id}"
    part = json.dumps({"path": "f", "num_parts": 1, "upload_id": "x", "parts": [{"part_number": 1}]})
    for trick in TRICKS:
        of_run = json.dumps({"run_id": run_id, "path": unquote(trick)})
        reserved = RESERVED in trick.lower().replace("%2e", ".")
        for method, target, sent in (
            ("PUT", f"{SERVICE}/{trick}", "planted"),
            ("GET", f"{SERVICE}/{trick}", ""),
            ("HEAD", f"{SERVICE}/{trick}", ""),
            ("DELETE", f"{SERVICE}/{trick}", ""),
            ("GET", f"{SERVICE}?path={trick}", ""),
            ("GET", f"/get-artifact?{run}&path={trick}", ""),
            ("GET", f"/api/2.0/mlflow/artifacts/list?{run}&path={trick}", ""),
            ("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run_id}&path={trick}", "planted"),
            ("GET", f"{PRESIGNED}/{trick}", ""),
            ("POST", f"{MULTIPART}/create/{trick}", part),
            ("POST", f"{MULTIPART}/complete/{trick}", part),
            ("POST", f"{MULTIPART}/abort/{trick}", part),
            ("POST", DOWNLOAD, of_run),
            ("POST", UPLOAD, of_run),
        ):
            if reserved and run_id in target + sent:
                continue  # reserved at the top of the store only, and this is below a run
            for alias in {target, target.replace("/api/", "/ajax-api/", 1)}:
                kind = "application/json" if sent.startswith("{") else ""
                status, body = live.raw(method, alias, sent.encode(), kind)
                assert status == 400, (method, alias, sent, status, body)
                assert method == "HEAD" or b"INVALID_PARAMETER_VALUE" in body, (method, alias, body)
    for name in BAD_NAMES:
        for step in ("create", "complete", "abort"):
            folder = "" if name == RESERVED else "x"
            sent = json.dumps({"path": name, "num_parts": 1, "upload_id": "x", "parts": [{"part_number": 1}]})
            status, body = live.raw("POST", f"{MULTIPART}/{step}/{folder}", sent.encode(), "application/json")
            assert (status, b"INVALID_PARAMETER_VALUE" in body) == (400, True), (step, name, body)
    assert listed(live) == ["0"]
    assert listed(live, f"0/{run_id}/artifacts") == ["kept"]
    assert not [found for found in tmp_path.rglob("*") if found.is_file() and b"planted" in found.read_bytes()]
    assert live.log.read_text() == ""


def test_a_question_mark_or_hash_in_a_name_is_a_letter(live: Live, run_id: str) -> None:
    for name, target in (("a?", "a%3F/a"), ("b#", "b%23/%2e%2e%23"), ("c?", "c%3F..%2Fx")):
        assert live.raw("PUT", f"{SERVICE}/0/{run_id}/artifacts/{target}", b"1")[0] == 200, name
    assert listed(live, f"0/{run_id}/artifacts") == ["a?", "b#", "c?.."]


def test_a_connection_that_breaks_in_mid_upload_leaves_nothing(
    live: Live, run_id: str, settings: Settings, tmp_path: Path
) -> None:
    head = (
        f"PUT {SERVICE}/0/{run_id}/artifacts/f HTTP/1.1\r\nHost: localhost\r\nContent-Length: {20 * MEBIBYTE}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        connection.sendall(head.encode() + b"x" * 19 * MEBIBYTE)
    uploads = Path(settings.artifact_root) / RESERVED
    deadline = time.monotonic() + DEADLINE_S
    while uploads.is_dir() and list(uploads.iterdir()) and time.monotonic() < deadline:
        live.raw("GET", "/health")  # the server has other work meanwhile
    assert not uploads.is_dir() or list(uploads.iterdir()) == []
    assert listed(live) == []
    assert live.raw("PUT", f"{SERVICE}/0/{run_id}/artifacts/f", b"whole")[0] == 200
    assert live.raw("GET", f"{SERVICE}/0/{run_id}/artifacts/f") == (200, b"whole")
    assert live.log.read_text() == ""


def test_a_client_that_hangs_up_in_mid_download_leaves_nothing_open(live: Live, run_id: str) -> None:
    target = f"{SERVICE}/0/{run_id}/artifacts/f"
    assert live.raw("PUT", target, b"x" * 20 * MEBIBYTE)[0] == 200
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(MEBIBYTE).startswith(b"HTTP/1.1 200")
    deadline = time.monotonic() + DEADLINE_S
    while _has_open(live, "/artifacts/f") and time.monotonic() < deadline:
        live.raw("GET", "/health")  # the server has other work meanwhile
    assert not _has_open(live, "/artifacts/f")
    assert live.log.read_text() == ""


def _has_open(live: Live, end: str) -> bool:
    opened = []
    for descriptor in Path(f"/proc/{live.child.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            opened.append(str(descriptor.readlink()))
    return any(name.endswith(end) for name in opened)


def test_memory_does_not_grow_with_a_file(live: Live, run_id: str) -> None:
    block = os.urandom(MEBIBYTE)
    sent, got = hashlib.md5(), hashlib.md5()
    peak = 0

    def body() -> Iterator[bytes]:
        nonlocal peak
        for _ in range(300):
            sent.update(block)
            yield block
            peak = max(peak, live.resident_bytes())

    address = f"{live.url}{SERVICE}/0/{run_id}/artifacts/f"
    with httpx.Client(trust_env=False, timeout=120) as client:
        assert client.put(f"{address}-small", content=block * 20).status_code == 200  # what is loaded at first use
        assert len(client.get(f"{address}-small").content) == 20 * MEBIBYTE
        before = live.resident_bytes()
        answer = client.put(address, content=body(), headers={"Content-Length": str(300 * MEBIBYTE)})
        assert answer.status_code == 200, answer.text
        with client.stream("GET", address) as download:
            for chunk in download.iter_raw(MEBIBYTE):
                got.update(chunk)
                peak = max(peak, live.resident_bytes())
    assert got.digest() == sent.digest()
    assert peak - before < 64 * MEBIBYTE


def test_the_mlflow_client_logs_lists_and_loads_artifacts(live: Live, tmp_path: Path) -> None:
    client = MlflowClient(live.url)
    run = client.create_run("0").info.run_id
    files = {"top.txt": b"text", "d/é b.bin": os.urandom(2 * MEBIBYTE), "d/e/50%off.txt": b"", "d/f": b"1"}
    source = tmp_path / "source"
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    client.log_artifacts(run, str(source))
    client.log_artifact(run, str(source / "top.txt"), "logged/again")
    client.log_dict(run, {"a": 1}, "config.json")
    assert [(file.path, file.is_dir, file.file_size) for file in client.list_artifacts(run)] == [
        ("config.json", False, 12), ("d", True, None), ("logged", True, None), ("top.txt", False, 4),
    ]  # fmt: skip
    assert [file.path for file in client.list_artifacts(run, "d")] == ["d/e", "d/f", "d/é b.bin"]
    assert client.list_artifacts(run, "top.txt") == []
    whole = Path(client.download_artifacts(run, "", str(tmp_path)))
    for name, data in files.items():
        assert (whole / name).read_bytes() == data, name
    assert (whole / "logged/again/top.txt").read_bytes() == b"text"
    with mlflow.utils.file_utils.TempDir() as there:
        one = download_artifacts(run_id=run, artifact_path="d/f", dst_path=there.path(), tracking_uri=live.url)
        assert Path(one).read_bytes() == b"1"
    repository = mlflow.store.artifact.artifact_repository_registry.get_artifact_repository(
        client.get_run(run).info.artifact_uri, tracking_uri=live.url
    )
    repository.delete_artifacts("d")
    assert [file.path for file in client.list_artifacts(run)] == ["config.json", "logged", "top.txt"]
    with pytest.raises(Exception, match="nothing"):
        client.download_artifacts(run, "nothing", str(tmp_path))


def test_the_mlflow_client_moves_large_files_itself_where_it_can(
    live: Live, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true",
        "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "100000", "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": "60000",
        "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": "70000",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    asked: list[tuple[str, str]] = []
    request = requests.Session.request

    def noted(session: requests.Session, method: str, url: str, *rest: Any, **more: Any) -> requests.Response:
        asked.append((method, urlsplit(url).netloc))
        return request(session, method, url, *rest, **more)

    monkeypatch.setattr(requests.Session, "request", noted)
    client = MlflowClient(live.url)
    run = client.create_run("0").info.run_id
    large, small = tmp_path / "large é.bin", tmp_path / "small"
    large.write_bytes(os.urandom(200_000))
    small.write_bytes(b"1")
    client.log_artifact(run, str(large), "d")
    client.log_artifact(run, str(small))
    assert [(file.path, file.file_size) for file in client.list_artifacts(run, "d")] == [("d/large é.bin", 200_000)]
    (tmp_path / "back").mkdir()
    back = Path(client.download_artifacts(run, "d/large é.bin", str(tmp_path / "back")))
    assert back.read_bytes() == large.read_bytes()
    here = urlsplit(live.url).netloc
    directly = {method.upper() for method, host in asked if host != here}
    assert directly == ({"PUT", "GET"} if settings.azure_storage_connection_string else set())
