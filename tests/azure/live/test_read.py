"""Bicep held against Azure's SDK, Terraform against the schema of its provider. Neither needs an account.

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
SCHEMA_VERSION = "14.23.1"  # of azurerm 4.55
TERRAFORM = REPOSITORY / "azure" / "terraform"
MAIN = REPOSITORY / "azure" / "bicep" / "main.bicep"


@pytest.fixture(scope="session")
def python() -> Path:
    return python_with(HERE / "requirements.txt", REPOSITORY / ".venv-azure-sdk")


@pytest.fixture(scope="session")
def schema() -> Path:
    """The package that HashiCorp generated from the provider's schema; unpacked once."""
    folder = REPOSITORY / ".tools" / f"azurerm-{SCHEMA_VERSION}"
    if not (lib := folder / "package" / "lib").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        pack = ["npm", "pack", "--silent", f"@cdktf/provider-azurerm@{SCHEMA_VERSION}"]
        name = subprocess.run(pack, cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
        only = ["--wildcards", "package/lib/*/index.d.ts"]
        subprocess.run(["tar", "--extract", "--file", name, *only], cwd=folder, check=True)
        (folder / name).unlink()
    return lib


def terraform_problems(python: Path, schema: Path, *files: Path) -> list[str]:
    command = [str(python), str(HERE / "look_at_terraform.py"), str(schema), *map(str, files)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert "azurerm_container_app" in said["looked_at"]
    found: list[str] = said["problems"]
    return found


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


def test_every_argument_block_and_attribute_in_terraform_is_one_of_the_providers(python: Path, schema: Path) -> None:
    assert terraform_problems(python, schema, *sorted(TERRAFORM.glob("*.tf"))) == []


def test_a_wrong_argument_or_attribute_and_a_missing_one_are_found(python: Path, schema: Path, tmp_path: Path) -> None:
    text = (TERRAFORM / "main.tf").read_text(encoding="utf-8")
    for right, wrong in (
        ("shared_access_key_enabled ", "shared_access_keys_enabled "),
        ("service_delegation {", "services_delegation {"),
        ("secret_name", "secret_ref"),
        ("failure_count_threshold", "failure_threshold"),
        ("server   = registry.value", ""),
        ("this.primary_blob_host", "this.blob_host"),
        ('  revision_mode                = "Single"', ""),
    ):
        assert right in text
        text = text.replace(right, wrong)
    file = tmp_path / "main.tf"
    file.write_text(text)
    found = "\n".join(terraform_problems(python, schema, file))
    for told in (
        "this.shared_access_keys_enabled is unknown", "delegation.services_delegation is unknown",
        "container.env.secret_ref is unknown", "startup_probe.failure_threshold is unknown", "registry lacks server",
        "this has no blob_host", "worker lacks revision_mode",
    ):  # fmt: skip
        assert told in found


def test_terraform_is_read_and_formatted_as_its_own_program_writes_it() -> None:
    tofu = REPOSITORY / ".tools" / "tofu"
    assert tofu.exists(), f"{tofu} is not there: run make test-azure"
    command = [str(tofu), "fmt", "-check", "-diff", str(TERRAFORM)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
