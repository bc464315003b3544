"""Every command that the pages tell is carried out: here, by a test of its own, or it is said why not."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import httpx
import pytest

from runmirror.__main__ import main
from tests.azureml_emulator.process import EmulatorProcess, start_emulator
from tests.docs.commands import ELSEWHERE, HERE, NOT_HERE, REPOSITORY, Told, blocks, told
from tests.server import Server, clean_environment, serving

TOLD = told()
OF_OURS = [each for each in TOLD if re.match(r"(\w+=\S+ )*runmirror ", each.command)]


@dataclass(frozen=True)
class Stage:
    """A server with its worker, a workspace and one beside it, and a folder to stand in."""

    server: Server
    workspace: EmulatorProcess
    environment: dict[str, str]
    folder: Path

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120
        )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "azure").mkdir()
    with start_emulator(folder / "azure", beside="team-a") as workspace:
        azure = {name: value for name, value in workspace.env().items() if name not in {"PATH", "HOME"}}
        with serving(folder / "data", RUNMIRROR_MIRROR_DEBOUNCE="0.2", **azure) as server:
            where = {"RUNMIRROR_DATA_DIR": str(folder / "data"), "MLFLOW_TRACKING_URI": server.url}
            _, _, subscription, _, group, *_, name = workspace.workspace_id.split("/")
            told_by_studio = {"subscription_id": subscription, "resource_group": group, "workspace_name": name}
            (folder / "config.json").write_text(json.dumps(told_by_studio))
            made = httpx.post(
                f"{server.url}/api/2.0/mlflow/experiments/create", json={"name": "churn"}, trust_env=False
            )
            assert made.status_code == 200
            yield Stage(server, workspace, clean_environment({**azure, **where}), folder)


@pytest.mark.parametrize("each", TOLD, ids=lambda each: f"{each.page}: {each.command[:60]}")
def test_somebody_carries_out_each_command(each: Told) -> None:
    if any(each.fits(pattern) for pattern in (*HERE, *NOT_HERE)):
        return
    found = [where for pattern, where in ELSEWHERE.items() if each.fits(pattern)]
    assert found, "a command that nothing carries out"
    assert (REPOSITORY / found[0]).exists()


@pytest.mark.parametrize("each", OF_OURS, ids=lambda each: each.command[:60])
def test_each_command_of_ours_exists_with_its_options(
    each: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(re.sub(r"^(\w+=\S+ )*runmirror ", "", each.command).split(" > ")[0].removesuffix("&"))
    command: click.Command = main
    while isinstance(command, click.Group) and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, f"runmirror has no command {name}"
        command = command.commands[name]
    command.make_context(str(command.name), words)  # raises at an option that there is not


def test_what_is_told_of_links_copies_tokens_and_upkeep_works(stage: Stage) -> None:
    other = stage.workspace.other_workspace_ids[0]
    for each in TOLD:
        if not any(each.fits(pattern) for pattern in HERE):
            continue
        line = re.sub(r"\S*…\S*/workspaces/(main|my-workspace)", stage.workspace.workspace_id, each.command)
        line = line.replace("…/workspaces/team-a", other)
        words = shlex.split(line.removeprefix("runmirror ").split(" > ")[0])
        done = stage.run([sys.executable, "-m", "runmirror", *words])
        assert done.returncode == 0, f"{each.page}: {line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(("page", "text"), list(blocks("python")), ids=lambda value: value[:40])
def test_each_piece_of_python_runs(page: str, text: str, stage: Stage) -> None:
    if "azureml.core" in text:
        pytest.skip("tests/examples runs it, in the environment of azureml-core")
    program = f"import mlflow\nmlflow.set_tracking_uri({stage.server.url!r})\n{text}"
    program = re.sub(r"https://tracking\.example|http://127\.0\.0\.1:5000", stage.server.url, program)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120, cwd=stage.folder,
        env={**clean_environment({}), "RUNMIRROR_TRACKING_URI": stage.server.url, "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, f"{page}:\n{program}\n{done.stderr}"
