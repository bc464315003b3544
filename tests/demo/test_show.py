"""The table that people read, and what of a run it is made of."""

from dataclasses import replace
from datetime import UTC, datetime

from runmirror.demo.compare import Comparison, Row, compare
from runmirror.demo.show import summary, table
from runmirror.demo.snapshot import File, Point, Snapshot, read_snapshot
from runmirror.demo.steps import mirror_time

RUN = Snapshot(
    status="FINISHED",
    name="first",
    start_time_ms=1_700_000_000_123,
    end_time_ms=1_700_000_060_456,
    params={"alpha": "0.5"},
    tags={"purpose": "test"},
    metrics={"loss": (Point(0.5, 0, 1000), Point(0.25, 1, 2000))},
    files={"model/MLmodel": File(120, "ab" * 32)},
)


def line_with(word: str, shown: str) -> str:
    return next(line for line in shown.splitlines() if word in line)


def test_both_sides_stand_in_one_line_with_a_mark_between() -> None:
    shown = table(compare(RUN, replace(RUN, params={"alpha": "0.6"})), "left title", "right title")
    assert shown.splitlines()[0].split() == ["left", "title", "right", "title"]
    assert line_with("alpha", shown).split() == ["alpha", "0.5", "≠", "0.6"]
    assert line_with("purpose", shown).split() == ["purpose", "test", "✓", "test"]
    assert line_with("loss", shown).count("2 points, last 0.25") == 2
    assert line_with("MLmodel", shown).count("120 B, sha256 abababab") == 2
    assert line_with("started", shown).count("2023-11-14 22:13:20.123 UTC") == 2


def test_what_a_side_lacks_is_a_dash() -> None:
    comparison = compare(RUN, replace(RUN, metrics={}))
    assert line_with("loss", table(comparison, "left", "right")).endswith("≠ —")


def test_a_long_value_keeps_its_beginning_and_its_end() -> None:
    run = replace(RUN, tags={"long": "begin" + "v" * 5000 + "end", "lines": "one\ntwo\r\nthree"})
    shown = table(compare(run, run), "left", "right")
    assert line_with("long", shown).count("begin") == line_with("long", shown).count("end") == 2
    assert line_with("lines", shown).count("one two three") == 2


def test_the_summary_says_how_much_was_compared_and_how_much_differs() -> None:
    assert summary(compare(RUN, RUN)) == "✓ both sides are equal: 1 param, 1 tag, 1 metric, 1 artifact"
    differing = summary(compare(RUN, replace(RUN, files={}, params={})))
    assert differing == "≠ 2 of 8 rows differ (1 param, 1 tag, 1 metric, 1 artifact)"
    assert summary(Comparison((Row("tag", "a", "1", None, False),))) == "≠ 1 of 1 rows differ (1 tag)"
    assert summary(Comparison(())) == "≠ there was nothing to compare"


def test_a_reader_that_knows_less_is_compared_by_what_it_knows() -> None:
    tags, files = dict(RUN.tags), {"model/MLmodel": [120, "ab" * 32]}
    document = {"status": "FINISHED", "name": "first", "tags": tags, "files": files}
    values_only = read_snapshot({**document, "metrics": {"loss": [[0.5], [0.25]]}})
    comparison = compare(RUN, values_only)
    assert comparison.equal
    assert [row.kind for row in comparison.rows] == ["run", "run", "tag", "metric", "file"]
    assert not compare(RUN, read_snapshot({**document, "metrics": {"loss": [[0.5], [0.5]]}})).equal


def test_the_mirror_time_runs_from_the_end_of_the_run() -> None:
    mirrored_at = datetime.fromtimestamp(1_700_000_061.956, UTC)
    assert mirror_time(RUN, mirrored_at).startswith("1.5 s after the run ended the workspace had all of it: 2 metric")
