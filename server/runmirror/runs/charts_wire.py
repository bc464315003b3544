"""Requests for the points that charts are drawn from."""

from runmirror.errors import InvalidParameter
from runmirror.wire import Int64, Wire, missing

MAX_RUNS = 100
MAX_POINTS = 25_000
MAX_POINTS_PER_RUN = 2_500


class Bulk(Wire):
    run_id: list[str] = []
    metric_key: str
    max_results: Int64 = MAX_POINTS

    @property
    def limit(self) -> int:
        return min(self.max_results, MAX_POINTS)

    def check(self) -> None:
        """Raise `InvalidParameter` unless this can be answered."""
        if not self.run_id:
            raise InvalidParameter("GetMetricHistoryBulk request must specify at least one run_id.")
        _check_count("GetMetricHistoryBulk request cannot specify more than", self.run_id)
        if self.max_results < 0:
            raise InvalidParameter("max_results must not be negative.")


class BulkInterval(Wire):
    run_ids: list[str] = []
    metric_key: str = ""
    start_step: Int64 | None = None
    end_step: Int64 | None = None
    max_results: Int64 = MAX_POINTS_PER_RUN

    @property
    def steps(self) -> tuple[int, int] | None:
        """First and last step. Raises `InvalidParameter` for half a range, or one that ends before it starts."""
        if self.start_step is None and self.end_step is None:
            return None
        if self.start_step is None or self.end_step is None:
            raise InvalidParameter("If either start step or end step are specified, both must be specified.")
        if self.start_step > self.end_step:
            raise InvalidParameter(
                "end_step must be greater than start_step. "
                f"Found start_step={self.start_step} and end_step={self.end_step}."
            )
        return self.start_step, self.end_step

    def check(self) -> None:
        """Raise `InvalidParameter` unless this can be answered."""
        if not self.run_ids:
            raise InvalidParameter(missing("run_ids"))
        if not self.metric_key:
            raise InvalidParameter(missing("metric_key"))
        _check_count("GetMetricHistoryBulkInterval request must specify at most", self.run_ids)
        if not 1 <= self.max_results <= MAX_POINTS_PER_RUN:
            raise InvalidParameter(f"max_results must be between 1 and {MAX_POINTS_PER_RUN}.")


def _check_count(sentence: str, run_ids: list[str]) -> None:
    if len(run_ids) > MAX_RUNS:
        raise InvalidParameter(f"{sentence} {MAX_RUNS} run_ids. Received {len(run_ids)} run_ids.")
