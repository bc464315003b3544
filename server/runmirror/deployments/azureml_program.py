"""Asks Azure ML for a web service on ACI or AKS, through azureml-core: run by a Python that has it, not imported here.

It reads one JSON object from standard input and writes one as the last line of standard output: `operation`, or why
not, `refused` for good or `unavailable` for now. It imports nothing of ours, and has no credential but the token it is
given.
"""

import ast
import json
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_STATUS = re.compile(r"Response Code: (\d{3})")
_CONTENT = re.compile(r"Content: (b?'.*'|b?\".*\")", re.DOTALL)
# Names of what requests and azure-core raise when there is no connection or no answer.
_PASSING = {"ConnectionError", "Timeout", "ServiceRequestError", "ServiceResponseError"}


def deploy(asked: Json) -> Json:
    from azureml.core import Model, Workspace  # noqa: PLC0415 - its absence is to be told as any other failure
    from azureml.core.authentication import ArmTokenAuthentication  # noqa: PLC0415
    from azureml.core.compute import AksCompute  # noqa: PLC0415
    from azureml.core.environment import Environment  # noqa: PLC0415
    from azureml.core.model import InferenceConfig  # noqa: PLC0415

    of = asked["workspace"]
    workspace = Workspace.get(
        name=of["name"], subscription_id=of["subscription"], resource_group=of["resource_group"],
        auth=ArmTokenAuthentication(asked["token"]),
    )  # fmt: skip
    conda, script = Path("conda.yaml"), Path("score.py")
    conda.write_text(asked["conda"], encoding="utf-8")
    script.write_text(asked["script"], encoding="utf-8")
    environment = Environment.from_conda_specification(f"runmirror-{asked['name']}", str(conda))
    environment.python.conda_dependencies.add_pip_package("azureml-defaults")  # the server in the container
    environment.inferencing_stack_version = "latest"
    target = AksCompute(workspace, asked["spec"]["aks_cluster"]) if asked["kind"] == "aks" else None
    service = Model.deploy(
        workspace,
        asked["name"],
        [Model(workspace, name=asked["model"]["name"], version=int(asked["model"]["version"]))],
        InferenceConfig(entry_script=str(script), environment=environment),
        _configuration(asked),
        deployment_target=target,
        overwrite=asked["overwrite"],
    )
    return {"operation": service._operation_endpoint.rpartition("/")[2]}


def _configuration(asked: Json) -> Any:
    from azureml.core.webservice import AciWebservice, AksWebservice  # noqa: PLC0415

    spec, tags = asked["spec"], asked["tags"]
    size = {"cpu_cores": spec.get("cpu"), "memory_gb": spec.get("memory_gb"), "tags": tags}
    if asked["kind"] == "aci":
        size = {"cpu_cores": spec.get("cpu", 1), "memory_gb": spec.get("memory_gb", 2), "tags": tags}
        return AciWebservice.deploy_configuration(auth_enabled=spec["auth"] == "key", **size)
    count = spec.get("instance_count")
    fixed = {} if count is None else {"autoscale_enabled": False, "num_replicas": count}
    return AksWebservice.deploy_configuration(
        auth_enabled=spec["auth"] == "key", token_auth_enabled=spec["auth"] == "token", **fixed, **size
    )


def failure(error: Exception) -> Json:
    """A mistake of the request is for good; no connection, and what the service cannot do now, is not."""
    text = str(getattr(error, "message", None) or error)
    status = _STATUS.search(text)
    code = 0 if status is None else int(status[1])
    kinds = {kind.__name__ for one in (error, error.__cause__, error.__context__) for kind in type(one).__mro__}
    is_passing = code in {401, 403, 408, 429} or code >= 500 or bool(kinds & _PASSING)
    told = f"{_message(text)}{f' (HTTP {code})' if code else ''}"
    return {"unavailable" if is_passing else "refused": f"{type(error).__name__}: {told}"}


def _message(text: str) -> str:
    """The service's own sentence, where the exception repeats the whole answer."""
    content = _CONTENT.search(text)
    if content is None:
        return text
    try:
        body = ast.literal_eval(content[1])
        told = json.loads(body)
        error = told.get("error", told)
        details = [str(one.get("message")) for one in error.get("details") or [] if one.get("message")]
        return "; ".join(dict.fromkeys([str(error["message"]), *details]))
    except (ValueError, SyntaxError, KeyError, AttributeError, TypeError):
        return text


def _end_with(parent: int) -> None:
    """Who started this may be killed: what it was to ask for is then for another to ask for."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    asked = json.load(sys.stdin)
    try:
        told = deploy(asked)
    except Exception as error:  # noqa: BLE001 - whatever it is, whoever asked is to hear of it
        told = failure(error)
    sys.stdout.write("\n" + json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
