"""Bicep and Terraform tell the same, and what they tell exists; `make test-azure` looks closer."""

import re
from pathlib import Path

from runmirror.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
BICEP = {file.name: file.read_text(encoding="utf-8") for file in (REPOSITORY / "azure" / "bicep").glob("*.bicep")}
TERRAFORM = {file.name: file.read_text(encoding="utf-8") for file in (REPOSITORY / "azure" / "terraform").glob("*.tf")}
DOCS = (REPOSITORY / "docs" / "azure.md").read_text(encoding="utf-8")
# Built-in roles have the same id in every tenant.
ROLES = {
    "Storage Blob Data Contributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    "Storage Blob Delegator": "db58b8e5-c6ad-4a2a-8342-4190687cbf4a",
    "AzureML Data Scientist": "f6c7c914-8db3-469d-8ca1-694a8f32e121",
    "Reader": "acdd72a7-3385-48ef-bd42-f606fba81ae7",
}


def told(files: dict[str, str]) -> set[str]:
    return {name for text in files.values() for name in re.findall(r"RUNMIRROR_[A-Z_]*[A-Z]", text)}


def test_both_tell_the_containers_the_same_settings_which_exist() -> None:
    assert told(BICEP) == told(TERRAFORM)
    assert {"RUNMIRROR_DATABASE_URL", "RUNMIRROR_ALLOWED_HOSTS", "RUNMIRROR_AUTH"} <= told(BICEP)
    assert told(BICEP) - {f"RUNMIRROR_{name.upper()}" for name in Settings.model_fields} == set()


def test_both_give_the_identity_the_roles_that_the_docs_list_and_no_others() -> None:
    by_id = {id_ for text in BICEP.values() for id_ in re.findall(r"'([0-9a-f]{8}-[0-9a-f-]{27})'", text)}
    by_name = re.findall(r'role_definition_name = "(.+)"', TERRAFORM["main.tf"])
    assert by_id == set(ROLES.values())
    assert sorted(by_name) == sorted(ROLES)
    for role, id_ in ROLES.items():
        assert f"| **{role}** | `{id_}` |" in DOCS


def test_both_have_the_same_knobs_and_answers() -> None:
    def snake(name: str) -> str:
        return re.sub(r"[A-Z]", lambda capital: f"_{capital[0].lower()}", name)

    bicep = {snake(name) for name in re.findall(r"^param (\w+)", BICEP["main.bicep"], re.MULTILINE)}
    terraform = set(re.findall(r'^variable "(\w+)"', TERRAFORM["variables.tf"], re.MULTILINE))
    # Bicep is told group and subscription by the deployment, and cannot make up a password that it knows next time.
    assert bicep - {"location", "database_password"} == terraform - {"subscription_id", "resource_group"}
    outputs = {snake(name) for name in re.findall(r"^output (\w+)", BICEP["main.bicep"], re.MULTILINE)}
    assert outputs == set(re.findall(r'^output "(\w+)"', TERRAFORM["outputs.tf"], re.MULTILINE))


def test_nothing_is_open_that_need_not_be() -> None:
    for text, words in (
        (BICEP["main.bicep"], ("allowBlobPublicAccess: false", "allowSharedKeyAccess: false", "allowInsecure: false")),
        (TERRAFORM["main.tf"], ("shared_access_key_enabled       = false", "public_network_access_enabled = false")),
    ):
        assert all(word in text for word in words)
        assert "sslmode=verify-full" in text
        assert "firewall" not in text.lower()
