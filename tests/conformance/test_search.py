"""runs/search: the same runs in the same order as MLflow's server finds, the same answer to what is wrong."""

import pytest

from tests.conformance import search_cases as cases
from tests.conformance.search_data import Searched

BAD = (400, "INVALID_PARAMETER_VALUE")
CRASH = (500, "INTERNAL_ERROR")

# (text, what MLflow makes of it, what we make of it, why): runs by number, or (status, error_code)
DIFFERENT_FILTERS = [
    ("metrics.order > 1e+1 AND metrics.order < 13", BAD, ["12", "11"], "Python writes large floats this way"),
    ("metrics.1 > 1", BAD, [], "a key may be a number, as in order_by"),
    ("params.from = 'x'", BAD, [], "words of SQL are keys like others"),
    ("metrics.case > 1", BAD, [], "words of SQL are keys like others"),
    ("tags.team IS NOT  NULL AND tags.n = '01'", BAD, ["01"], "blanks are free everywhere"),
    ("run_id IN ('a') run_id IN ('b')", BAD, [], "an AND may be missing, as between other comparisons"),
    ("metrics.acc > 0 AND metrics. acc > 0", (200, None), BAD, "a blank in a key is a slip; MLflow asks for ' acc'"),
    ("params. = 'x'", [], BAD, "no key can be empty"),
    ("params.`` = 'x'", [], BAD, "no key can be empty"),
    ("params.[a] = 'x'", [], BAD, "one way to quote a key is enough"),
    ("run_id IN ('a' 'b')", [], BAD, "Python joins the two; in a list it is a forgotten comma"),
    ("run_id IN (('a', 'b'))", [], BAD, "lists do not nest"),
    ("dataset.name IN ('Ir\\x69s')", ["25", "15", "10", "00"], [], "a backslash is a backslash in a list as well"),
    ("run_id = ('a')", (400, "BAD_REQUEST"), BAD, "SQLite's driver refuses it, with the SQL in the message"),
    ("run_id IN (a)", CRASH, BAD, "a mistake of the caller"),
    ("start_time < 99999999999999999999 AND tags.n = '01'", CRASH, ["01"], "a number too large is still a number"),
    ("params.opt = '\0'", [], BAD, "no stored text has a NUL, and Postgres takes none"),
]
DIFFERENT_ORDERS = [
    (["metrics.acc", "metrics.acc DESC"], CRASH, BAD, "a mistake of the caller"),
    (["created", "start_time"], CRASH, BAD, "a mistake of the caller"),
    (["metrics."], (200, None), BAD, "no key can be empty"),
    (["metrics.from"], BAD, (200, None), "words of SQL are keys like others"),
    (['metrics.`a"b` DESC'], CRASH, (200, None), "any key can stand in backticks"),
    (['metrics.acc "DESC"'], (200, None), BAD, "a direction is a word, not a text"),
]


@pytest.mark.parametrize("text", cases.FILTERS)
def test_a_filter_finds_what_mlflow_finds(searched: Searched, text: str) -> None:
    searched.compare(filter=text)


@pytest.mark.parametrize("text", cases.BAD_FILTERS)
def test_a_filter_is_refused_where_mlflow_refuses_it(searched: Searched, text: str) -> None:
    searched.compare_refusal(filter=text)


@pytest.mark.parametrize("clauses", cases.ORDERS, ids=" then ".join)
def test_an_order_is_the_one_of_mlflow(searched: Searched, clauses: list[str]) -> None:
    searched.compare(order_by=clauses, run_view_type="ALL")


@pytest.mark.parametrize("clauses", cases.BAD_ORDERS, ids=" then ".join)
def test_an_order_is_refused_where_mlflow_refuses_it(searched: Searched, clauses: list[str]) -> None:
    searched.compare_refusal(order_by=clauses)


def test_most_filters_find_some_runs_but_not_all(searched: Searched) -> None:
    """The data has to tell filters apart, or the comparisons above would prove little."""
    found = [len(searched.compare(filter=text)) for text in cases.FILTERS]
    telling = [number for number in found if 0 < number < cases.ACTIVE_RUNS]
    assert len(telling) > len(found) * 0.7


@pytest.mark.parametrize("view", ["ACTIVE_ONLY", "DELETED_ONLY", "ALL"])
def test_a_view_shows_the_runs_of_its_stage(searched: Searched, view: str) -> None:
    searched.compare(run_view_type=view)
    searched.compare(run_view_type=view, filter="metrics.acc > 0.2", order_by=["metrics.acc DESC"])


def test_runs_that_started_together_come_in_the_order_of_their_ids(searched: Searched) -> None:
    together = "attributes.start_time = 1030"
    assert len(searched.compare(filter=together)) == 3
    searched.compare(filter=together, order_by=["run_id DESC"])
    searched.compare(filter=together, order_by=["attributes.run_id", "start_time"])


@pytest.mark.parametrize(
    "text",
    [
        "run_id = '{r03}'",
        "run_id != '{r03}'",
        "attributes.run_id IN ('{r03}', '{r04}', 'unknown')",
        "run_id IN ('{r05}')",
        "run_id NOT IN ('{r03}', 'unknown')",
        "run_id LIKE '{r03}'",
        "run_id LIKE '{r03}%' AND run_id IN ('{r03}', '{r04}')",
        "run_id ILIKE '{r03}' AND metrics.acc < 100",
        "run_id IN ('{r03}', '{r07}') AND tags.team IS NULL",
        "run_id = '{r29}'",
    ],
)
def test_runs_are_found_by_id(searched: Searched, text: str) -> None:
    searched.compare(filter=text)
    searched.compare(filter=text, run_view_type="ALL")


@pytest.mark.parametrize("order_by", [[], ["metrics.acc DESC"], ["params.opt"], ["tags.team DESC", "metrics.acc"]])
@pytest.mark.parametrize("size", [1, 4, 10, 30, 31])
def test_pages_together_are_the_whole(searched: Searched, order_by: list[str], size: int) -> None:
    whole = searched.compare(order_by=order_by, run_view_type="ALL")
    pages = searched.compare_pages(size, order_by=order_by, run_view_type="ALL")
    assert [run for page in pages for run in page] == whole


@pytest.mark.parametrize("max_results", [1, 29, 50_000, "7"])
def test_max_results_that_mlflow_takes(searched: Searched, max_results: object) -> None:
    searched.compare(max_results=max_results)


@pytest.mark.parametrize("max_results", [0, -1, 50_001, "x", 2**40])
def test_max_results_that_mlflow_refuses(searched: Searched, max_results: object) -> None:
    searched.compare_refusal(max_results=max_results)


@pytest.mark.parametrize(("max_results", "theirs"), [([1], (500, None)), (1.5, (200, None))])
def test_max_results_is_one_whole_number(searched: Searched, max_results: object, theirs: object) -> None:
    searched.differs(theirs, BAD, "MLflow fails on a list and cuts a fraction off", max_results=max_results)


@pytest.mark.parametrize(
    "ids", [[], ["999999"], ["{experiment}", "{other}"], ["{other}"], ["{experiment}", "999"], ["0{experiment}"]]
)
def test_runs_of_the_named_experiments_only(searched: Searched, ids: list[str]) -> None:
    searched.compare(experiment_ids=ids)


@pytest.mark.parametrize("ids", [["x"], [""], ["{experiment}", "1.5"], "{experiment}"])
def test_an_experiment_id_that_is_no_number_is_refused(searched: Searched, ids: object) -> None:
    searched.compare_refusal(experiment_ids=ids)


@pytest.mark.parametrize("token", ["garbage", "e30=", "bm90IGpzb24="])
def test_a_page_token_that_is_none_is_refused(searched: Searched, token: str) -> None:
    searched.compare_refusal(page_token=token)


@pytest.mark.parametrize(("text", "theirs", "ours", "why"), DIFFERENT_FILTERS)
def test_a_filter_that_is_read_differently_on_purpose(
    searched: Searched, text: str, theirs: object, ours: object, why: str
) -> None:
    searched.differs(theirs, ours, why, filter=text)


@pytest.mark.parametrize(("clauses", "theirs", "ours", "why"), DIFFERENT_ORDERS)
def test_an_order_that_is_read_differently_on_purpose(
    searched: Searched, clauses: list[str], theirs: object, ours: object, why: str
) -> None:
    searched.differs(theirs, ours, why, order_by=clauses)


def test_a_token_of_another_search_is_refused_not_followed(searched: Searched) -> None:
    """MLflow's tokens are offsets and fit any search; ours would give out rows that the caller did not ask for."""
    first = searched.ask(max_results=3)
    for side in searched.both.sides:
        side.bound["token"] = first[side.name]["next_page_token"]
    why = "an offset into another search means nothing"
    fields = {"max_results": 3, "page_token": "{token}", "filter": "metrics.acc > 0"}
    searched.differs((200, None), BAD, why, **fields)


def test_an_experiment_id_beyond_64_bits_is_only_unknown(searched: Searched) -> None:
    why = "an id that cannot exist has no runs; SQLite's driver raises"
    searched.differs(CRASH, [], why, experiment_ids=["9" * 30])


def test_a_run_is_found_by_the_name_it_shows(searched: Searched) -> None:
    """MLflow reads the tag mlflow.runName, which can be deleted; we read the name that `runs/get` answers."""
    searched.call("runs/create", {"experiment_id": "{other}", "start_time": 1, "run_name": "untagged"})
    searched.both.bind("untagged", "run.info.run_id")
    searched.call("runs/delete-tag", {"run_id": "{untagged}", "key": "mlflow.runName"})
    searched.call("runs/set-tag", {"run_id": "{untagged}", "key": "n", "value": "untagged"})
    why = "the name is still the run's name"
    searched.differs([], ["untagged"], why, filter="run_name = 'untagged'", experiment_ids=["{other}"])
