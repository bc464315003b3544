"""Bicep read by a parser and held against Azure's SDK; Terraform read by OpenTofu. Neither needs an account.

What only Azure can say (whether names are free, quotas, policies) is not said here: docs/azure.md has the commands.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.venvs import python_with

REPOSITORY = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent
MAIN = REPOSITORY / "azure" / "bicep" / "main.bicep"


@pytest.fixture(scope="session")
def python() -> Path:
    return python_with(HERE / "requirements.txt", REPOSITORY / ".venv-azure-sdk")


def problems(python: Path, file: Path) -> list[str]:
    said = subprocess.run(
        [str(python), str(HERE / "look_at_bicep.py"), str(file)], check=True, capture_output=True, text=True
    )
    found: list[str] = json.loads(said.stdout)[str(file)]["problems"]
    return found


@pytest.mark.parametrize("name", ["main", "workspace"])
def test_every_property_in_bicep_is_one_that_azures_sdk_knows(python: Path, name: str) -> None:
    assert problems(python, MAIN.with_name(f"{name}.bicep")) == []


def test_a_wrong_name_at_any_depth_is_found(python: Path, tmp_path: Path) -> None:
    """Else the test above says nothing."""
    text = MAIN.read_text(encoding="utf-8")
    names = (
        "allowSharedKeyAccess", "delegatedSubnetResourceId", "serviceName", "retentionInDays", "infrastructureSubnetId",
        "targetPort", "terminationGracePeriodSeconds", "failureThreshold", "minReplicas", "principalType",
    )  # fmt: skip
    wrong = text
    for name in names:
        wrong = re.sub(rf"\b{name}:", f"{name}Wrong:", wrong)
    file = tmp_path / "wrong.bicep"
    file.write_text(wrong)
    found = "\n".join(problems(python, file))
    assert [name for name in names if f".{name}Wrong is unknown" not in found] == []


def test_terraform_is_read_and_formatted_as_its_own_program_writes_it() -> None:
    tofu = REPOSITORY / ".tools" / "tofu"
    assert tofu.exists(), f"{tofu} is not there: run make test-azure"
    command = [str(tofu), "fmt", "-check", "-diff", str(REPOSITORY / "azure" / "terraform")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
