"""The chart rendered by Helm itself, over many values, and judged by kubeconform with Kubernetes' own schemas."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runmirror.settings import Settings
from tests.helm.live.schemas import KUBERNETES, make_schemas

REPOSITORY = Path(__file__).resolve().parents[3]
TOOLS = REPOSITORY / ".tools"
CHART = REPOSITORY / "helm" / "runmirror"
CASES = sorted((CHART / "ci").glob("*-values.yaml"))
SMALL = CHART / "ci" / "small-values.yaml"

Object = dict[str, Any]


@pytest.fixture(scope="session")
def schemas() -> Path:
    return make_schemas(TOOLS / "schemas")


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    program = TOOLS / "helm"
    assert program.exists(), f"{program} is not there: run make test-helm"
    return subprocess.run([str(program), *words], capture_output=True, text=True, check=False)


def rendered(*words: str) -> str:
    done = helm("template", "release", str(CHART), "--namespace", "ml", "--kube-version", KUBERNETES, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text: str) -> list[Object]:
    return [document for document in yaml.safe_load_all(text) if document]


def judge(text: str, schemas: Path) -> None:
    command = [str(TOOLS / "kubeconform"), "-strict", "-summary", "-output", "json", "-schema-location", str(schemas)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    assert done.returncode == 0, json.dumps(said.get("resources"), indent=1)
    assert said["summary"]["valid"] == len(objects(text)) > 0


def one(found: list[Object], kind: str, ending: str = "") -> Object:
    [match] = [each for each in found if each["kind"] == kind and each["metadata"]["name"].endswith(ending)]
    return match


def pods(found: list[Object]) -> Iterator[tuple[str, Object]]:
    for each in found:
        spec = each.get("spec", {})
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], spec
        elif each["kind"] == "CronJob":
            yield each["metadata"]["name"], spec["jobTemplate"]["spec"]["template"]["spec"]
        elif "template" in spec and "spec" in spec["template"]:
            yield each["metadata"]["name"], spec["template"]["spec"]


@pytest.mark.parametrize("case", CASES, ids=lambda file: file.stem)
def test_each_set_of_values_lints_renders_and_is_valid(case: Path, schemas: Path) -> None:
    lint = helm("lint", "--strict", str(CHART), "--values", str(case))
    assert lint.returncode == 0, lint.stdout + lint.stderr
    judge(rendered("--values", str(case)), schemas)


def switches(values: Object, path: str = "") -> Iterator[tuple[str, bool]]:
    for name, value in values.items():
        if isinstance(value, bool):
            yield f"{path}{name}", value
        elif isinstance(value, dict):
            yield from switches(value, f"{path}{name}.")


# What a switch needs beside it.
WITH = {
    "externalSecrets.enabled": ("externalSecrets.secretStoreRef.name=store",),
    "httpRoute.enabled": ("httpRoute.parentRefs[0].name=gateway",),
    "ingress.enabled": ("ingress.hosts[0].host=tracking.example",),
    "metrics.serviceMonitor.enabled": ("metrics.serviceMonitor.existingSecret.name=token",),
    "workloadIdentity.enabled": ("workloadIdentity.clientId=id",),
}
VALUES: Object = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SWITCHES = [
    (path, value) for path, value in switches(VALUES) if not path.startswith(("podSecurity", "securityContext"))
]


def test_every_switch_turned_alone_is_valid_and_changes_something(schemas: Path) -> None:
    small = ("--values", str(SMALL))
    before = rendered(*small)
    # Artifacts in Azure need no volume, and garbage is collected only where that is switched on.
    without_effect = {"artifactRoot.persistence.enabled", "garbageCollection.erase"}
    assert len(SWITCHES) > 15
    together = ""
    for path, value in SWITCHES:
        words = [f"--set={each}" for each in (f"{path}={str(not value).lower()}", *WITH.get(path, ()))]
        after = rendered(*small, *words)
        assert (after == before) == (path in without_effect), path
        together += f"\n---\n{after}"
    judge(together, schemas)


@pytest.mark.parametrize("case", CASES, ids=lambda file: file.stem)
def test_what_the_chart_tells_a_process_are_settings_that_it_accepts(
    case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in os.environ:
        if name.startswith(("RUNMIRROR_", "MLFLOW_", "AZURE_", "SSL_")):
            monkeypatch.delenv(name)
    for name, pod in pods(objects(rendered("--values", str(case)))):
        [container] = pod["containers"]
        told = {each["name"]: each.get("value", "postgresql://u:p@h/d") for each in container.get("env", ())}
        told.pop("RUNMIRROR_WEBHOOK_SECRET_KEY", None)  # a secret that is only in the cluster
        told = {name: value for name, value in told.items() if "_SSL_" not in name}  # files that are only there
        with monkeypatch.context() as environment:
            for variable, value in told.items():
                assert isinstance(value, str), (name, variable)
                environment.setenv(variable, value)
            settings = Settings(host="0.0.0.0") if "serve" in container.get("args", ()) else Settings()
        if name.endswith("-worker"):
            assert pod["terminationGracePeriodSeconds"] > settings.mirror_timeout.total_seconds()
            assert settings.mirror_lease > settings.mirror_timeout
        if name.endswith("-server"):
            assert settings.allowed_hosts
            assert pod["terminationGracePeriodSeconds"] >= 25 + 10


@pytest.mark.parametrize("case", CASES, ids=lambda file: file.stem)
def test_every_pod_is_locked_in_and_writes_nowhere_but_to_its_volumes(case: Path) -> None:
    found = list(pods(objects(rendered("--values", str(case)))))
    assert len(found) >= 2
    for name, pod in found:
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, name


def test_a_secret_that_exists_is_never_written_by_the_chart(schemas: Path) -> None:
    kinds = [
        each["kind"] for case in CASES if "for-a-try" not in case.stem for each in objects(rendered("-f", str(case)))
    ]
    assert "ExternalSecret" in kinds
    assert "Secret" not in kinds


def test_the_migration_runs_before_the_installation_only_where_its_secret_is_there() -> None:
    def hook(*words: str) -> str:
        job = one(objects(rendered("--values", str(SMALL), *words)), "Job", "-migrate")
        return str(job["metadata"]["annotations"]["helm.sh/hook"])

    assert hook() == "pre-install,pre-upgrade"
    assert hook("--set=externalSecrets.enabled=true,externalSecrets.secretStoreRef.name=s") == "pre-upgrade"
    made = ("--set=backendStore.existingDatabaseSecret.name=", "--set=backendStore.databaseUrl=postgresql://u:p@h/d")
    assert hook(*made) == "pre-upgrade"


def test_servers_answer_to_the_names_they_are_reached_by() -> None:
    azure = objects(rendered("--values", str(CHART / "ci" / "azure-values.yaml")))
    [container] = one(azure, "Deployment", "-server")["spec"]["template"]["spec"]["containers"]
    hosts = next(each["value"] for each in container["env"] if each["name"] == "RUNMIRROR_ALLOWED_HOSTS").split(",")
    assert {"release-runmirror.ml.svc", "tracking.ml.example", "*.ml.example", "10.0.0.0/8"} <= set(hosts)
    assert "*" not in hosts


def test_selectors_find_the_pods_of_their_own_component_alone() -> None:
    found = objects(rendered("--values", str(CHART / "ci" / "azure-values.yaml")))
    service = one(found, "Service")["spec"]["selector"]
    labels = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in found
        if each["kind"] in {"Deployment", "Job"}
    }
    chosen = [name for name, has in labels.items() if service.items() <= has.items()]
    assert chosen == ["release-runmirror-server"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"backendStore": {"existingDatabaseSecret": {"name": ""}}}, "runmirror needs a database"),
        ({"artifactRoot": {"azureBlob": {"container": ""}}}, "runmirror needs a place for artifacts"),
        ({"auth": {"mode": "entra"}}, "needs auth.oidc.issuer"),
        ({"auth": {"mode": "basic"}}, "auth"),
        ({"sever": {}}, "sever"),
        ({"settings": {"RUNMIRROR_AUTH": "none"}}, "RUNMIRROR_AUTH"),
        ({"settings": {"LOG_LEVEL": "debug"}}, "LOG_LEVEL"),
        ({"azureml": {"workspace": "my-workspace"}}, "workspace"),
        ({"metrics": {"serviceMonitor": {"enabled": True}}}, "a token, which /metrics asks for"),
        ({"workloadIdentity": {"enabled": True}}, "needs clientId"),
        ({"httpRoute": {"enabled": True}}, "httpRoute needs parentRefs"),
        ({"ingress": {"enabled": True}}, "ingress needs hosts"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_values_that_cannot_work_are_refused_with_the_reason(values: Object, told: str, tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    words = ("template", "r", str(CHART), "--kube-version", KUBERNETES, "--values", str(SMALL), "--values", str(file))
    done = helm(*words)
    assert done.returncode != 0
    assert told in done.stderr


def test_the_judge_finds_what_is_wrong(schemas: Path) -> None:
    """A field of the wrong name, and one of the wrong type: else the tests above say nothing."""
    good = rendered("--values", str(CHART / "ci" / "azure-values.yaml"))
    for right, wrong in (
        ("terminationGracePeriodSeconds:", "terminationGraceSeconds:"),
        ("maxReplicas: 10", "maxReplicas: ten"),
        ("parentRefs:", "parents:"),
        ("authorization:", "authorisation:"),
        ("secretStoreRef:", "store:"),
    ):
        assert right in good
        with pytest.raises(AssertionError):
            judge(good.replace(right, wrong), schemas)
