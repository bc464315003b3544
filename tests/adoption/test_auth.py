"""Whoever names a run of the workspace needs the permission that they would need had it been here before."""

from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.auth.levels import Kind, Level
from runmirror.mirror.link import Link, write_link
from runmirror.settings import Settings
from tests.adoption.conftest import JOB
from tests.auth.conftest import guarding

API = "/api/2.0/mlflow"
POINT = {"run_id": JOB, "key": "loss", "value": 0.5, "timestamp": 5000}


async def test_a_run_of_the_workspace_is_for_whoever_may_read_or_write_experiments(
    azure_settings: Settings, engine: AsyncEngine, job: str
) -> None:
    async with engine.begin() as connection:
        assert azure_settings.azureml_workspace is not None
        await write_link(connection, Link(azure_settings.azureml_workspace))
    async with guarding(azure_settings, engine) as guarded:
        clients = {name: await guarded.client(name) for name in ("stranger", "reader", "editor")}
        admin = await guarded.client("admin", is_admin=True)
        for name, level in (("reader", Level.READ), ("editor", Level.EDIT)):
            await guarded.grant(name, Kind.EXPERIMENT, -1, level)

        async def code(client: httpx.AsyncClient, method: str, path: str, **more: Any) -> str:
            answer = await client.request(method, API + path, timeout=60, **more)
            assert "happy lion" not in answer.text or answer.status_code == 200
            return "done" if answer.status_code == 200 else str(answer.json()["error_code"])

        nobody = guarded.as_nobody()
        assert await code(nobody, "POST", "/runs/log-metric", json=POINT) == "UNAUTHENTICATED"
        denied = "PERMISSION_DENIED"
        # The first that names it, and has it made a run here, may be one who may not see it.
        for method, path, more, allowed in (
            ("POST", "/runs/log-metric", {"json": POINT}, {"editor"}),
            ("GET", f"/runs/get?run_id={JOB}", {}, {"reader", "editor"}),
            ("POST", "/runs/delete", {"json": {"run_id": JOB}}, set()),
        ):  # fmt: skip
            for name, client in clients.items():
                assert await code(client, method, path, **more) == ("done" if name in allowed else denied), (name, path)
        assert await code(admin, "POST", "/runs/log-metric", json=POINT) == "done"
        # An experiment that came that way is nobody's: an admin grants it, and the job's user needs no more than that.
        run = (await admin.get(f"{API}/runs/get", params={"run_id": JOB})).json()["run"]
        await guarded.grant("stranger", Kind.EXPERIMENT, int(run["info"]["experiment_id"]), Level.EDIT)
        made = {"experiment_id": job, "start_time": 1}
        assert await code(admin, "POST", "/runs/create", json=made) == "done"
        assert await code(clients["reader"], "POST", "/runs/create", json=made) == denied
