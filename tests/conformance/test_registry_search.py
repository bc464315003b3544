"""Searches of the registry: the same models and versions in the same order as MLflow's server finds, same refusals."""

from typing import Any

import pytest

from tests.conformance.compare import Both, Deviation

BAD = (400, "INVALID_PARAMETER_VALUE")
CRASH = (500, "INTERNAL_ERROR")
PROMPT = "mlflow.prompt.is_prompt"

# {p} is a prefix that only this test's models have.
OF_OURS = "name LIKE '{p}%'"


@pytest.fixture(scope="module")
def prefix() -> str:
    return Both.unique("search")


_filled: set[str] = set()


@pytest.fixture
def registry(both: Both, prefix: str) -> Both:
    """Both servers with the same models, once per session: each test only reads."""
    both.name("p", prefix)
    if prefix in _filled:
        for side in both.sides:
            side.bound["run"] = _runs[side.name]
        return both
    both.new_experiment()
    both.new_run()
    for side in both.sides:
        _runs[side.name] = side.bound["run"]
    models: dict[str, dict[str, str]] = {
        "alpha": {"team": "red", "two words": "x y"},
        "Alpha": {"team": "Red"},
        "beta_1": {},
        "é": {"team": "blue", PROMPT: "false"},
        "prompt": {PROMPT: "true", "team": "red"},
        "PROMPT": {PROMPT: "TRUE"},
    }
    for name, tags in models.items():
        both.call("POST", "registered-models/create", json={"name": f"{prefix}-{name}", "tags": _pairs(tags)})
    for name, path, tags in (
        ("alpha", "a", {"stage": "dev"}),
        ("alpha", "b", {"stage": "prod", "x": "1"}),
        ("alpha", "gone", {"stage": "dev"}),
        ("Alpha", "a", {"stage": "Dev"}),
        ("beta_1", "a/b", {}),
        ("prompt", "", {PROMPT: "true", "mlflow.prompt.text": "hello"}),
        ("prompt", "", {PROMPT: "true", "mlflow.prompt.text": "bye"}),
    ):
        source = f"runs:/{{run}}/{path}" if path else "dummy-source"
        request = {
            "name": f"{prefix}-{name}",
            "source": source,
            "run_id": "{run}" if path else "",
            "tags": _pairs(tags),
        }
        both.call("POST", "model-versions/create", json=request)
    both.call("DELETE", "model-versions/delete", json={"name": f"{prefix}-alpha", "version": "3"})
    both.call("POST", "registered-models/alias", json={"name": f"{prefix}-alpha", "alias": "best", "version": "1"})
    _filled.add(prefix)
    return both


_runs: dict[str, str] = {}


def _pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


MODEL_FILTERS = [
    "name = '{p}-alpha'", 'name = "{p}-alpha"', "name = '{p}-ALPHA'", "name LIKE '{p}-a%'", "name ILIKE '{p}-a%'",
    "name ilike '{p}-A%'", "name LIKE '%beta_1' AND name LIKE '{p}%'", "name LIKE '{p}-beta__'",
    "attribute.name = '{p}-é'", "name IN ('{p}-alpha', '{p}-é', 'x')", "name NOT IN ('{p}-alpha') AND " + OF_OURS,
    "name != '{p}-alpha' AND " + OF_OURS, "tags.team = 'red' AND " + OF_OURS, "tag.team != 'red' AND " + OF_OURS,
    "tags.team LIKE 'R%' AND " + OF_OURS, "tags.team ILIKE 'R%' AND " + OF_OURS,
    "tags.`two words` = 'x y' AND " + OF_OURS, "tags.team = 'red' AND tags.`two words` LIKE 'x%' AND " + OF_OURS,
    "tags.team != 'x' AND tags.team != 'red' AND " + OF_OURS, "tags.missing = 'x'", OF_OURS,
    f"tags.`{PROMPT}` = 'true' AND " + OF_OURS, f"tags.`{PROMPT}` = 'TRUE' AND " + OF_OURS,
    f"tags.`{PROMPT}` = 'false' AND " + OF_OURS, f"tags.`{PROMPT}` != 'true' AND " + OF_OURS,
    f"tags.`{PROMPT}` != 'false' AND " + OF_OURS, f"tags.{PROMPT} = 'true' AND tags.team = 'red' AND " + OF_OURS,
    f"tags.`{PROMPT}` LIKE 'true' AND " + OF_OURS,
    f"tags.`{PROMPT}` = 'true' AND tags.`{PROMPT}` != 'true' AND " + OF_OURS,
]  # fmt: skip

BAD_MODEL_FILTERS = [
    " ", "name", "name =", "name = a", "name = 1", "name > 'a'", "name == 'a'", "name IN ()", "name IN (1)",
    "attributes.name = 'a'", "Name = 'a'", "name = 'a' OR name = 'b'", "(name = 'a')", "name = 'a",
    "name = 'a';", "creation_timestamp > 1", "last_updated_timestamp > 1", "description = 'x'", "tags.team > 'a'",
    "tags.team IN ('a')", "tags.team = red", "tags.team = 1", "metrics.a > 1", "params.a = 'x'",
    "run_id = 'x'", "version_number = 1",
]  # fmt: skip

VERSION_FILTERS = [
    *(text for text in MODEL_FILTERS if "tag" not in text or PROMPT in text),
    "tags.stage = 'dev' AND " + OF_OURS, "tags.stage ILIKE 'dev' AND " + OF_OURS, "tag.stage != 'dev' AND " + OF_OURS,
    "tags.stage = 'prod' AND tags.x = '1' AND " + OF_OURS, "run_id = '{run}' AND " + OF_OURS,
    "run_id != '{run}' AND " + OF_OURS, "run_id IN ('{run}', 'x') AND " + OF_OURS, "run_id LIKE '{run}' AND " + OF_OURS,
    "run_id NOT IN ('x') AND " + OF_OURS, "source_path LIKE 'runs:/%/a' AND " + OF_OURS,
    "source_path = 'runs:/{run}/b' AND " + OF_OURS, "source_path ILIKE 'RUNS:%' AND " + OF_OURS,
    "source_path != 'x' AND " + OF_OURS, "version_number = 1 AND " + OF_OURS, "version_number > 1 AND " + OF_OURS,
    "version_number <= 2 AND name = '{p}-alpha'", "version_number != 1 AND " + OF_OURS,
    "version_number = '1' AND " + OF_OURS, 'version_number >= "2" AND ' + OF_OURS,
    "version_number < ' 2 ' AND " + OF_OURS, "version_number > '-1' AND " + OF_OURS,
    "attribute.version_number >= 2 AND " + OF_OURS, "version_number < 99999999999 AND " + OF_OURS,
    f"tags.`{PROMPT}` = 'true' AND name = '{{p}}-prompt'",
]  # fmt: skip

BAD_VERSION_FILTERS = [
    *(text for text in BAD_MODEL_FILTERS if not text.startswith(("run_id", "version_number"))),
    "version_number = 1.5", "version_number = 'x'", "version_number LIKE '1'", "version_number IN (1)",
    "version_number = '1.5'", "version_number = ''", "version_number = '1 2'", "version_number IN ('1')",
    "run_id > 'x'", "run_id = x", "source_path IN ('x')", "source = 'x'", "version = 1",
    "current_stage = 'None'", "creation_timestamp > 0",
]  # fmt: skip


def names(both: Both, path: str, **query: Any) -> list[list[tuple[str, str]]]:
    """What each side found, in its order."""
    both.call("GET", path, params=query, body=False)
    found = []
    for side in both.sides:
        assert side.last is not None
        body = side.last.body
        entries = body.get("registered_models", body.get("model_versions", [])) if side.last.status == 200 else []
        found.append([(entry["name"], entry.get("version", "")) for entry in entries])
    return found


@pytest.mark.parametrize("text", MODEL_FILTERS)
def test_a_filter_selects_the_same_models(registry: Both, text: str) -> None:
    registry.call("GET", "registered-models/search", params={"filter": text})


@pytest.mark.parametrize("text", VERSION_FILTERS)
def test_a_filter_selects_the_same_versions(registry: Both, text: str) -> None:
    registry.call("GET", "model-versions/search", params={"filter": text, "order_by": "name"})


def test_the_filters_select_something(registry: Both) -> None:
    theirs, ours = names(registry, "registered-models/search", filter=OF_OURS)
    assert len(ours) == len(theirs) == 5
    theirs, ours = names(registry, "model-versions/search", filter=OF_OURS)
    assert len(ours) == len(theirs) == 4


@pytest.mark.parametrize("text", BAD_MODEL_FILTERS)
def test_a_bad_filter_of_models_is_refused_alike(registry: Both, text: str) -> None:
    registry.call("GET", "registered-models/search", params={"filter": text})


@pytest.mark.parametrize("path", ["registered-models/search", "model-versions/search"])
@pytest.mark.parametrize("text", ["name IS NULL", "tags.team IS NOT NULL"])
def test_nothing_is_compared_with_null(registry: Both, path: str, text: str) -> None:
    refused = Deviation((500, None), BAD, why="MLflow's parser fails")
    registry.call("GET", path, params={"filter": text}, deviation=refused)


@pytest.mark.parametrize("text", BAD_VERSION_FILTERS)
def test_a_bad_filter_of_versions_is_refused_alike(registry: Both, text: str) -> None:
    registry.call("GET", "model-versions/search", params={"filter": text})


@pytest.mark.parametrize(
    "order_by",
    [
        [], ["name"], ["name DESC"], ["name asc"], ["`name` DESC"], ["timestamp", "name"], ["timestamp DESC"],
        ["last_updated_timestamp ASC"], ["last_updated_timestamp DESC", "name DESC"],
    ],
)  # fmt: skip
def test_an_order_of_models_is_followed(registry: Both, order_by: list[str]) -> None:
    theirs, ours = names(registry, "registered-models/search", filter=OF_OURS, order_by=order_by)
    assert ours == theirs


@pytest.mark.parametrize(
    "order_by",
    [
        [], ["name"], ["name DESC"], ["version_number"], ["version_number DESC", "name DESC"], ["creation_timestamp"],
        ["last_updated_timestamp"], ["last_updated_timestamp DESC"], ["attribute.name DESC", "version_number ASC"],
    ],
)  # fmt: skip
def test_an_order_of_versions_is_followed(registry: Both, order_by: list[str]) -> None:
    theirs, ours = names(registry, "model-versions/search", filter=OF_OURS, order_by=order_by)
    assert ours == theirs


@pytest.mark.parametrize("path", ["registered-models/search", "model-versions/search"])
@pytest.mark.parametrize(
    "order", ["", " name", "foo", "tags.team", "name foo", "name, version", "description", "run_id"]
)
def test_a_bad_order_is_refused_alike(registry: Both, path: str, order: str) -> None:
    registry.call("GET", path, params={"order_by": order})


@pytest.mark.parametrize("path", ["registered-models/search", "model-versions/search"])
def test_an_order_by_the_same_twice_is_refused(registry: Both, path: str) -> None:
    twice = Deviation(CRASH, BAD, why="a client's mistake")
    registry.call("GET", path, params={"order_by": ["name", "name DESC"]}, deviation=twice)


@pytest.mark.parametrize("max_results", ["x", "1.5", "1001", "", "99999999999999999999"])
def test_a_bad_page_size_of_models_is_refused_alike(registry: Both, max_results: str) -> None:
    registry.call("GET", "registered-models/search", params={"max_results": max_results})


@pytest.mark.parametrize("max_results", ["0", "-1"])
def test_a_page_of_no_models_is_refused(registry: Both, max_results: str) -> None:
    empty = Deviation((200, None), BAD, why="an empty page with a token never ends")
    registry.call("GET", "registered-models/search", params={"max_results": max_results}, deviation=empty)


@pytest.mark.parametrize("max_results", ["x", "1.5", "200001", "", "0", "-1"])
def test_a_bad_page_size_of_versions_is_refused_alike(registry: Both, max_results: str) -> None:
    registry.call("GET", "model-versions/search", params={"max_results": max_results})


@pytest.mark.parametrize("path", ["registered-models/search", "model-versions/search"])
@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_pages_follow_each_other(registry: Both, path: str, size: int) -> None:
    token: dict[str, str] = {}
    seen: list[tuple[str, str]] = []
    for _ in range(6):
        query = {"filter": OF_OURS, "max_results": size, "order_by": ["name DESC"], **token}
        theirs, ours = names(registry, path, **query)
        assert ours == theirs
        seen += ours
        more = {side.name: (side.last.body or {}).get("next_page_token") for side in registry.sides if side.last}
        assert bool(more["mlflow"]) == bool(more["runmirror"])
        if not more["mlflow"]:
            break
        for side in registry.sides:
            side.bound["token"] = more[side.name]
        token = {"page_token": "{token}"}
    assert len(seen) == len(set(seen)) >= 4


@pytest.mark.parametrize("path", ["registered-models/search", "model-versions/search"])
def test_a_made_up_page_token_is_refused(registry: Both, path: str) -> None:
    for token in ("nonsense", "bm9uc2Vuc2U=", "e30="):
        registry.call("GET", path, params={"page_token": token})


def test_a_page_token_belongs_to_its_search(registry: Both) -> None:
    query = {"filter": OF_OURS, "max_results": 1}
    registry.call("GET", "registered-models/search", params=query, ignore=("next_page_token",))
    registry.bind("token", "next_page_token")
    other = Deviation((200, None), BAD, why="an offset into another search skips or repeats")
    registry.call("GET", "registered-models/search", params={"page_token": "{token}"}, deviation=other)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("registered-models/search", "`name` = '{p}-alpha'"),
        ("model-versions/search", '"name" = "{p}-alpha"'),
        ("registered-models/search", "attribute.`name` = '{p}-alpha'"),
    ],
)
def test_a_quoted_attribute_is_understood_as_in_other_searches(registry: Both, path: str, text: str) -> None:
    quoted = Deviation(BAD, (200, None), why="MLflow understands it in its searches of runs and experiments")
    registry.call("GET", path, params={"filter": text}, deviation=quoted)
