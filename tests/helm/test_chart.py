"""The chart, as far as it can be judged without Helm; `make test-helm` renders it and checks what comes out."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from runmirror.__main__ import main
from runmirror.command_line import serving
from runmirror.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm" / "runmirror"
TEMPLATES = {file: file.read_text(encoding="utf-8") for file in sorted((CHART / "templates").rglob("*.*"))}
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
CASES = sorted((CHART / "ci").glob("*-values.yaml"))


def known_names() -> set[str]:
    return {f"RUNMIRROR_{name.upper()}" for name in Settings.model_fields}


def test_the_alert_rules_of_the_chart_are_those_of_the_docs() -> None:
    """A test of /metrics holds the docs' rules to what the server tells."""
    assert (CHART / "files" / "alerts.yml").read_bytes() == (REPOSITORY / "docs" / "alerts.yml").read_bytes()


def test_every_setting_that_the_chart_names_exists() -> None:
    in_templates = {name for text in TEMPLATES.values() for name in re.findall(r"RUNMIRROR_[A-Z_]*[A-Z]", text)}
    assert len(in_templates) > 15
    cases = {name for file in CASES for name in re.findall(r"RUNMIRROR_[A-Z_]*[A-Z]", file.read_text(encoding="utf-8"))}
    refused = set(SCHEMA["properties"]["settings"]["propertyNames"]["not"]["enum"])
    assert (in_templates | cases | refused) - known_names() == set()
    assert in_templates - refused == {"RUNMIRROR_LOG_FORMAT"}, "what the chart sets must not be set a second time"


def test_every_flag_that_the_chart_gives_exists() -> None:
    flags = {opt for c in main.commands.values() for p in c.params for opt in (*p.opts, *p.secondary_opts)}
    given = {flag for text in TEMPLATES.values() for flag in re.findall(r"^ +- (--[a-z-]+)", text, re.MULTILINE)}
    assert {"--no-mirror", "--older-than", "--workers"} <= given
    assert given - flags == set()


@pytest.mark.parametrize("file", [CHART / "values.yaml", *CASES], ids=lambda file: file.name)
def test_values_keep_to_the_schema(file: Path) -> None:
    jsonschema_rs.validate(SCHEMA, yaml.safe_load(file.read_text(encoding="utf-8")))


def test_values_and_schema_have_the_same_names_and_so_have_templates() -> None:
    def names(schema: dict[str, Any], values: Any, path: str = "") -> None:
        if "properties" in schema and isinstance(values, dict):
            assert set(schema["properties"]) - {"global"} == set(values), path
            for name, value in values.items():
                names(schema["properties"][name], value, f"{path}.{name}")

    names(SCHEMA, VALUES)
    used = {path for text in TEMPLATES.values() for path in re.findall(r"\.Values((?:\.\w+)+)", text)}
    assert len(used) > 40
    for path in used:
        place: Any = VALUES
        for name in path.strip(".").split("."):
            assert name in place, path
            place = place[name]


def test_a_pod_has_longer_to_end_than_what_it_does_may_take() -> None:
    server = next(text for file, text in TEMPLATES.items() if file.name == "server.yaml")
    parts = re.findall(r"terminationGracePeriodSeconds: {{ add (\d+) .Values.server.preStopSeconds (\d+) }}", server)
    assert [int(parts[0][0])] == [serving._GRACE_S]
    assert int(parts[0][1]) >= 10
    assert VALUES["worker"]["mirrorTimeoutSeconds"] == Settings().mirror_timeout.total_seconds()


def test_the_chart_runs_the_image_as_its_user() -> None:
    dockerfile = (REPOSITORY / "docker" / "Dockerfile").read_text(encoding="utf-8")
    user = VALUES["podSecurityContext"]["runAsUser"]
    assert f"USER {user}:{VALUES['podSecurityContext']['runAsGroup']}" in dockerfile
