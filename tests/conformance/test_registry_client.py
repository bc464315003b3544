"""The registry through the unmodified `mlflow` client: it reads back what MLflow's server gives it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import mlflow.sklearn
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LogisticRegression

from tests.conformance.client import FEATURES, LABELS, OnBoth


def fitted() -> LogisticRegression:
    return LogisticRegression().fit(FEATURES, LABELS)


def shown(version: ModelVersion) -> dict[str, Any]:
    """What does not depend on the server: no ids, no times."""
    return {
        "name": version.name,
        "version": version.version,
        "stage": version.current_stage,
        "status": version.status,
        "description": version.description,
        "tags": version.tags,
        "aliases": version.aliases,
        "scheme": str(version.source).partition(":")[0],
        "of a run": bool(version.run_id),
    }


def shown_model(model: RegisteredModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "description": model.description,
        "tags": model.tags,
        "aliases": model.aliases,
        "latest": [shown(version) for version in model.latest_versions],
    }


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(MlflowException) as caught:
        act()
    return str(caught.value.error_code)


def log_version(name: str) -> str:
    """Train, log and register; the run's id."""
    with mlflow.start_run() as run:
        mlflow.sklearn.log_model(
            fitted(),
            name="model",
            registered_model_name=name,
            input_example=FEATURES,
            skops_trusted_types=None,
            pip_requirements=["scikit-learn"],
        )
    return str(run.info.run_id)


def test_a_model_is_logged_registered_and_loaded_by_number_alias_and_stage(on_both: OnBoth, name: str) -> None:
    def flow(_: str) -> Any:
        client = MlflowClient()
        run_id = log_version(name)
        log_version(name)
        first = client.get_model_version(name, "1")
        assert first.run_id == run_id
        client.set_registered_model_alias(name, "best", "1")
        client.transition_model_version_stage(name, "2", "Production")
        predictions = [
            mlflow.pyfunc.load_model(f"models:/{name}{suffix}").predict(FEATURES).tolist()
            for suffix in ("/1", "@best", "/Production", "/latest")
        ]
        native = mlflow.sklearn.load_model(f"models:/{name}/2").predict(FEATURES).tolist()
        files = sorted(path.name for path in Path(mlflow.artifacts.download_artifacts(f"models:/{name}/1")).rglob("*"))
        return [predictions, native, files, shown(first), shown_model(client.get_registered_model(name))]

    on_both(flow)


def test_a_run_is_registered_after_the_fact_and_a_version_is_copied(on_both: OnBoth, name: str) -> None:
    def flow(_: str) -> Any:
        client = MlflowClient()
        with mlflow.start_run() as run:
            logged = mlflow.sklearn.log_model(fitted(), name="model", pip_requirements=["scikit-learn"])
            mlflow.log_text("no model", "notes/a.txt")
        by_run = mlflow.register_model(f"runs:/{run.info.run_id}/model", name)
        by_model = mlflow.register_model(logged.model_uri, name, tags={"how": "by model"})
        copied = client.copy_model_version(f"models:/{name}/{by_run.version}", f"{name}-copy")
        again = client.copy_model_version(f"models:/{name}-copy/1", f"{name}-copy")
        loaded = [
            mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}").predict(FEATURES).tolist()
            for version in (by_run, by_model, copied, again)
        ]
        uris = [
            client.get_model_version_download_uri(version.name, version.version).partition(":")[0]
            for version in (by_run, by_model, copied, again)
        ]
        found = [shown(version) for version in (by_run, by_model, copied, again)]
        tags = client.get_logged_model(logged.model_id).tags["mlflow.modelVersions"]
        return [loaded, uris, found, tags, refused(lambda: client.copy_model_version(f"models:/{name}/9", "x"))]

    on_both(flow)


def test_files_outside_a_logged_model_are_registered_by_their_run(on_both: OnBoth, name: str) -> None:
    def flow(_: str) -> Any:
        client = MlflowClient()
        client.create_registered_model(name)
        with mlflow.start_run() as run:
            mlflow.log_text("weights", "files/weights.txt")
        run_id = run.info.run_id
        versions = [
            client.create_model_version(name, source, run_id=run_id)
            for source in (f"runs:/{run_id}/files", f"{run.info.artifact_uri}/files")
        ]
        texts = [
            (Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{number}")) / "weights.txt").read_text()
            for number in (1, 2)
        ]
        return [texts, [shown(version) for version in versions]]

    assert on_both(flow)[0] == ["weights", "weights"]


def test_names_descriptions_tags_aliases_and_deletion(on_both: OnBoth, name: str) -> None:
    def flow(_: str) -> Any:
        client = MlflowClient()
        seen: list[Any] = [shown_model(client.create_registered_model(name, {"a": "1"}, "what it is"))]
        seen.append(refused(lambda: client.create_registered_model(name)))
        with mlflow.start_run() as run:
            mlflow.log_text("weights", "files/weights.txt")
        for _ in range(3):
            client.create_model_version(name, f"runs:/{run.info.run_id}/files", run_id=run.info.run_id)
        client.set_registered_model_tag(name, "b", "2")
        client.delete_registered_model_tag(name, "a")
        client.update_registered_model(name, "something else")
        client.update_model_version(name, "1", "the first")
        client.set_model_version_tag(name, "1", "t", "u")
        client.set_model_version_tag(name, "1", "v", "w")
        client.delete_model_version_tag(name, "1", "v")
        client.set_registered_model_alias(name, "best", "1")
        client.set_registered_model_alias(name, "old", "1")
        client.delete_registered_model_alias(name, "old")
        seen.append(shown(client.get_model_version_by_alias(name, "best")))
        seen.append([shown(version) for version in client.get_latest_versions(name)])
        client.transition_model_version_stage(name, "1", "Staging")
        client.transition_model_version_stage(name, "2", "Staging", archive_existing_versions=True)
        seen.append([shown(version) for version in client.get_latest_versions(name, ["Staging", "Archived"])])
        client.rename_registered_model(name, f"{name}-new")
        seen.append(shown_model(client.get_registered_model(f"{name}-new")))
        seen.append(refused(lambda: client.get_registered_model(name)))
        client.delete_model_version(f"{name}-new", "1")
        seen.append(refused(lambda: client.get_model_version(f"{name}-new", "1")))
        seen.append(refused(lambda: client.get_model_version_by_alias(f"{name}-new", "best")))
        client.delete_registered_model(f"{name}-new")
        seen.append(refused(lambda: client.delete_registered_model(f"{name}-new")))
        return seen

    on_both(flow)


def test_models_and_versions_are_searched_page_by_page(on_both: OnBoth, name: str) -> None:
    def flow(_: str) -> Any:
        client = MlflowClient()
        with mlflow.start_run() as run:
            mlflow.log_text("weights", "files/weights.txt")
        for number in range(5):
            own = f"{name}-{number}"
            client.create_registered_model(own, {"even": str(number % 2 == 0)})
            client.create_model_version(own, f"runs:/{run.info.run_id}/files", run.info.run_id, {"n": str(number)})
        ours = f"name LIKE '{name}%'"
        page = client.search_registered_models(f"{ours} AND tags.even = 'True'", max_results=2, order_by=["name DESC"])
        rest = client.search_registered_models(
            f"{ours} AND tags.even = 'True'", max_results=2, order_by=["name DESC"], page_token=page.token
        )
        by_run = client.search_model_versions(f"run_id = '{run.info.run_id}'", max_results=3, order_by=["name ASC"])
        by_tag = client.search_model_versions(f"{ours} AND tags.n = '4'")
        fluent = mlflow.search_registered_models(filter_string=ours, order_by=["name ASC"])
        return [
            [[shown_model(model) for model in models] for models in (page, rest, fluent)],
            [[shown(version) for version in versions] for versions in (by_run, by_tag)],
            bool(by_run.token),
            refused(lambda: client.search_model_versions("nonsense")),
        ]

    on_both(flow)


def test_prompts_are_registered_loaded_searched_and_aliased(on_both: OnBoth, name: str) -> None:
    def flow(_: str) -> Any:
        prompt = mlflow.genai.register_prompt(
            name=name, template="Say {{word}}.", commit_message="first", tags={"team": "red"}
        )
        second = mlflow.genai.register_prompt(name=name, template="Shout {{word}}!", commit_message="second")
        mlflow.genai.set_prompt_alias(name, alias="live", version=2)
        mlflow.genai.set_prompt_tag(name, "owner", "me")
        mlflow.genai.set_prompt_version_tag(name, "1", "seen", "yes")
        loaded = [
            mlflow.genai.load_prompt(uri, link_to_model=False)
            for uri in (f"prompts:/{name}/1", f"prompts:/{name}@live", f"prompts:/{name}@latest")
        ]
        texts = [(found.version, found.template, found.format(word="hi"), found.tags) for found in loaded]
        found = mlflow.genai.search_prompts(filter_string=f"name LIKE '{name}%'")
        as_models = MlflowClient().search_registered_models(f"name LIKE '{name}%'")
        as_versions = MlflowClient().search_model_versions(f"name LIKE '{name}%'")
        chat = mlflow.genai.register_prompt(
            name=f"{name}-chat",
            template=[{"role": "user", "content": "Hello {{word}}"}],
            model_config={"model_name": "m"},
        )
        seen = mlflow.genai.load_prompt(f"{name}-chat", version=1)
        mlflow.genai.delete_prompt_alias(name, alias="live")
        gone = mlflow.genai.load_prompt(f"prompts:/{name}@live", allow_missing=True)
        taken = refused(lambda: MlflowClient().create_registered_model(name))
        MlflowClient().delete_prompt_version(name, "2")
        left = [version.version for version in MlflowClient().search_prompt_versions(name, max_results=10)]
        return [
            [prompt.version, second.version, chat.version, chat.template, seen.template, seen.model_config],
            texts,
            [(one.name, one.description, {"team": one.tags["team"], "owner": one.tags["owner"]}) for one in found],
            [len(as_models), len(as_versions), gone, taken, left],
        ]

    on_both(flow)
