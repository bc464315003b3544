"""What MLflow's own page of a run says about its copy in the workspace."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.azureml_emulator.process import EmulatorProcess, start_emulator
from tests.end_to_end.test_lifetimes import azure_environment, mirrored
from tests.server import Server, serving
from tests.ui.browser import Filled, visiting


@pytest.fixture
def workspace(open_folder: Path) -> Iterator[EmulatorProcess]:
    with start_emulator(open_folder / "azure") as emulator:
        yield emulator


def a_finished_run(server: Server) -> str:
    with httpx.Client(base_url=f"{server.url}/api/2.0/mlflow", trust_env=False) as client:
        made = client.post("/runs/create", json={"experiment_id": "0", "run_name": "mirrored-run", "start_time": 1})
        run_id: str = made.raise_for_status().json()["run"]["info"]["run_id"]
        ended = {"run_id": run_id, "status": "FINISHED", "end_time": 2}
        client.post("/runs/update", json=ended).raise_for_status()
    return run_id


def test_the_page_of_a_run_shows_its_mirror_status_and_the_way_to_the_studio(
    browser: Browser, workspace: EmulatorProcess, open_folder: Path
) -> None:
    with serving(open_folder / "data", **azure_environment(workspace)) as server:
        run_id = a_finished_run(server)
        row = mirrored(server, run_id)
        described = {"run_id": run_id, "key": "mlflow.note.content", "value": f"[In the studio]({row['portal_url']})"}
        told = httpx.post(f"{server.url}/api/2.0/mlflow/runs/set-tag", json=described, trust_env=False)
        told.raise_for_status()
        mirrored(server, run_id)
        with closing(browser.new_context(viewport={"width": 1600, "height": 1000})) as context:
            site = Filled("ours", server.url, "0", [run_id], "no-model", "no-trace", "no-dataset", context)
            with visiting(site, f"/#/experiments/0/runs/{run_id}") as visit:
                for text in ("runmirror.status", "mirrored", "runmirror.azureml.run_id"):
                    expect(visit.page.get_by_text(text).locator("visible=true").first).to_be_visible()
                visit.picture("mirrored-run")
                # MLflow links no tag, whoever serves its page; in a description the address is one, just as it is.
                link = visit.page.get_by_role("link", name="In the studio")
                expect(link).to_have_attribute("href", row["portal_url"])
                visit.page.get_by_text("runmirror.azureml.portal_url").locator("visible=true").first.click()
                whole = visit.page.get_by_role("dialog").get_by_text(row["portal_url"], exact=True)
                expect(whole).to_be_visible()
                assert visit.toasts == []
    assert row["portal_url"].startswith(f"https://ml.azure.com/runs/{row['remote_run_id']}?wsid=/subscriptions/")
