"""The pages' files, the headers of every answer, and the static prefix."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from asgi_lifespan import LifespanManager
from click.testing import CliRunner

from runmirror.__main__ import main
from runmirror.app import create_app
from runmirror.settings import Settings
from runmirror.ui import folder


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    assert settings.database_url is not None
    async with LifespanManager(create_app(settings, settings.database_url)) as manager:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


def changed(settings: Settings, **fields: object) -> Settings:
    return Settings(**(settings.model_dump() | fields))


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder of pages: an index, a file whose name holds its hash, and one whose name does not."""
    found = tmp_path / "pages"
    (found / "static" / "js").mkdir(parents=True)
    (found / "index.html").write_text("<!doctype html>hello", encoding="utf-8")
    (found / "static" / "js" / "main.c2f5f8d4.js").write_text("go()", encoding="utf-8")
    (found / "favicon.ico").write_bytes(b"icon")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    return found


async def test_the_index_is_never_kept_and_hashed_files_are_kept_for_ever(settings: Settings, pages: Path) -> None:
    async with serving(changed(settings, ui_dir=pages)) as client:
        index = await client.get("/")
        assert (index.status_code, index.text) == (200, "<!doctype html>hello")
        assert index.headers["content-type"].startswith("text/html")
        assert index.headers["cache-control"] == "no-store"
        script = await client.get("/static-files/static/js/main.c2f5f8d4.js")
        assert script.headers["content-type"].startswith("text/javascript")
        assert "immutable" in script.headers["cache-control"]
        icon = await client.get("/static-files/favicon.ico")
        assert (icon.headers["content-type"], icon.headers["cache-control"]) == ("image/x-icon", "no-cache")


async def test_a_browser_that_has_a_file_gets_304_and_head_gets_no_body(settings: Settings, pages: Path) -> None:
    async with serving(changed(settings, ui_dir=pages)) as client:
        tag = (await client.get("/static-files/favicon.ico")).headers["etag"]
        again = await client.get("/static-files/favicon.ico", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        head = await client.head("/")
        assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "missing.js", "../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "%2fetc%2fpasswd", "static/js", "",
        "//etc/passwd",
    ],
)  # fmt: skip
async def test_only_files_of_the_folder_are_served(settings: Settings, pages: Path, path: str) -> None:
    async with serving(changed(settings, ui_dir=pages)) as client:
        answer = await client.get(f"/static-files/{path}")
        assert (answer.status_code, answer.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")


async def test_without_pages_the_root_says_how_to_get_them(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "find_spec", lambda _: None)  # a machine without the package `mlflow`
    async with serving(settings) as client:
        answer = await client.get("/")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")
        assert "pip install 'runmirror[ui]'" in answer.text
        assert (await client.get("/static-files/index.html")).status_code == 404


async def test_the_pages_of_the_installed_mlflow_are_found_without_importing_it(settings: Settings) -> None:
    async with serving(settings) as client:
        assert "<title>MLflow</title>" in (await client.get("/")).text


def test_a_folder_without_an_index_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no index\.html"):
        Settings(ui_dir=tmp_path)


async def test_every_answer_forbids_guessing_types_and_being_framed(settings: Settings) -> None:
    async with serving(settings) as client:
        for path in ("/", "/health", "/api/2.0/mlflow/experiments/get", "/nonsense"):
            answer = await client.get(path)
            assert answer.headers["x-content-type-options"] == "nosniff", path
            assert answer.headers["x-frame-options"] == "SAMEORIGIN", path
        notebook = await client.get("/static-files/lib/notebook-trace-renderer/index.html")
        assert notebook.status_code == 200
        assert "x-frame-options" not in notebook.headers
    async with serving(changed(settings, x_frame_options="none")) as client:
        assert "x-frame-options" not in (await client.get("/")).headers


async def test_everything_lies_below_the_prefix_and_nothing_beside_it(settings: Settings) -> None:
    async with serving(changed(settings, static_prefix="/kiln/")) as client:
        for path in ("/", "/health", "/version", "/livez", "/get-artifact", "/static-files/favicon.ico",
                     "/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info",
                     "/api/2.0/mlflow-artifacts/artifacts", "/api/runmirror/v1/mirror"):  # fmt: skip
            below = await client.get(f"/kiln{path}")
            assert below.status_code == (400 if path == "/get-artifact" else 200), path
        assert (await client.post("/kiln/graphql", json={"query": "{__typename}"})).status_code == 200
        for path in ("/", "/api/3.0/mlflow/server-info", "/graphql", "/get-artifact", "/kilnx/health", "/kiln2"):
            assert (await client.get(path)).status_code == 404, path
        slash = await client.get("/kiln")
        assert (slash.status_code, slash.headers["location"]) == (308, "/kiln/")


async def test_probes_answer_without_the_prefix_too(settings: Settings) -> None:
    async with serving(changed(settings, static_prefix="/kiln")) as client:
        for path in ("/health", "/version", "/livez", "/readyz"):
            assert (await client.get(path)).status_code == 200, path


@pytest.mark.parametrize("prefix", ["kiln", "/a b", "/{x}", "//x", "/a//b", "/a?b"])
def test_a_prefix_that_is_no_path_stops_the_start(prefix: str) -> None:
    with pytest.raises(ValueError, match="is not a path"):
        Settings(static_prefix=prefix)


def test_the_prefix_is_a_flag_and_mlflows_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_STATIC_PREFIX", "/theirs")
    assert Settings().static_prefix == "/theirs"
    monkeypatch.setenv("RUNMIRROR_STATIC_PREFIX", "/ours")
    assert Settings().static_prefix == "/ours"
    refused = CliRunner().invoke(main, ["serve", "--static-prefix", "no-path"])
    assert refused.exit_code == 1
    assert "static_prefix" in refused.output
