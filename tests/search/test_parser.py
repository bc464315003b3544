"""The language without a database: what is understood, what is refused and where, and how long that takes."""

import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runmirror.errors import InvalidParameter
from runmirror.search.languages import EXPERIMENTS, RUNS
from runmirror.search.parser import MAX_COMPARISONS, MAX_FILTER_LENGTH, MAX_ORDER_BY, parse_filter, parse_order_by
from runmirror.search.tree import Comparison, Entity, Operator, SortKey

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mlflow.exceptions import MlflowException
    from mlflow.utils.search_utils import SearchUtils

EQ = Operator.EQUAL


def test_a_filter_becomes_a_tree_of_comparisons() -> None:
    assert parse_filter("metrics.loss < 0.5 and params.`my lr` != 'x' AND created >= 7", RUNS) == (
        Comparison(Entity.METRIC, "loss", Operator.LESS, 0.5),
        Comparison(Entity.PARAM, "my lr", Operator.UNEQUAL, "x"),
        Comparison(Entity.ATTRIBUTE, "start_time", Operator.AT_LEAST, 7),
    )


@pytest.mark.parametrize(
    ("text", "entity", "key", "operator", "value"),
    [
        ("metric.a = -1", Entity.METRIC, "a", EQ, -1),
        ("metrics.a.b >= 1e-3", Entity.METRIC, "a.b", Operator.AT_LEAST, 1e-3),
        ("`metrics`.`a``b` = .5", Entity.METRIC, "a``b", EQ, 0.5),
        ('parameters."a`b" = "it\'s"', Entity.PARAM, "a`b", EQ, "it's"),
        ("params.a = 'C:\\'", Entity.PARAM, "a", EQ, "C:\\"),
        ("params.a = 'it\\'s'", Entity.PARAM, "a", EQ, "it\\'s"),
        ("params.and = 'and'", Entity.PARAM, "and", EQ, "and"),
        ("tags.日本 ilike '%x'", Entity.TAG, "日本", Operator.ILIKE, "%x"),
        ("tag.mlflow.user is not null", Entity.TAG, "mlflow.user", Operator.IS_NOT_NULL, None),
        ("run_id in ('a', \"b\",)", Entity.ATTRIBUTE, "run_id", Operator.IN, ("a", "b")),
        ("attr.run_id NOT IN('a')", Entity.ATTRIBUTE, "run_id", Operator.NOT_IN, ("a",)),
        ("\"Run Name\" LIKE 'x'", Entity.ATTRIBUTE, "run_name", Operator.LIKE, "x"),
        ("datasets.context != 'x'", Entity.DATASET, "context", Operator.UNEQUAL, "x"),
        ("end_time < 1.5", Entity.ATTRIBUTE, "end_time", Operator.LESS, 1.5),
        (f"end_time < {'9' * 30}", Entity.ATTRIBUTE, "end_time", Operator.LESS, 1e30),
    ],
)
def test_a_comparison_is_understood(text: str, entity: Entity, key: str, operator: Operator, value: Any) -> None:
    assert parse_filter(text, RUNS) == (Comparison(entity, key, operator, value),)


@pytest.mark.parametrize(
    ("text", "why", "position", "near"),
    [
        ("metrics.a == 1", "invalid comparator; metric 'a' accepts !=, <, <=, =, >, >=", 11, "=="),
        ("metrics.a > 'x'", "expected a number", 13, "'x'"),
        ("status > 'A'", "invalid comparator; attribute 'status' accepts", 8, ">"),
        ("params.a = 1", "expected a text in single or double quotes", 12, "1"),
        ("params.a = 'x' OR params.b = 'y'", "OR is not supported", 16, "OR"),
        ("params.a = 'x' AND (params.b = 'y')", "parentheses are not supported", 20, "("),
        ("params.a = 'x", "the quote ' is never closed", 12, "'x"),
        ("params.a-b = 'x'", "stands in backticks", 9, "-"),
        ("params.my key = 'x'", "invalid comparator", 11, "key"),
        ("nonsense = 'x'", "invalid attribute key 'nonsense'; valid keys are", 1, "nonsense"),
        ("foo.a = 'x'", "invalid entity type; expected one of metric", 1, "foo"),
        ("run_id IN ('a' 'b')", "expected a comma", 16, "'b'"),
        ("run_id IN ()", "the list is empty", 11, "("),
        ("tags.a IS 1", "expected NULL or NOT NULL", 11, "1"),
        ("metrics.a >", "expected a number", 12, None),
        ("params.a = 'x' AND metrics.", "the key of the metric is missing", 28, None),
        ("tags.a = '\0'", "NUL", 11, "\0"),
        ("tags.a = '\ud800'", "Unicode", 11, "\ud800"),
        ("   ", "it is blank", 4, None),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, why: str, position: int, near: str | None) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_filter(text, RUNS)
    message = refused.value.message
    assert message.startswith("Invalid filter: ")
    assert why in message
    assert f"(at position {position}, {'where it ends' if near is None else f'near {near!r}'})" in message


def test_experiments_have_a_language_of_their_own() -> None:
    assert parse_filter("attribute.name = 'a' AND experiment_id IN ('1')", EXPERIMENTS)[1].texts == ("1",)
    for text in ("attributes.name = 'a'", "metrics.a > 1", "creation_time > 1.5", "name IS NULL", "run_name = 'a'"):
        with pytest.raises(InvalidParameter):
            parse_filter(text, EXPERIMENTS)


@pytest.mark.parametrize(
    ("clause", "key"),
    [
        ("metrics.a", SortKey(Entity.METRIC, "a")),
        ("metrics.`a b` dEsC", SortKey(Entity.METRIC, "a b", descending=True)),
        ("params.desc ASC", SortKey(Entity.PARAM, "desc")),
        ("Created DESC", SortKey(Entity.ATTRIBUTE, "start_time", descending=True)),
    ],
)
def test_an_order_becomes_a_sort_key(clause: str, key: SortKey) -> None:
    assert parse_order_by([clause], RUNS) == (key,)


def test_a_repeated_order_is_refused_for_runs_and_has_no_effect_for_experiments() -> None:
    with pytest.raises(InvalidParameter, match="duplicate fields"):
        parse_order_by(["created", "start_time DESC"], RUNS)
    assert parse_order_by(["name", "name DESC"], EXPERIMENTS) == (SortKey(Entity.ATTRIBUTE, "name"),)


def test_there_is_an_end_to_how_much_may_be_asked() -> None:
    most = " AND ".join(["metrics.a > 1"] * MAX_COMPARISONS)
    assert len(parse_filter(most, RUNS)) == MAX_COMPARISONS
    ids = ", ".join(["'0123456789abcdef0123456789abcdef'"] * 2000)
    assert len(parse_filter(f"run_id IN ({ids})", RUNS)) == 1
    for text in (f"{most} AND metrics.a > 1", "tags.a = '" + "x" * MAX_FILTER_LENGTH + "'"):
        with pytest.raises(InvalidParameter, match="at most"):
            parse_filter(text, RUNS)
    with pytest.raises(InvalidParameter, match="at most"):
        parse_order_by([f"metrics.m{n}" for n in range(MAX_ORDER_BY + 1)], RUNS)
    with pytest.raises(InvalidParameter, match="at most"):
        parse_order_by(["metrics." + "m" * MAX_FILTER_LENGTH], RUNS)


# Words of the language and of its surroundings, glued together with and without blanks.
_PIECES = st.sampled_from(
    ["metrics", "params", "tags", "dataset", "run_id", "status", "start_time", "name", "a", "1a", "é", ".", ".", " ",
     "=", "!=", "<", ">=", "==", "LIKE", "ilike", "IN", "NOT", "IS", "NULL", "AND", "and", "OR", "(", ")", ",", ";",
     "'x'", '"x"', "`x`", "'", '"', "`", "\\", "1", "-1", ".5", "1e5", "1e", "-", "+", "#", "%", "\n", "\0", "ASC",
     "desc", " "]
)  # fmt: skip
_TEXTS = (
    st.text(max_size=60) | st.lists(_PIECES, max_size=14).map("".join) | st.lists(_PIECES, max_size=14).map(" ".join)
)


@given(_TEXTS)
@example("metrics.a > " + "9" * 400)
@example("run_id IN (" * 500)
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    for language in (RUNS, EXPERIMENTS):
        for parse in (lambda: parse_filter(text, language), lambda: parse_order_by([text], language)):  # noqa: B023
            assert len(_refusal(parse)) < 500  # the error repeats a little of the text, not all of it


def _refusal(parse: Callable[[], object]) -> str:
    try:
        parse()
    except InvalidParameter as refused:
        return refused.message
    return ""


@settings(max_examples=300)
@given(st.lists(_PIECES, max_size=10).map(" ".join))
def test_what_both_parsers_understand_they_understand_alike(text: str) -> None:
    """MLflow's own parser, in process, is asked about thousands of texts that nobody thought of."""
    try:
        ours = [(c.entity, c.key, c.operator, c.value) for c in parse_filter(text, RUNS)]
        theirs = SearchUtils.parse_search_filter(text)
    except (InvalidParameter, MlflowException, ValueError):
        return
    as_ours = []
    for found in theirs:
        key, value = found["key"], found["value"]
        if found["type"] == "attribute":
            key = SearchUtils.translate_key_alias(key)
        as_ours.append(
            (found["type"], key, found["comparator"].upper(), float(value) if found["type"] == "metric" else value)
        )
    assert ours == as_ours


@pytest.mark.parametrize(
    "unit",
    ["'", '"', "`", "'a'", "''", "\\'", "1", "1.", "-", "(", "a.", "a ", "=", "AND ", ".5", "1e5", "metrics.a>1 ",
     "'\\", "run_id IN (", "9.9e9x", "`` ", "' \""],
)  # fmt: skip
def test_time_grows_with_the_length_of_the_text_and_no_faster(unit: str) -> None:
    """100,000 characters take well under a second; anything quadratic would take minutes."""
    for text in (
        unit * (MAX_FILTER_LENGTH // len(unit)),
        "tags.a = '" + unit * ((MAX_FILTER_LENGTH - 20) // len(unit)),
    ):
        started = time.process_time()  # what others do on this machine meanwhile does not count
        with suppress(InvalidParameter):
            parse_filter(text, RUNS)
        assert time.process_time() - started < 2
