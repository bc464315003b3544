"""MLflow's own pages over our server, in a real browser: nothing fails that does not fail over `mlflow server`."""

import json
from dataclasses import dataclass

import pytest
from playwright.sync_api import expect

from tests.ui.browser import Filled, visiting
from tests.ui.names import EXPERIMENT, RUNS

# Everybody's first page over `mlflow server` asks who they are, which answers 404 without its login.
ALWAYS = {(404, "GET", "/ajax-api/2.0/mlflow/users/current")}


@dataclass(frozen=True)
class Opened:
    """A page: its name, its address, and what it must show."""

    name: str
    path: str
    shows: tuple[str, ...]


PAGES = [
    Opened("home", "/#/", (EXPERIMENT,)),
    Opened("experiments", "/#/experiments", (EXPERIMENT, "How long, how hot?")),
    Opened("runs", "/#/experiments/{experiment}/runs", RUNS),
    Opened("run", "/#/experiments/{experiment}/runs/{run}", (RUNS[0], "Finished", "kiln", "learning_rate", "glaze")),
    Opened("run-artifacts", "/#/experiments/{experiment}/runs/{run}/artifacts", ("schedule.json", "notes", "images")),
    Opened("run-file", "/#/experiments/{experiment}/runs/{run}/artifacts/notes/log.txt", ("fired at dawn",)),
    Opened("run-system-metrics", "/#/experiments/{experiment}/runs/{run}/system-metrics", (RUNS[0],)),
    Opened("run-traces", "/#/experiments/{experiment}/runs/{run}/traces", (RUNS[0],)),
    Opened("compare", "/#/compare-runs?runs={runs}&experiments=[%22{experiment}%22]", (*RUNS, "learning_rate")),
    Opened("logged-models", "/#/experiments/{experiment}/models", ("glaze-model",)),
    Opened("logged-model", "/#/experiments/{experiment}/models/{model}", ("glaze-model", "{model}", "accuracy")),
    Opened("logged-model-files", "/#/experiments/{experiment}/models/{model}/artifacts", ("MLmodel",)),
    Opened("evaluation-runs", "/#/experiments/{experiment}/evaluation-runs", (EXPERIMENT,)),
    Opened("evaluation-datasets", "/#/experiments/{experiment}/datasets", ("Create dataset", "firing questions")),
    Opened("evaluation-dataset", "/#/experiments/{experiment}/datasets/{dataset}", ("How hot is cone 6?", "1222 °C")),
    Opened("judges", "/#/experiments/{experiment}/judges", ("Judges",)),
    Opened("review-queue", "/#/experiments/{experiment}/review-queue", (EXPERIMENT,)),
    Opened("traces", "/#/experiments/{experiment}/traces", ("whole", "kiln")),
    Opened("trace", "/#/experiments/{experiment}/traces/{trace}", ("heat", "whole")),
    Opened("sessions", "/#/experiments/{experiment}/chat-sessions", (EXPERIMENT,)),
    Opened("experiment-overview", "/#/experiments/{experiment}/overview/usage", (EXPERIMENT,)),
    Opened("experiment-prompts", "/#/experiments/{experiment}/prompts", (EXPERIMENT,)),
    Opened("prompt", "/#/prompts/greet", ("greet", "Good evening, {{{{name}}}}!")),
    Opened("registry", "/#/models", ("glaze",)),
    Opened("registered-model", "/#/models/glaze", ("Version 1",)),
    Opened("model-version", "/#/models/glaze/versions/1", ("glaze", RUNS[0])),
    Opened("prompts", "/#/prompts", ("greet",)),
    Opened("mcp-registry", "/#/mcp-registry", ("MCP",)),
    Opened("settings", "/#/settings", ("Settings",)),
]


def address(site: Filled, template: str) -> str:
    runs = json.dumps(site.runs).replace(" ", "")
    return template.format(
        experiment=site.experiment, run=site.runs[0], runs=runs, model=site.model, trace=site.trace,
        dataset=site.dataset,
    )  # fmt: skip


@pytest.mark.parametrize("opened", PAGES, ids=[page.name for page in PAGES])
def test_a_page_shows_its_contents_and_nothing_fails(
    opened: Opened, ours: Filled, request: pytest.FixtureRequest
) -> None:
    with visiting(ours, address(ours, opened.path)) as visit:
        visit.picture(opened.name)
        for text in opened.shows:
            shown = visit.page.get_by_text(address(ours, text)).locator("visible=true").first
            expect(shown).to_be_visible()
        failures, toasts, errors = visit.failures - ALWAYS, visit.toasts, visit.errors
    if failures or toasts or errors:
        theirs: Filled = request.getfixturevalue("theirs")
        with visiting(theirs, address(theirs, opened.path)) as visit:
            assert failures <= visit.failures
            assert set(toasts) <= set(visit.toasts)
            assert set(errors) <= set(visit.errors)


def test_a_page_asks_only_below_the_prefix(ours: Filled) -> None:
    with visiting(ours, "/#/experiments") as visit:
        assert visit.strays == set()
        assert ("GET", "/ajax-api/3.0/mlflow/server-info") in visit.asked


@pytest.mark.parametrize(
    ("name", "path", "lines"),
    [  # of every run: loss and temperature
        ("run-charts", "/#/experiments/{experiment}/runs/{run}/model-metrics", 2),
        ("charts", "/#/experiments/{experiment}/runs?compareRunsMode=CHART", 6),
        (
            "metric",
            "/#/metric?runs={runs}&metric=%22loss%22&experiments=[%22{experiment}%22]&plot_metric_keys=[%22loss%22]",
            3,
        ),
    ],
)
def test_charts_are_drawn_with_a_line_for_every_run(ours: Filled, name: str, path: str, lines: int) -> None:
    with visiting(ours, address(ours, path)) as visit:
        drawn = visit.page.locator(".js-plotly-plot svg .scatterlayer path.js-line")
        expect(drawn.nth(lines - 1)).to_be_attached(timeout=20_000)
        visit.picture(name)
        for line in drawn.all():
            corners = (line.get_attribute("d") or "").replace("C", "L").replace("S", "L").count("L")
            assert corners > 5, "a curve of 60 points"
        assert not visit.failures - ALWAYS
        assert visit.toasts == []


def test_what_is_typed_into_the_filter_selects_runs(ours: Filled) -> None:
    with visiting(ours, address(ours, "/#/experiments/{experiment}/runs")) as visit:
        search = visit.page.get_by_placeholder("metrics.rmse < 1").first
        search.fill('params.glaze = "glaze-2"')
        search.press("Enter")
        expect(visit.page.get_by_text(RUNS[0], exact=True)).to_have_count(0)
        expect(visit.page.get_by_text(RUNS[1], exact=True).first).to_be_visible()
        assert not visit.failures - ALWAYS
