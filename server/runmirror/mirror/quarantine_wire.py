"""Requests and answers about quarantined runs."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, model_validator

from runmirror.errors import InvalidParameter
from runmirror.mirror.quarantine import MOST, Choice, Quarantined
from runmirror.names import parse_experiment_id
from runmirror.runs.writes import parse_run_id
from runmirror.wire import Wire


class QuarantinedRun(Wire):
    """`code` names the kind of failure, `advice` says what helps, `request_id` is for Azure's support.

    `payload_digest` is the hash of what was refused.
    """

    run_id: str
    run_name: str
    experiment_id: str
    experiment_name: str
    quarantined_at: datetime | None = None
    code: str
    reason: str
    advice: str
    request_id: str | None = None
    payload_digest: str | None = None
    seq: int
    watermark: int
    remote_run_id: str | None = None
    portal_url: str | None = None

    @classmethod
    def of(cls, found: Quarantined) -> Self:
        return cls(
            run_id=found.run_id.hex,
            run_name=found.run_name,
            experiment_id=str(found.experiment_id),
            experiment_name=found.experiment_name,
            quarantined_at=found.quarantined_at,
            code=found.cause.code,
            reason=found.reason,
            advice=found.cause.advice,
            request_id=found.request_id,
            payload_digest=found.payload_digest,
            seq=found.seq,
            watermark=found.watermark,
            remote_run_id=found.remote_run_id,
            portal_url=found.portal_url,
        )


class QuarantineAnswer(Wire):
    """A page, the newest runs first; without `next_page_token` it is the last."""

    runs: list[QuarantinedRun]
    next_page_token: str | None = None


class ReplayRequest(Wire):
    """One of the three."""

    run_ids: Annotated[list[str], Field(max_length=MOST)] | None = None
    experiment_ids: Annotated[list[str], Field(max_length=MOST)] | None = None
    all: bool = False
    dry_run: bool = False

    @model_validator(mode="after")
    def _one_of_the_three(self) -> Self:
        if sum((self.run_ids is not None, self.experiment_ids is not None, self.all)) != 1:
            raise InvalidParameter("Exactly one of 'run_ids', 'experiment_ids' and 'all' must be given.")
        return self

    def to_choice(self) -> Choice:
        """Raises `RunNotFound` and `ExperimentNotFound` for what is no id."""
        return Choice(
            None if self.run_ids is None else [parse_run_id(run_id) for run_id in self.run_ids],
            None if self.experiment_ids is None else [parse_experiment_id(each) for each in self.experiment_ids],
        )


class ReplayAnswer(Wire):
    """The runs that are back in the queue (or would be); `more`: ask again for the rest."""

    run_ids: list[str]
    more: bool
