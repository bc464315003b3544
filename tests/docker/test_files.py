"""Image and compose file, as far as they can be judged without an engine; `make test-docker` runs them."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from runmirror.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = (REPOSITORY / "docker" / "Dockerfile").read_text(encoding="utf-8")
COMPOSE_FILE = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE)
COMMAND = (REPOSITORY / "docker" / "runmirror").read_text(encoding="utf-8")
# What the compose file itself is told, and the demo's program.
OF_COMPOSE = {"IMAGE", "DEMO_IMAGE", "DEMO_WORKSPACE", "ENV_FILE", "CERTS"}
PINNED = re.compile(r"[\w./-]+:\d+\.\d+\.?\d*(-[a-z]+)*")


def known_names() -> set[str]:
    return {f"RUNMIRROR_{name.upper()}" for name in Settings.model_fields}


def secrets_as_files() -> set[str]:
    """The settings that docker/runmirror reads from files."""
    found = re.search(r"for name in (.*?); do", COMMAND)
    assert found is not None
    return set(found[1].split())


def test_every_setting_that_docker_files_name_exists() -> None:
    files = [
        ".env.example",
        "docker-compose.yml",
        "docker/Dockerfile",
        "docker/demo.env",
        "docker/runmirror-healthcheck",
    ]
    allowed = known_names() | {f"RUNMIRROR_{name}" for name in OF_COMPOSE} | {f"{n}_FILE" for n in secrets_as_files()}
    for file in files:
        named = set(re.findall(r"RUNMIRROR_[A-Z_]*[A-Z]", (REPOSITORY / file).read_text(encoding="utf-8")))
        assert named, file
        assert named - allowed == set(), file


def test_every_secret_may_come_as_a_file() -> None:
    """A password in a URL is one too."""
    secret = {
        name for name, field in Settings.model_fields.items() if SecretStr in getattr(field.annotation, "__args__", ())
    }
    names = {f"RUNMIRROR_{name.upper()}".replace("RUNMIRROR_AZURE_", "AZURE_") for name in secret | {"database_url"}}
    assert names | {"AZURE_CLIENT_SECRET"} == secrets_as_files()


def test_what_is_built_from_is_pinned() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) - stages
    assert bases == {"${PYTHON_IMAGE}"}
    assert PINNED.fullmatch(re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)[0])
    pins = {line.split("==")[0].lower() for line in (REPOSITORY / "constraints.txt").read_text().splitlines()}
    assert "PIP_CONSTRAINT=/src/constraints.txt" in DOCKERFILE
    installed = re.findall(r"pip (?:install|download) ([^&\\\n]+)", DOCKERFILE)
    names = {word for words in installed for word in words.split() if re.fullmatch(r"[a-z][a-z-]+", word)}
    assert {"hatchling", "mlflow"} <= names
    assert names - pins == set()
    for service in COMPOSE["services"].values():
        image = re.sub(r"\$\{\w+:-(.*)\}", r"\1", service["image"])
        assert image.endswith(":local") or PINNED.fullmatch(image), image


def test_what_the_image_is_built_from_is_sent_to_the_builder_and_nothing_else() -> None:
    rules = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    admitted = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert {path for paths in copied for path in paths.split()} == admitted
    assert "*" in rules
    assert all((REPOSITORY / path).exists() for path in admitted)


def test_compose_publishes_the_api_on_loopback_alone_and_asks_for_tokens() -> None:
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert published == {"api": ["${PUBLISH:-127.0.0.1:5000}:5000"]}
    assert COMPOSE["services"]["api"]["environment"]["RUNMIRROR_AUTH"] == "${RUNMIRROR_AUTH:-token}"
    assert "INSECURE" not in COMPOSE_FILE


def test_the_demos_secret_is_the_emulators() -> None:
    """Written in both places, so that none is taken from the shell of whoever starts it."""
    demo = (REPOSITORY / "docker" / "demo.env").read_text(encoding="utf-8")
    secret = re.findall(r"^AZURE_CLIENT_SECRET=(.+)$", demo, re.MULTILINE)
    assert [f"--client-secret={each}" for each in secret] == [
        word for word in COMPOSE["services"]["emulator"]["command"] if "secret" in word
    ]


def test_every_service_of_ours_is_locked_in() -> None:
    ours = [service for service in COMPOSE["services"].values() if "RUNMIRROR" in service["image"]]
    assert len(ours) == 6
    for service in ours:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_what_can_be_set_in_the_example_is_read_by_something() -> None:
    example = (REPOSITORY / ".env.example").read_text(encoding="utf-8")
    of_azure = {
        "AZURE_TENANT_ID",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_STORAGE_CONNECTION_STRING",
        "HTTPS_PROXY",
    }
    for name in re.findall(r"^#([A-Z_]+)=", example, re.MULTILINE):
        assert name in known_names() | of_azure or f"${{{name}" in COMPOSE_FILE, name
    assert re.findall(r"^[^#\n]", example, re.MULTILINE) == [], "as it is, it changes nothing"
