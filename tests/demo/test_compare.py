"""The demo's verdict: equal only when everything is."""

import math
from dataclasses import replace

import pytest

from runmirror.demo.compare import compare
from runmirror.demo.show import WIDTH, table
from runmirror.demo.snapshot import File, Point, Snapshot
from runmirror.demo.steps import exit_code

RUN = Snapshot(
    status="FINISHED",
    name="one",
    start_time_ms=1,
    end_time_ms=2,
    params={"lr": "0.1"},
    tags={"team": "x"},
    metrics={"loss": (Point(1.0, 0, 5), Point(math.nan, 1, 6))},
    files={"a.txt": File(3, "ab" * 32)},
)


def test_a_run_equals_its_copy_whatever_tags_each_side_adds() -> None:
    source = replace(RUN, tags={**RUN.tags, "runmirror.status": "mirrored"})
    target = replace(RUN, tags={**RUN.tags, "runmirror.run_id": "r", "mlflow.rootRunId": "q"})
    assert compare(source, target).equal
    assert exit_code([compare(source, target)]) == 0


@pytest.mark.parametrize(
    "other",
    [
        replace(RUN, status="RUNNING"),
        replace(RUN, end_time_ms=3),
        replace(RUN, params={}),
        replace(RUN, params={"lr": "0.10"}),
        replace(RUN, tags={}),
        replace(RUN, tags={**RUN.tags, "stray": "1"}),
        replace(RUN, metrics={}),
        replace(RUN, metrics={"loss": RUN.metrics["loss"][:1]}),
        replace(RUN, metrics={"loss": RUN.metrics["loss"] + RUN.metrics["loss"][:1]}),
        replace(RUN, metrics={"loss": (Point(1.0, 0, 5), Point(math.nan, 1, 7))}),
        replace(RUN, files={}),
        replace(RUN, files={"a.txt": File(3, "cd" * 32)}),
        replace(RUN, files={"a.txt": RUN.files["a.txt"], "a.txt.1": RUN.files["a.txt"]}),
    ],
)
def test_any_difference_is_one_and_is_shown(other: Snapshot) -> None:
    for comparison in (compare(RUN, other), compare(other, RUN)):
        assert not comparison.equal
        assert exit_code([compare(RUN, RUN), comparison]) == 1
        assert "≠" in table(comparison, "here", "there")


def test_nothing_to_compare_is_not_equal() -> None:
    assert exit_code([]) == 1


def test_the_table_fits_a_terminal() -> None:
    long = replace(RUN, tags={"k" * 200: "v" * 500 + "\nnext line"})
    assert max(len(line) for line in table(compare(long, long), "s" * 300, "t").splitlines()) <= WIDTH + 6
