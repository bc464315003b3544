"""Deployed models that really answer: each is loaded by a process of its own, as the container would, and asked there.

Only with `--score`: it runs what was uploaded.
"""

import asyncio
import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from azureml_emulator import registry, services
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import AzureError, NotFound, Unauthorized
from azureml_emulator.state import ModelVersion

PROGRAM = Path(__file__).with_name("score_program.py")
LIMIT = 64 * 1024**2


class NotReady(AzureError):
    status, code = 502, "NotReady"


class ScoringFailed(AzureError):
    """The script raised; its message is in the answer, as the inference server gives it."""

    status, code = 500, "ScoringFailed"


class Scorer:
    """A process with the model in it."""

    def __init__(self, folder: Path, script: Path | None) -> None:
        self._folder = folder
        self._script = script
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def ask(self, body: str) -> object:
        async with self._turn:
            if self._process is None:
                self._process = await self._start()
            process = self._process
            assert process.stdin is not None  # noqa: S101 - it was asked for
            assert process.stdout is not None  # noqa: S101
            process.stdin.write(json.dumps(body).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
            if not line:
                self._process = None
                raise ScoringFailed("the container ended: see the emulator's standard error")
        told = json.loads(line)
        if "error" in told:
            raise ScoringFailed(str(told["error"]))
        return told["answer"]

    async def _start(self) -> asyncio.subprocess.Process:
        command = [sys.executable, str(PROGRAM), str(self._folder), *([str(self._script)] if self._script else [])]
        return await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=self._folder, limit=LIMIT
        )

    async def close(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


async def _scorer(emulator: Emulator, key: str, version: ModelVersion, script: str | None) -> Scorer:
    """The process of a deployment; one that is deployed anew has another key."""
    if not emulator.scores:
        raise AzureError("The emulator was started without --score", status=501, code="NotImplemented")
    if key not in emulator.scorers:
        folder = emulator.data_dir / "scoring" / key
        shutil.rmtree(folder, ignore_errors=True)
        model_dir = folder / "azureml-models" / version.name / str(version.version)
        for artifact in registry.files_of(emulator, version):
            blob = emulator.state.blobs.get(artifact.artifact_id)
            place = (model_dir / artifact.path).resolve()
            if blob is not None and place.is_relative_to(model_dir.resolve()):
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(blob.file, place)
        file = None
        if script is not None:
            file = folder / Path(script).name
            shutil.copyfile(emulator.state.blobs[script].file, file)
        emulator.scorers[key] = Scorer(model_dir, file)
    return emulator.scorers[key]


def _check_key(request: Request, keys: tuple[str, ...]) -> None:
    shown = request.headers.get("authorization", "").removeprefix("Bearer ")
    if shown not in keys:
        raise Unauthorized("The key or token of the deployed model is missing or wrong", code="Unauthorized")


async def endpoint(emulator: Emulator, request: Request) -> Response:
    """Of a managed online endpoint, by its host."""
    name, _, region = request.headers["host"].partition(".")
    of, found = next(
        ((each, one) for each in emulator for one in each.state.endpoints.values() if one.name.lower() == name),
        (emulator, None),
    )
    if found is None or not region.startswith(of.workspace.region):
        raise NotFound(f"No endpoint {name}")
    _check_key(request, (*found.keys, found.token))
    traffic = next((deployment for deployment, share in found.traffic.items() if share), None)
    deployment = found.deployments.get(traffic or "")
    if deployment is None or not deployment.operation.is_over or deployment.operation.fails:
        raise NotReady(f"The endpoint {name} has no deployment that takes calls")
    model, _, number = str(deployment.properties["model"]).rpartition("/versions/")
    version = registry.find_version(of, model.rpartition("/")[2], number)
    scorer = await _scorer(of, f"endpoint-{name}-{deployment.operation.id}", version, None)
    return JSONResponse(await scorer.ask((await request.body()).decode()))


async def service(emulator: Emulator, request: Request) -> Response:
    """Of a container instance or AKS, by its whole address."""
    host, path = request.headers["host"].partition(":")[0], request.url.path
    found = [
        (each, one)
        for each in emulator
        for one in each.state.services.values()
        if one.scoring_uri.partition("//")[2].replace(":80/", "/") == f"{host}{path}"
    ]
    if not found:
        raise NotFound(f"Nothing answers at {host}{path}")
    of, one = found[0]
    if one.operation.kind != "Create" or not one.operation.is_over or one.operation.fails:
        raise NotReady(f"The service {one.name} does not take calls")
    if one.asked.get("authEnabled"):
        _check_key(request, one.keys)
    image = one.asked["environmentImageRequest"]
    name, _, number = image["modelIds"][0].rpartition(":")
    script = next(asset for asset in image["assets"] if asset["id"] != image["driverProgram"])
    version = registry.find_version(of, name, number)
    key = f"service-{one.name}-{one.operation.id}"
    scorer = await _scorer(of, key, version, services.artifact_of(script))
    return JSONResponse(await scorer.ask((await request.body()).decode()))


ENDPOINT_ROUTES = [("POST", "/score", endpoint)]
SERVICE_ROUTES = [("POST", "/score", service), ("POST", "/api/v1/service/{name}/score", service)]
