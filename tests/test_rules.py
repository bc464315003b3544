"""Rules that are worth stating and cheap to check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI

from runmirror.app import create_app
from runmirror.routing import check_permissions, routes_of
from runmirror.settings import Settings
from tests.conftest import LONG

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "server" / "runmirror"
EMULATOR = REPOSITORY / "server" / "azureml_emulator"


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def importers(folder: Path, *names: str) -> Iterator[str]:
    for file in sorted(folder.rglob("*.py")):
        if any(name == wanted or name.startswith(wanted + ".") for name in imports(file) for wanted in names):
            yield str(file.relative_to(folder))


def test_product_and_emulator_do_not_know_each_other() -> None:
    assert list(importers(PACKAGE, "azureml_emulator")) == []
    assert list(importers(EMULATOR, "runmirror")) == []


def test_only_blob_speaks_to_azure_storage_and_only_the_mirror_to_azure_identity() -> None:
    assert list(importers(PACKAGE, "azure.storage")) == ["artifacts/blob.py", "artifacts/blob_direct.py"]
    allowed = {"artifacts/blob.py", "artifacts/blob_direct.py", "artifacts/blob_errors.py"}
    strays = {file for file in importers(PACKAGE, "azure.identity", "azure.core") if not file.startswith("mirror/")}
    assert strays <= allowed


def test_server_and_worker_never_import_unpickle_or_unpack_an_artifact() -> None:
    """The demo is a client: it trains and logs a model, so it may use what clients use. `score.py` never runs here."""
    dangerous = importers(
        PACKAGE, "pickle", "cloudpickle", "joblib", "tarfile", "zipfile", "shelve", "marshal", "yaml", "mlflow"
    )
    # The file store's own metadata, by a safe loader, in a command of its own.
    allowed = {"deployments/score.py", "importing/file_store.py"}
    assert {file for file in dangerous if not file.startswith("demo/")} == allowed
    assert list(importers(PACKAGE, "runmirror.deployments.score", "runmirror.deployments.azureml_program")) == []


def test_entities_errors_and_settings_import_nothing_of_ours() -> None:
    for name in ("entities.py", "errors.py", "settings.py"):
        assert not any(module.startswith("runmirror") for module in imports(PACKAGE / name)), name


def test_statements_are_put_together_at_import_and_never_while_a_request_is_answered() -> None:
    """What SQL of ours has braces in it (bandit's B608) gets its parts from constants: no request is there yet."""
    makers = {"_fenced", "_fenced_and_shown", "_list"}  # called at import
    found, called = set(), set()
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
                names = [(call, call.func.id) for call in calls if isinstance(call.func, ast.Name)]
                found |= {
                    function.name for call, name in names if name == "text" and isinstance(call.args[0], ast.JoinedStr)
                }
                if function.name not in makers:
                    called |= {name for _, name in names if name in makers and file.parent.name == "mirror"}
    assert found == makers
    assert called == set()


def test_a_route_without_a_permission_stops_the_start() -> None:
    router = APIRouter()

    @router.get("/open-door")
    async def open_door() -> str:
        return "come in"

    app = FastAPI()
    app.include_router(router)
    with pytest.raises(RuntimeError, match="/open-door declares no permission"):
        check_permissions(app)


def test_every_mlflow_route_has_its_ajax_twin(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path), "postgresql://nowhere/none")
    paths = {context.path for context in routes_of(app)}
    assert {"/metrics", "/mirror", "/livez"} <= paths, "whatever checks routes sees all of them"
    served = {path for path in paths if path.startswith(("/api/2.0/", "/api/3.0/"))}
    assert served
    assert {path.replace("/api/", "/ajax-api/", 1) for path in served} <= paths


def test_every_setting_stands_in_its_page_with_its_environment_name() -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    names = {f"RUNMIRROR_{name.upper()}" for name in Settings.model_fields if not name.startswith("azure_storage")}
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_every_promise_of_the_readme_has_its_test() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    promises = re.findall(r"^\| (\d+)\. .*\| `(test_\w+)` \|$", readme, re.MULTILINE)
    assert [int(number) for number, _ in promises] == list(range(1, 11))
    tests = {
        node.name
        for file in (REPOSITORY / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name for _, name in promises if name not in tests} == set()


def test_the_server_does_not_listen_beyond_loopback_without_authentication() -> None:
    with pytest.raises(ValueError, match="refusing to listen"):
        Settings(host="0.0.0.0")
    assert Settings(host="0.0.0.0", insecure_no_auth=True).host == "0.0.0.0"


def test_every_operation_of_the_openapi_document_has_an_id_of_its_own(tmp_path: Path) -> None:
    document = create_app(Settings(data_dir=tmp_path), "postgresql://nowhere/none").openapi()
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) > 140
    assert sorted(ids) == sorted(set(ids))


def test_the_files_that_begin_first_are_there() -> None:
    assert [name for name in LONG if not (REPOSITORY / "tests" / name).is_file()] == []
    assert len(LONG) == len(set(LONG))
