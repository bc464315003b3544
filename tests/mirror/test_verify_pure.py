"""The parts of verification that need neither a source nor a workspace."""

import json
import math
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from runmirror.entities import Metric
from runmirror.mirror.verify import records
from runmirror.mirror.verify.differences import Change, Difference, Kind
from runmirror.mirror.verify.look import Seen
from runmirror.mirror.verify.overflow import Overflow, _parsed, candidates
from runmirror.mirror.verify.series import Series
from runmirror.mirror.verify.session import exit_code, without_surplus
from runmirror.mirror.verify.source import Stand
from runmirror.mirror.verify.verdicts import Outcome, Verdict, judge

RUN = UUID(int=7)
STAND = Stand(RUN, 3, "current", 3, None, None, "e", "r", "name", "/workspaces/w")
LOST = Difference(Kind.PARAM, "p", Change.MISSING, "1", from_seq=2)
FEWER = Difference(Kind.METRIC, "m", Change.MISSING, {"count": 5}, {"count": 3}, from_seq=2)
FEW = replace(FEWER, target={"count": 4})
MORE = Difference(Kind.TAG, "t", Change.SURPLUS, target="1")


def series(*points: tuple[float, int]) -> Series:
    made = Series()
    for value, step in points:
        made.add(Metric("m", value, 1, step))
    return made


def test_points_are_the_same_in_any_order_and_divided_in_any_way() -> None:
    whole = series((1.0, 1), (math.nan, 2), (0.0, 3), (2.0, 3))
    assert whole.is_made_of(series((2.0, 3), (-0.0, 3)), series((math.nan, 2), (1.0, 1)))
    assert whole.as_json() == {"count": 4, "sum": "NaN", "last": 2.0}
    assert series().as_json() == {"count": 0, "sum": 0.0, "last": None}


@pytest.mark.parametrize(
    "other",
    [
        [(1.0, -2), (2.0, 4)],  # to Python's hash -1 and -2 are one
        [(1.0, -1), (2.0, 4), (2.0, 4)],
        [(1.0, -1)],
        [(2.0, -1), (1.0, 4)],
        [(1.0, -1), (1.0, -1)],
    ],
)
def test_other_points_are_not_the_same(other: list[tuple[float, int]]) -> None:
    assert not series((1.0, -1), (2.0, 4)).is_made_of(series(*other))


@pytest.mark.parametrize(
    ("before", "now", "last", "expected"),
    [
        (None, Seen(STAND, ()), False, (Outcome.EQUAL, ())),
        (None, Seen(None), False, (Outcome.UNCHECKED, ())),
        (None, Seen(STAND, (LOST,)), False, None),
        (Seen(STAND, (LOST,)), Seen(STAND, (LOST,)), False, (Outcome.DIFFERENT, (LOST,))),
        (Seen(STAND, (LOST,)), Seen(STAND, ()), False, (Outcome.EQUAL, ())),
        # Less is missing than before: more may be coming.
        (Seen(STAND, (FEWER,)), Seen(STAND, (FEW,)), False, None),
        (Seen(STAND, (FEWER, LOST)), Seen(STAND, (FEW,)), True, (Outcome.DIFFERENT, (FEW,))),
        (Seen(STAND, (FEWER,)), Seen(STAND, (LOST,)), True, (Outcome.BEHIND, ())),
        # Written, or mirrored again, between the looks.
        (Seen(STAND, (LOST,)), Seen(replace(STAND, seq=4, watermark=4), (LOST,)), False, None),
        (Seen(STAND, (LOST,)), Seen(replace(STAND, seq=4, watermark=4), (LOST,)), True, (Outcome.BEHIND, ())),
        (Seen(STAND), Seen(STAND), True, (Outcome.BEHIND, ())),
    ],
)
def test_a_verdict_takes_two_looks_at_a_run_that_stands_still(
    before: Seen | None, now: Seen, last: bool, expected: tuple[Outcome, tuple[Difference, ...]] | None
) -> None:
    verdict = judge(RUN, before, now, last=last)
    assert (None if verdict is None else (verdict.outcome, verdict.differences)) == expected


def test_surplus_can_be_passed_over() -> None:
    both = Verdict(RUN, Outcome.DIFFERENT, (LOST, MORE))
    assert without_surplus(both) == Verdict(RUN, Outcome.DIFFERENT, (LOST,))
    assert without_surplus(Verdict(RUN, Outcome.DIFFERENT, (MORE,))).outcome is Outcome.EQUAL
    assert without_surplus(Verdict(RUN, Outcome.BEHIND)).outcome is Outcome.BEHIND


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ({}, 0),
        ({Outcome.EQUAL: 2}, 0),
        ({Outcome.EQUAL: 2, Outcome.BEHIND: 1}, 2),
        ({Outcome.UNCHECKED: 1}, 2),
        ({Outcome.UNCHECKED: 1, Outcome.DIFFERENT: 1}, 1),
    ],
)
def test_the_exit_code_tells_equal_different_and_unknown_apart(outcomes: dict[Outcome, int], code: int) -> None:
    assert exit_code(Counter(outcomes)) == code


def test_the_overflow_file_is_the_one_that_was_overwritten_or_the_last_revision() -> None:
    path = "runmirror/overflow.jsonl"
    revisions = [f"runmirror/revisions/{seq}/{path}" for seq in ("9", "10", "x")]
    assert candidates([]) == []
    assert candidates(["a", path]) == [path]
    assert candidates([path, *revisions]) == [revisions[1], path]


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (LOST, "param 'p' is missing (1)"),
        (FEWER, "metric 'm' is missing (count 5)"),
        (MORE, "tag 't' is only in the workspace (1)"),
        (replace(FEWER, source={"count": 5, "points": {"count": 2}}), "metric 'm' lacks 2 of 5 points"),
        (Difference(Kind.STATUS, "", Change.DIFFERS, "FINISHED", "RUNNING"),
         "status differs: FINISHED here, RUNNING in the workspace"),
        (Difference(Kind.RUN, "", Change.MISSING, from_seq=1), "run is missing"),
    ],
)  # fmt: skip
def test_a_difference_is_said_in_a_sentence(difference: Difference, words: str) -> None:
    assert str(difference) == words


def test_what_stands_in_the_workspace_is_not_obeyed() -> None:
    """Others write there too: no terminal, no database and no parser of ours may stumble over it."""
    found = Difference(Kind.TAG, "t\x1b", Change.DIFFERS, "ü", "\x1b[2J\x00\ud800" + "x" * 5000)
    assert str(found).startswith("tag 't\\x1b' differs: ü here, \\x1b[2J\\x00\\ud800xxx")
    stored = json.dumps(records._storable([found.as_json()]))
    assert "\\u0000" not in stored
    assert "\\ud800" not in stored
    assert len(stored) < 2000
    overflow = Overflow()
    for line in (
        None, 1, [], "text", {}, {"kind": []}, {"kind": "param"}, {"kind": "param", "key": [1], "value": {}},
        {"kind": "overflow", "upto": math.inf}, {"kind": "overflow", "upto": "x"}, {"kind": "dataset", "name": 1},
        {"kind": "metric", "key": "m", "value": 1, "timestamp": math.nan, "step": 0},
        {"kind": "metric", "key": "m", "value": [], "timestamp": 0, "step": 0},
    ):  # fmt: skip
        overflow.add(line, keep="m")
    assert (overflow.params, overflow.metrics, overflow.points) == ({"[1]": "{}"}, {}, [])
    assert _parsed(b"[" * 100_000) is None


def test_a_difference_is_told_to_programs() -> None:
    told: dict[str, Any] = LOST.as_json()
    assert told == {
        "kind": "param", "name": "p", "change": "missing", "where": "run", "source": "1", "target": None,
        "repairable": True,
    }  # fmt: skip
