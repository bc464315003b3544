"""experiments/search: the same experiments in the same order as MLflow's server finds, the same refusals."""

from typing import Any

import httpx
import pytest

from tests.conformance.compare import Both, Deviation, Side

BAD = (400, "INVALID_PARAMETER_VALUE")
CRASH = (500, "INTERNAL_ERROR")

FILTERS = [
    "",
    "name = '{prefix}-Alpha'", "name = '{prefix}-alpha'", 'name != "{prefix}-alpha"',
    "attribute.name LIKE '{prefix}-a%'",
    "name ILIKE '{prefix}-A%'", "`name` LIKE '%_beta'", '"name" LIKE "%\\_beta"', "attribute.`name` LIKE '%-é'",
    "experiment_id = '{e1}'", "experiment_id != '{e1}'", "experiment_id IN ('{e1}', '{e2}')",
    "experiment_id NOT IN ('{e1}', '0')", "experiment_id IN ('{e3}')", "attribute.experiment_id = '0'",
    "experiment_id IN ('999999')", "experiment_id = '0{e1}'",
    "creation_time > 0", "creation_time < 1000", "last_update_time >= 1", "creation_time != 5",
    "creation_time > 0 AND last_update_time > 0 AND name LIKE '%'",
    "tags.team = 'red'", "tag.team != 'red'", "tags.team LIKE 'r%'", "tags.team ILIKE 'RED'", "tags.team = 'Red'",
    "tags.`two words` = 'x y'", "tags.team IS NULL", "tags.team IS NOT NULL", "tags.unknown != 'x'",
    "tags.team = 'red' AND name LIKE '%alpha'", "tags.team IS NULL AND experiment_id IN ('{e1}', '{e2}', '{e3}')",
    "tags.gone IS NULL AND tags.team IS NOT NULL",
]  # fmt: skip

BAD_FILTERS = [
    " ", "name", "name =", "name = a", "name = 1", "name > 'a'", "name == 'a'", "name IN ('a')", "name IS NULL",
    "attributes.name = 'a'", "attr.name = 'a'", "`attribute`.name = 'a'", "Name = 'a'", "lifecycle_stage = 'active'",
    "experiment_id = 1", "experiment_id = 'x'", "experiment_id = ''", "experiment_id > '1'", "experiment_id LIKE '1'",
    "experiment_id IN ('x')", "experiment_id IN (1)", "experiment_id IN ()", "creation_time > 1.5",
    "creation_time = '1'", "creation_time IN (1)", "creation_time IS NULL", "creation_time LIKE '1'", "created > 1",
    "tags.team > 'a'", "tags.team IN ('a')", "tags.team = red", "tags.team = 1", "metrics.a > 1", "params.a = 'x'",
    "dataset.name = 'x'", "name = 'a' OR name = 'b'", "(name = 'a')", "name = 'a", "name = 'a';", "foo = 'x'",
]  # fmt: skip

ORDERS = [
    ["name"], ["name DESC"], ["attribute.name ASC"], ["`name` desc"], ["experiment_id"], ["experiment_id DESC"],
    ["name", "experiment_id"], ["name ASC", "name DESC"], ["last_update_time DESC", "name"], [],
]  # fmt: skip

BAD_ORDERS = [
    [""], [" name"], ["tags.team"], ["tag.team DESC"], ["metrics.a"], ["attributes.name"], ["foo"], ["name foo"],
    ["lifecycle_stage"], ["name, experiment_id"], ["name DESC NULLS LAST"],
]  # fmt: skip


class Searched:
    """Two servers with the same experiments; searches are compared over those whose name has our prefix."""

    def __init__(self, both: Both) -> None:
        self.both = both
        self.prefix = both.unique("search")
        for side in both.sides:
            side.bound["prefix"] = self.prefix
        names = ["alpha", "Alpha", "_beta", "-beta", "é", "gone", "z"]
        tags = [
            {"team": "red"},
            {"team": "Red", "two words": "x y"},
            {},
            {"team": "blue"},
            {"team": ""},
            {"team": "red"},
        ]
        for number, (name, own) in enumerate(zip(names, [*tags, {}], strict=True), start=1):
            pairs = [{"key": key, "value": value} for key, value in own.items()]
            both.call("POST", "experiments/create", json={"name": f"{self.prefix}-{name}", "tags": pairs})
            both.bind(f"e{number}", "experiment_id")
        both.call("POST", "experiments/delete", json={"experiment_id": "{e6}"})

    def ask(self, **fields: Any) -> dict[str, Any]:
        self.both.call("POST", "experiments/search", json={"max_results": 1000, **fields}, body=False)
        return {side.name: side.last.body for side in self.both.sides if side.last is not None}

    def compare(self, **fields: Any) -> list[str]:
        """The names, without the prefix, that both sides found in the same order."""
        found = {name: self.names(answer) for name, answer in self.ask(**fields).items()}
        assert found["runmirror"] == found["mlflow"], fields
        return found["mlflow"]

    def compare_refusal(self, **fields: Any) -> None:
        self.ask(**fields)
        assert all(side.last is not None and side.last.status == 400 for side in self.both.sides), fields

    def differs(self, theirs: Any, ours: Any, why: str, **fields: Any) -> None:
        body = {"max_results": 1000, **fields}
        self.both.call("POST", "experiments/search", json=body, deviation=Deviation(theirs, ours, why=why))

    def names(self, answer: dict[str, Any]) -> list[str]:
        found = [experiment["name"] for experiment in answer.get("experiments", [])]
        return [name.removeprefix(self.prefix) for name in found if name.startswith(self.prefix)]


@pytest.fixture(scope="module")
def searched(conformance_clients: tuple[httpx.Client, httpx.Client]) -> Searched:
    mlflow, ours = conformance_clients
    return Searched(Both(Side("mlflow", str(mlflow.base_url), mlflow), Side("runmirror", str(ours.base_url), ours)))


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_finds_what_mlflow_finds(searched: Searched, text: str) -> None:
    searched.compare(filter=text)
    searched.compare(filter=text, view_type="ALL", order_by=["name DESC"])


@pytest.mark.parametrize("text", BAD_FILTERS)
def test_a_filter_is_refused_where_mlflow_refuses_it(searched: Searched, text: str) -> None:
    searched.compare_refusal(filter=text)


@pytest.mark.parametrize("clauses", ORDERS, ids=" then ".join)
def test_an_order_is_the_one_of_mlflow(searched: Searched, clauses: list[str]) -> None:
    assert len(searched.compare(order_by=clauses)) == 6


@pytest.mark.parametrize("clauses", BAD_ORDERS, ids=" then ".join)
def test_an_order_is_refused_where_mlflow_refuses_it(searched: Searched, clauses: list[str]) -> None:
    searched.compare_refusal(order_by=clauses)


@pytest.mark.parametrize("view", ["ACTIVE_ONLY", "DELETED_ONLY", "ALL"])
def test_a_view_shows_the_experiments_of_its_stage(searched: Searched, view: str) -> None:
    found = searched.compare(view_type=view)
    assert ("-gone" in found) == (view != "ACTIVE_ONLY")


def test_a_query_string_finds_the_same(searched: Searched) -> None:
    params = {"max_results": 5, "filter": "name LIKE '{prefix}%'", "order_by": ["name DESC"], "view_type": "ALL"}
    searched.both.call("GET", "experiments/search", params=params, body=False)
    found = [searched.names(side.last.body) for side in searched.both.sides if side.last is not None]
    assert found[0] == found[1]
    assert len(found[0]) == 5


def test_pages_together_are_the_whole(searched: Searched) -> None:
    for size in (1, 2, 7, 8):
        fields: dict[str, Any] = {"filter": "name LIKE '{prefix}%'", "view_type": "ALL", "order_by": ["name"]}
        pages: list[str] = []
        while True:
            page = searched.compare(**fields, max_results=size)
            pages += page
            bodies = [side.last.body for side in searched.both.sides if side.last is not None]
            assert len({"next_page_token" in body for body in bodies}) == 1
            if "next_page_token" not in bodies[0]:
                break
            for side, body in zip(searched.both.sides, bodies, strict=True):
                side.bound["next"] = body["next_page_token"]
            fields["page_token"] = "{next}"
        assert len(pages) == len(set(pages)) == 7


@pytest.mark.parametrize("max_results", [0, -1, 50_001, None])
def test_max_results_that_mlflow_refuses(searched: Searched, max_results: object) -> None:
    searched.compare_refusal(max_results=max_results)


def test_a_page_token_that_is_none_is_refused(searched: Searched) -> None:
    searched.compare_refusal(page_token="garbage")


def test_a_filter_that_is_read_differently_on_purpose(searched: Searched) -> None:
    answered = (200, None)
    searched.differs(BAD, answered, "like is LIKE, as in runs/search", filter="name like '%'")
    searched.differs(
        BAD, answered, "in is IN, as in runs/search", filter="experiment_id not in ('1') AND name like '%'"
    )
    searched.differs(CRASH, answered, "an id that cannot exist is unknown", filter=f"experiment_id = '{'9' * 30}'")
    searched.differs(CRASH, answered, "a number too large is a number", filter=f"creation_time < {'9' * 30}")
