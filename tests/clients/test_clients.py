"""The same program with mlflow of three years: it reads back the same from one and the same server."""

import json
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import python_of
from tests.server import Server, clean_environment

FLOW = Path(__file__).with_name("flow.py")
FITTING = [0, 0, 1, 1]
SEEN: dict[str, Any] = {
    "experiments": {
        "taken": "RESOURCE_ALREADY_EXISTS",
        "deleted": ["deleted"],
        "found": ["-renamed", "active", "red"],
        "by name": True,
        "never": None,
    },
    "runs": {
        "info": ["renamed", "FINISHED", "active", True],
        "params": [53, "3", "None", "ü"],
        "metrics": [1 / 3, 1.0, 2.5, 1.0],
        "odd": "nan",
        "later": 5.0,
        "tags": {"own.a": "1", "own.b": "2"},
        "note": "what it is",
        "changed": "INVALID_PARAMETER_VALUE",
        "history": [700, 0.0, 699.0, 699, 1699],
        "loss": [[0, 1.0], [1, 0.5], [2, 1 / 3]],
        "dataset": ["four", "train"],
        "child": ["FAILED", True],
        "unknown": "RESOURCE_DOES_NOT_EXIST",
    },
    "search": {
        "by metric": ["child"],
        "by param": ["renamed"],
        "by attribute": ["child"],
        "ordered": ["renamed", "child"],
        "pages": ["child", "renamed"],
        "frame": [["renamed"], [1.0], ["7"]],
        "deleted": [["renamed"], ["child"], "INVALID_PARAMETER_VALUE", "active"],
        "nonsense": "INVALID_PARAMETER_VALUE",
    },
    "artifacts": {
        "root": ["copied", "notes", "one.txt", "table.json"],
        "listed": {
            "notes": [["notes/a.json", False, 32], ["notes/hello.txt", False, 8]],
            "copied": [["copied/deep", True, None]],
            "copied/deep": [["copied/deep/a b+ü.bin", False, 512_000]],
            "nowhere": [],
        },
        "files": ["copied/deep/a b+ü.bin", "notes/a.json", "notes/hello.txt", "one.txt", "table.json"],
        "same": True,
        "text": "hello ü",
        "dict": {"a": [1, None]},
        "one": "one",
        "table": ["a", "b"],
    },
    "registry": {
        "predictions": [FITTING] * 6,
        "native": FITTING,
        "found": ["what it is", {"team": "blue"}, {"champion": "1"}],
        "first": ["1", "the first", {"seen": "yes"}, ["champion"], "READY"],
        "by hand": ["3", {"by": "hand"}, True],
        "stages": [["1", "Staging"], ["2", "Archived"], ["3", "Production"]],
        "latest": [["Production", "3"], ["Staging", "1"]],
        "searched": True,
        "of run": ["2", "3"],
        "gone": ["RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"],
        "deleted": "RESOURCE_DOES_NOT_EXIST",
    },
    "traces": [
        [["inner", {"q": "why?"}, None], ["outer", {"question": "why?"}, "WHY?"]],
        "OK",
        "1",
        "outer",
        1,
    ],
}


@pytest.mark.parametrize("version", ["2.9", "2.16", "2.22", "3.17"])
def test_a_program_sees_the_same_whatever_its_mlflow(version: str, runmirror: Server, tmp_path: Path) -> None:
    command = [str(python_of(version)), str(FLOW), runmirror.url, f"client-{uuid.uuid4().hex[:8]}"]
    environment = clean_environment({"GIT_PYTHON_REFRESH": "quiet"})
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    used = seen.pop("version")
    assert used == version or used.startswith(f"{version}."), f"this environment has mlflow {used}"
    not_yet = {"traces"} if version == "2.9" else set()  # 2.14 was the first to trace
    assert seen == {part: expected for part, expected in SEEN.items() if part not in not_yet}
