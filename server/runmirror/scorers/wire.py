"""Requests and responses about scorers."""

from typing import Annotated

from pydantic import Field

from runmirror.wire import Int64, Wire

MAX_VERSION = 2**31 - 1

Required = Annotated[str, Field(min_length=1)]


class ScorerName(Wire):
    experiment_id: Required
    name: Required


class RegisterScorer(ScorerName):
    serialized_scorer: Required


class VersionOf(ScorerName):
    version: Annotated[Int64, Field(ge=-MAX_VERSION, le=MAX_VERSION)] | None = None


class ListScorers(Wire):
    experiment_id: str = ""
    experiment_ids: list[str] | None = None


class OnlineConfigsOf(Wire):
    scorer_ids: list[str]


class RegisteredScorer(Wire):
    version: int
    scorer_id: str
    experiment_id: str
    name: str
    serialized_scorer: str
    creation_time: int


class ScorerWire(Wire):
    experiment_id: int
    scorer_name: str
    scorer_version: int
    serialized_scorer: str
    creation_time: int
    scorer_id: str


class ScorerAnswer(Wire):
    scorer: ScorerWire


class OnlineConfigs(Wire):
    """Which scorers the server itself runs on new traces: none, for it runs nothing."""

    configs: list[str] = []


class Scorers(Wire):
    scorers: list[ScorerWire] | None = None
