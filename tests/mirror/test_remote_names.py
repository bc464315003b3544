"""Experiment names that Azure ML takes, from names that MLflow takes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runmirror.mirror.remote_names import experiment_name

AZURE = re.compile(r"[a-zA-Z0-9][\w\-]{0,254}", re.ASCII)


@pytest.mark.parametrize("name", ["Default", "churn_v2", "a", "9-lives", "x" * 255])
def test_a_name_that_azure_takes_is_kept(name: str) -> None:
    assert experiment_name(name, 7) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("my experiment", "my_experiment-7"),
        ("/Users/ann/churn", "Users_ann_churn-7"),
        ("größe", "gr_e-7"),
        ("…", "experiment-7"),
    ],
)
def test_a_name_that_azure_refuses_becomes_the_nearest_it_takes(name: str, expected: str) -> None:
    assert experiment_name(name, 7) == expected


@given(st.text(min_size=1, max_size=500), st.integers(0, 2**63 - 1))
def test_every_name_becomes_one_that_azure_takes(name: str, experiment_id: int) -> None:
    assert AZURE.fullmatch(experiment_name(name, experiment_id))


def test_two_experiments_that_look_alike_stay_two() -> None:
    assert experiment_name("a b", 1) != experiment_name("a/b", 2)
