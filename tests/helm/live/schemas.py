"""JSON schemas of Kubernetes and of the operators the chart speaks to, as kubeconform reads them: one file a kind.

They are made of what the projects publish as Go modules: the OpenAPI document of Kubernetes, and resource definitions.
Strict: a field that the schema does not know is an error, as `kubectl apply --validate=strict` has it.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = "1.31.4"
MODULES = {
    "k8s.io/kubernetes": f"v{KUBERNETES}",
    "sigs.k8s.io/gateway-api": "v1.2.1",
    "github.com/prometheus-operator/prometheus-operator": "v0.79.2",
    "github.com/external-secrets/external-secrets": "v0.16.1",
}
_DEFINITIONS = (
    ("sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"),
    *(
        (
            "github.com/prometheus-operator/prometheus-operator",
            f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml",
        )
        for kind in ("servicemonitors", "prometheusrules")
    ),
    (
        "github.com/external-secrets/external-secrets",
        "config/crds/bases/external-secrets.io_externalsecrets.yaml",
    ),
)
_GROUP_VERSION_KIND = "x-kubernetes-group-version-kind"
_INT_OR_STRING = {"type": ["integer", "string"]}

Schema = dict[str, Any]


def make_schemas(folder: Path) -> Path:
    """Fill the folder, unless that was done; the place is what `kubeconform -schema-location` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / ".complete"
    wanted = json.dumps(MODULES)
    if not done.exists() or done.read_text() != wanted:
        modules = {name: _module(name, version) for name, version in MODULES.items()}
        swagger = modules["k8s.io/kubernetes"] / "api" / "openapi-spec" / "swagger.json"
        _kubernetes(json.loads(swagger.read_text(encoding="utf-8"))["definitions"], folder)
        for module, file in _DEFINITIONS:
            _custom(yaml.safe_load((modules[module] / file).read_text(encoding="utf-8")), folder)
        done.write_text(wanted)
    return folder / "{{ .ResourceKind }}{{ .KindSuffix }}.json"


def _module(name: str, version: str) -> Path:
    """Where Go keeps a module."""
    command = ["go", "mod", "download", "-json", f"{name}@{version}"]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    return Path(json.loads(said.stdout)["Dir"])


def _kubernetes(definitions: dict[str, Schema], folder: Path) -> None:
    for name, definition in definitions.items():
        for kind in definition.get(_GROUP_VERSION_KIND, ()):
            used: dict[str, Schema] = {}
            _collect(name, definitions, used)
            _write(folder, kind, {"$ref": f"#/definitions/{name}", "definitions": used})


def _collect(name: str, definitions: dict[str, Schema], used: dict[str, Schema]) -> None:
    if name in used:
        return
    if name.endswith(".intstr.IntOrString"):
        used[name] = _INT_OR_STRING
        return
    if name.endswith(".resource.Quantity"):
        used[name] = {"type": ["string", "number"]}
        return
    used[name] = _strict(definitions[name])
    for reference in _references(definitions[name]):
        _collect(reference, definitions, used)


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [found for part in schema for found in _references(part)]
    if not isinstance(schema, dict):
        return []
    here = [schema["$ref"].rpartition("/")[2]] if isinstance(schema.get("$ref"), str) else []
    return here + [found for part in schema.values() for found in _references(part)]


def _custom(definition: Schema, folder: Path) -> None:
    spec = definition["spec"]
    for version in spec["versions"]:
        schema = _strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        _write(folder, {"group": spec["group"], "version": version["name"], "kind": spec["names"]["kind"]}, schema)


def _strict(schema: Any) -> Any:
    """The same, without unknown fields, and with what OpenAPI says in words of its own said in JSON Schema's."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return _INT_OR_STRING
    made = {name: _strict(part) for name, part in schema.items() if name != "format"}
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and "type" in schema and not open_ended:
        made["additionalProperties"] = False
    return made


def _write(folder: Path, kind: dict[str, str], schema: Schema) -> None:
    """Under the name by which kubeconform asks: kind, first part of the group, version."""
    parts = [kind["kind"], kind["group"].split(".")[0], kind["version"]]
    name = "-".join(part.lower() for part in parts if part)
    (folder / f"{name}.json").write_text(json.dumps(schema), encoding="utf-8")
