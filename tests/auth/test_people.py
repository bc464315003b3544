"""Users, roles and grants through MLflow's own client of its own server's."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
from click.testing import CliRunner

from runmirror.__main__ import main
from tests.auth.conftest import Guarded
from tests.server import clean_environment, serving

V2, V3 = "/api/2.0/mlflow", "/api/3.0/mlflow"

# Run apart from the test's own process, whose environment says nothing of a user.
PROGRAM = """
import json, os, sys, time, types
import mlflow
import mlflow.server
from mlflow.exceptions import MlflowException

# What get_app_client("basic-auth") gives. Its package begins with MLflow's own server, which needs more packages.
package = types.ModuleType("mlflow.server.auth")
package.__path__ = [os.path.join(os.path.dirname(mlflow.server.__file__), "auth")]
sys.modules["mlflow.server.auth"] = package
from mlflow.server.auth.client import AuthServiceClient

url, token = sys.argv[1:]
told = {}

def as_user(name, password):
    os.environ.pop("MLFLOW_TRACKING_TOKEN", None)
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = name, password

def as_admin():
    os.environ.pop("MLFLOW_TRACKING_USERNAME", None)
    os.environ.pop("MLFLOW_TRACKING_PASSWORD", None)
    os.environ["MLFLOW_TRACKING_TOKEN"] = token

def code_of(call, *args, **named):
    try:
        call(*args, **named)
    except MlflowException as error:
        return error.error_code
    return "done"

def soon(holds):
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)

mlflow.set_tracking_uri(url)
as_admin()
admin = AuthServiceClient(url)
password = "correct horse battery"
for name in ("ann", "bob"):
    assert admin.create_user(name, password).username == name
told["twice"] = code_of(admin.create_user, "ann", password)
told["short"] = code_of(admin.create_user, "eve", "password")
told["unknown"] = code_of(admin.get_user, "nobody")

as_user("ann", password)
experiment_id = mlflow.create_experiment("anns")
with mlflow.start_run(experiment_id=experiment_id) as run:
    mlflow.log_metric("loss", 0.5)
    mlflow.log_text("hello", "note.txt")
run_id = run.info.run_id
ann = AuthServiceClient(url)
told["ann makes users"] = code_of(ann.create_user, "eve", password)

as_user("bob", password)
told["bob reads"] = code_of(mlflow.get_run, run_id)
told["bob grants"] = code_of(ann.grant_user_permission, "bob", "experiment", experiment_id, "MANAGE")
told["bob finds"] = len(mlflow.search_runs([experiment_id]))

as_user("ann", password)
ann.grant_user_permission("bob", "experiment", experiment_id, "READ")
told["permission"] = ann.get_user_permission("bob", "experiment", experiment_id).permission
as_user("bob", password)
soon(lambda: code_of(mlflow.get_run, run_id) == "done")
told["bob finds later"] = len(mlflow.search_runs([experiment_id]))
told["bob writes"] = code_of(mlflow.MlflowClient().log_metric, run_id, "loss", 1.0)
told["bob downloads"] = mlflow.artifacts.load_text(f"runs:/{run_id}/note.txt")

as_user("ann", password)
ann.revoke_user_permission("bob", "experiment", experiment_id)
as_user("bob", password)
soon(lambda: code_of(mlflow.get_run, run_id) == "PERMISSION_DENIED")

as_admin()
role = admin.create_role("default", "team")
granted = admin.add_role_permission(role.id, "experiment", experiment_id, "READ")
assert admin.update_role_permission(granted.id, "EDIT").permission == "EDIT"
assert admin.assign_role("bob", role.id).role_id == role.id
told["roles"] = [one.name for one in admin.list_user_roles("bob")]
told["members"] = len(admin.list_role_users(role.id))
told["granted"] = [(one.resource_type, one.permission) for one in admin.list_role_permissions(role.id)]
as_user("bob", password)
soon(lambda: code_of(mlflow.MlflowClient().log_metric, run_id, "loss", 1.0) == "done")

as_admin()
admin.unassign_role("bob", role.id)
assert admin.update_role(role.id, description="x").description == "x"
admin.remove_role_permission(granted.id)
admin.delete_role(role.id)
told["left"] = [one.name for one in admin.list_all_roles()]
admin.update_user_admin("bob", True)
assert admin.get_user("bob").is_admin
admin.update_user_password("bob", "another good one")
admin.delete_user("ann")
as_user("ann", password)
soon(lambda: code_of(mlflow.get_run, run_id) == "UNAUTHENTICATED")
as_user("bob", "another good one")
told["bob is admin"] = code_of(mlflow.get_run, run_id)
print(json.dumps(told))
"""


def test_mlflows_own_client_of_users_and_permissions_works(tmp_path: Path, database_url: str) -> None:
    command = ["token", "create", "root", "--admin", "--backend-store-uri", database_url]
    token = CliRunner().invoke(main, command).output.strip()
    environment = {"RUNMIRROR_AUTH": "token", "RUNMIRROR_DATABASE_URL": database_url}
    with serving(tmp_path / "data", "--no-mirror", **environment) as server:
        program = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, server.url, token],
            env=clean_environment({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}),
            check=False, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert program.returncode == 0, program.stderr[-3000:]
        assert json.loads(program.stdout.splitlines()[-1]) == {
            "twice": "RESOURCE_ALREADY_EXISTS",
            "short": "INVALID_PARAMETER_VALUE",
            "unknown": "RESOURCE_DOES_NOT_EXIST",
            "ann makes users": "PERMISSION_DENIED",
            "bob reads": "PERMISSION_DENIED",
            "bob grants": "PERMISSION_DENIED",
            "bob finds": 0,
            "permission": "READ",
            "bob finds later": 1,
            "bob writes": "PERMISSION_DENIED",
            "bob downloads": "hello",
            "roles": ["everyone", "team"],
            "members": 1,
            "granted": [["experiment", "EDIT"]],
            "left": ["everyone"],
            "bob is admin": "done",
        }
    for secret in (token, "correct horse battery", "another good one"):
        assert secret not in server.log.read_text()


async def test_nobody_gives_themselves_what_they_have_not(guarded: Guarded) -> None:
    admin = await guarded.client("root", is_admin=True)
    ann = await guarded.client("ann")
    await guarded.client("bob")
    refused: list[tuple[str, str, dict[str, object]]] = [
        ("PATCH", f"{V2}/users/update-admin", {"username": "ann", "is_admin": True}),
        ("PATCH", f"{V2}/users/update-password", {"username": "bob", "password": "x" * 12}),
        ("DELETE", f"{V2}/users/delete", {"username": "bob"}),
        ("GET", f"{V2}/users/get?username=bob", {}),
        ("GET", f"{V2}/users/list", {}),
        ("GET", f"{V3}/roles/list", {}),
        ("POST", f"{V3}/roles/assign", {"username": "ann", "role_id": 1}),
        ("GET", f"{V3}/users/roles/list?username=bob", {}),
        ("GET", f"{V3}/users/permissions/list?username=bob", {}),
        *(
            ("POST", f"{V3}/users/permissions/grant", {
                "username": "ann", "resource_type": kind, "resource_id": of, "permission": "MANAGE"})
            for kind, of in (("experiment", "0"), ("experiment", "*"), ("registered_model", "*"))
        ),
    ]  # fmt: skip
    for method, path, body in refused:
        for way in (path, path.replace("/api/", "/ajax-api/", 1)):
            answer = await ann.request(method, way, json=body or None)
            assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED"), (way, answer.text)
    assert (await ann.get(f"{V2}/users/current")).json()["user"]["username"] == "ann"
    own = {"username": "ann", "password": "long enough at last"}
    assert (await ann.patch(f"{V2}/users/update-password", json=own)).status_code == 200
    again = {**own, "password": "another long one"}
    assert (await ann.patch(f"{V2}/users/update-password", json=again)).status_code == 400
    assert (
        await ann.patch(f"{V2}/users/update-password", json={**again, "current_password": own["password"]})
    ).status_code == 200
    for wrong in (
        {"username": "ann", "resource_type": "gateway_secret", "resource_id": "1", "permission": "READ"},
        {"username": "ann", "resource_type": "experiment", "resource_id": "0", "permission": "ALL"},
    ):
        assert (await admin.post(f"{V3}/users/permissions/grant", json=wrong)).status_code == 400
    assert (await admin.request("DELETE", f"{V3}/roles/delete", json={"role_id": 1})).status_code == 400
    tries = [
        guarded.as_nobody().get(f"{V2}/users/current", auth=httpx.BasicAuth("ann", password))
        for password in ("another long one", "long enough at last", "")
    ]
    answers = await asyncio.gather(*tries)
    assert [answer.status_code for answer in answers] == [200, 401, 401]
