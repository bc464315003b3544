"""The harness itself: what it calls equal, what it calls different, and that both servers answer."""

import math

import pytest

from tests.conformance.compare import Both, Deviation, assert_same


def test_both_servers_answer_an_unknown_run_alike(both: Both) -> None:
    both.call("GET", "runs/get", params={"run_id": "0" * 32}, message=True)


def test_nan_equals_nan_and_a_whole_float_equals_its_integer() -> None:
    assert_same("values", {"a": math.nan}, {"a": math.nan})


def test_a_difference_is_shown_with_both_values() -> None:
    with pytest.raises(AssertionError, match=r'(?s)-  "a": 1.*\+  "a": 2'):
        assert_same("values", {"a": 1}, {"a": 2})


def test_a_deviation_that_is_no_longer_there_fails(both: Both) -> None:
    gone = Deviation((500, "INTERNAL_ERROR"), (404, "RESOURCE_DOES_NOT_EXIST"), why="made up")
    with pytest.raises(AssertionError, match="the deviation is another one"):
        both.call("GET", "runs/get", params={"run_id": "0" * 32}, deviation=gone)
