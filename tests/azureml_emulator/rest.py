"""The workspace's services by raw HTTP, as short as tests want to say it."""

from dataclasses import dataclass
from typing import Any

import httpx

from tests.azureml_emulator.process import EmulatorProcess

BLOCK_BLOB = {"x-ms-blob-type": "BlockBlob"}
Json = dict[str, Any]


@dataclass(frozen=True)
class Rest:
    emulator: EmulatorProcess
    client: httpx.Client
    token: str

    def call(self, method: str, service: str, path: str, **options: Any) -> httpx.Response:
        """Ask one service of the regional host, such as `history/v1.0`."""
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        url = f"{self.emulator.api_url}/{service}{self.emulator.workspace_id}{path}"
        return self.client.request(method, url, headers=headers, **options)

    def post(self, path: str, body: Json) -> httpx.Response:
        return self.call("POST", "mlflow/v2.0", f"/api/2.0/mlflow{path}", json=body)

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.call("GET", "mlflow/v2.0", f"/api/2.0/mlflow{path}", params=query)

    def history(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.call(method, "history/v1.0", path, **options)

    def artifact(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.call(method, "artifact/v2.0", path, **options)

    def metric(self, path: str, body: Json) -> httpx.Response:
        return self.call("POST", "metric/v2.0", path, json=body)

    def experiment(self, name: str = "demo") -> str:
        return str(self.post("/experiments/create", {"name": name}).raise_for_status().json()["experiment_id"])

    def run(self, experiment_id: str | None = None, **members: Any) -> Json:
        """Create a run and return its info."""
        body = {"experiment_id": experiment_id or self.experiment(), "start_time": 1, **members}
        info: Json = self.post("/runs/create", body).raise_for_status().json()["run"]["info"]
        return info

    def log_batch(self, run: Json, **members: Any) -> httpx.Response:
        return self.post("/runs/log-batch", {"run_id": run["run_id"], **members})

    def artifacts_of(self, run: Json) -> str:
        return f"/experiments/{run['experiment_id']}/runs/{run['run_id']}/artifacts"

    def register(self, run: Json, *paths: str) -> Json:
        """Register artifact paths and return the three maps of the answer."""
        body = {"paths": [{"path": path} for path in paths]}
        answer = self.history("POST", self.artifacts_of(run) + "/batch/metadata", json=body)
        maps: Json = answer.raise_for_status().json()
        return maps

    def write_url(self, run: Json, path: str) -> str:
        return str(self.register(run, path)["artifactContentInformation"][path]["contentUri"])

    def read_url(self, run: Json, path: str) -> str:
        answer = self.history("GET", self.artifacts_of(run) + "/contentinfo", params={"path": path})
        return str(answer.raise_for_status().json()["contentUri"])

    def put(self, url: str, content: bytes, **headers: str) -> httpx.Response:
        return self.client.put(url, content=content, headers={**BLOCK_BLOB, **headers})


def points(key: str, count: int) -> list[Json]:
    return [{"key": key, "value": float(step), "timestamp": step, "step": step} for step in range(count)]


def pairs(prefix: str, count: int) -> list[Json]:
    return [{"key": f"{prefix}{number}", "value": str(number)} for number in range(count)]


def stored_run(emulator: EmulatorProcess, run: Json) -> Json:
    """The run as it stands in the emulator."""
    found: list[Json] = [stored for stored in emulator.state()["runs"] if stored["run_id"] == run["run_id"]]
    return found[0]
