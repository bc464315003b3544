"""Users, roles and grants through MLflow's own client of its own server's."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
from click.testing import CliRunner
from sqlalchemy import text

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


async def test_clients_older_than_roles_permit_one_user_one_experiment_or_model(guarded: Guarded) -> None:
    """As the client of mlflow 2.22 sends it; it was run against its own server and ours, with the same outcome."""
    admin, ann = await guarded.client("root", is_admin=True), await guarded.client("ann")
    bob = await guarded.client("bob")
    made = await ann.post(f"{V2}/experiments/create", json={"name": "anns"})
    experiment_id = made.json()["experiment_id"]
    assert (await ann.post(f"{V2}/registered-models/create", json={"name": "model"})).status_code == 200
    for what, key, noun in (
        ("experiments", {"experiment_id": experiment_id}, "experiment_permission"),
        ("registered-models", {"name": "model"}, "registered_model_permission"),
    ):

        async def call(
            client: httpx.AsyncClient, method: str, verb: str, what: str = what, key: dict[str, str] = key, **more: str
        ) -> httpx.Response:
            told = {**key, "username": "bob", **more}
            path = f"{V2}/{what}/permissions/{verb}"
            return await client.request(method, path, **({"params": told} if method == "GET" else {"json": told}))

        assert (await call(ann, "GET", "get")).json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
        assert (await call(ann, "PATCH", "update", permission="READ")).status_code == 404
        assert (await call(bob, "POST", "create", permission="MANAGE")).status_code == 403
        assert (await call(ann, "POST", "create", permission="ALL")).json()["error_code"] == "INVALID_PARAMETER_VALUE"
        granted = (await call(ann, "POST", "create", permission="READ")).json()[noun]
        assert granted == {**key, "user_id": granted["user_id"], "permission": "READ"}
        again = await call(ann, "POST", "create", permission="EDIT")
        assert again.json()["error_code"] == "RESOURCE_ALREADY_EXISTS"
        assert (await call(ann, "PATCH", "update", permission="EDIT")).json() == {}
        assert (await call(ann, "GET", "get")).json()[noun]["permission"] == "EDIT"
        assert (await call(bob, "GET", "get")).status_code == 403, "only managers may see it"
        user = (await admin.get(f"{V2}/users/get?username=bob")).json()["user"]
        assert [one["permission"] for one in user[f"{noun}s"]] == ["EDIT"]
        assert (await call(ann, "DELETE", "delete")).json() == {}
        assert (await call(ann, "DELETE", "delete")).status_code == 404
    # A model that is called like all of them gives its manager none but itself.
    await ann.post(f"{V2}/registered-models/create", json={"name": "*"})
    every = {"name": "*", "username": "bob", "permission": "MANAGE"}
    assert (await ann.post(f"{V2}/registered-models/permissions/create", json=every)).status_code == 403


async def test_every_change_of_who_may_what_stands_in_the_audit_log(guarded: Guarded) -> None:
    admin = await guarded.client("root", is_admin=True)

    async def call(method: str, path: str, **body: object) -> dict[str, dict[str, object]]:
        answer = await admin.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async with guarded.engine.begin() as connection:
        await connection.execute(text("DELETE FROM audit_log"))
    await call("POST", f"{V2}/users/create", username="eve", password="long enough at last")
    await call("PATCH", f"{V2}/users/update-admin", username="eve", is_admin=True)
    await call("PATCH", f"{V2}/users/update-admin", username="eve", is_admin=False)
    await call("PATCH", f"{V2}/users/update-password", username="eve", password="another long one")
    token = await call("POST", "/api/runmirror/v1/tokens", user="eve")
    await call("DELETE", f"/api/runmirror/v1/tokens/{token['token_id']}")
    to = {"username": "eve", "resource_type": "experiment", "resource_id": "0"}
    await call("POST", f"{V3}/users/permissions/grant", **to, permission="READ")
    await call("POST", f"{V3}/users/permissions/revoke", **to)
    role = (await call("POST", f"{V3}/roles/create", name="team"))["role"]["id"]
    everything = {"role_id": role, "resource_type": "registered_model", "resource_pattern": "*", "permission": "EDIT"}
    grant = (await call("POST", f"{V3}/roles/permissions/add", **everything))["role_permission"]["id"]
    await call("PATCH", f"{V3}/roles/permissions/update", role_permission_id=grant, permission="DENY")
    await call("POST", f"{V3}/roles/assign", username="eve", role_id=role)
    await call("DELETE", f"{V3}/roles/unassign", username="eve", role_id=role)
    await call("DELETE", f"{V3}/roles/permissions/remove", role_permission_id=grant)
    await call("PATCH", f"{V3}/roles/update", role_id=role, name="crew")
    await call("DELETE", f"{V3}/roles/delete", role_id=role)
    await call("DELETE", f"{V2}/users/delete", username="eve")
    refused = await admin.request("DELETE", f"{V2}/users/delete", json={"username": "eve"})
    assert refused.status_code == 404
    async with guarded.engine.connect() as connection:
        rows = (await connection.execute(text("SELECT action, subject, caller FROM audit_log ORDER BY entry_id"))).all()
    assert {row.caller for row in rows} == {"root"}
    assert [(row.action, row.subject) for row in rows] == [
        ("user.create", "eve"), ("user.admin", "eve"), ("user.no_admin", "eve"), ("user.password", "eve"),
        ("token.create", f"{token['prefix']} of eve"), ("token.revoke", f"{token['prefix']} of eve"),
        ("permission.grant", "READ of experiment 0 to eve"), ("permission.revoke", "experiment 0 from eve"),
        ("role.create", "team"), ("permission.grant", "EDIT of every registered_model to team"),
        ("permission.grant", "DENY of every registered_model to team"), ("role.assign", "team to eve"),
        ("role.unassign", "team from eve"), ("permission.revoke", "every registered_model from team"),
        ("role.update", f"{role} crew"), ("role.delete", "crew"), ("user.delete", "eve"),
    ]  # fmt: skip
