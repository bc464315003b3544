"""MLflow's filter text, as far as Azure ML supports it: comparisons joined by `and`."""

import fnmatch
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from azureml_emulator.errors import InvalidParameter
from azureml_emulator.state import Experiment, MetricPoint, Run

KINDS = {
    "attribute": "attributes",
    "attributes": "attributes",
    "attr": "attributes",
    "run": "attributes",
    "metric": "metrics",
    "metrics": "metrics",
    "param": "params",
    "params": "params",
    "parameter": "params",
    "parameters": "params",
    "tag": "tags",
    "tags": "tags",
}
RUN_FIELDS = frozenset(["run_id", "run_name", "status", "start_time", "end_time", "user_id", "artifact_uri", "created"])
EXPERIMENT_FIELDS = frozenset(["experiment_id", "name", "creation_time", "last_update_time"])
MODEL_FIELDS = frozenset(["name", "run_id", "source_path", "version_number"])

CLAUSE = re.compile(
    r"""\s*(?:(?P<kind>[A-Za-z]+)\s*\.\s*)?
    (?P<key>"[^"]+"|`[^`]+`|'[^']+'|[\w.\-/]+)\s*
    (?P<op>!=|>=|<=|=|<|>|\bnot\s+in\b|\bin\b|\bilike\b|\blike\b)\s*
    (?P<value>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*"|\([^)]*\)|[-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*
    (?P<more>\band\b|$)""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "IN": lambda a, b: a in b,
    "NOT IN": lambda a, b: a not in b,
    "LIKE": lambda a, b: fnmatch.fnmatchcase(a, _glob(b)),
    "ILIKE": lambda a, b: fnmatch.fnmatchcase(a.lower(), _glob(b).lower()),
}


@dataclass(frozen=True)
class Clause:
    """One comparison."""

    kind: str
    key: str
    operator: str
    value: Any

    def holds(self, actual: Any) -> bool:
        """An absent value fits nothing."""
        if actual is None:
            return False
        try:
            return COMPARE[self.operator](actual, self.value)
        except TypeError:
            raise InvalidParameter(f"'{self.key}' cannot be compared with {self.value!r}") from None


def _glob(like: str) -> str:
    escaped = re.sub(r"([*?\[])", r"[\1]", like)
    return escaped.replace("%", "*").replace("_", "?")


def _value(text: str) -> Any:
    if text.startswith("("):
        return tuple(_value(part.strip()) for part in text[1:-1].split(",") if part.strip())
    if text[0] in "'\"":
        return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
    try:
        return float(text)
    except ValueError:
        raise InvalidParameter(f"Not a number in filter: {text}") from None


def parse_filter(text: str, attributes: frozenset[str]) -> list[Clause]:
    """Read a filter into clauses that must all hold."""
    clauses: list[Clause] = []
    place, more = 0, bool(text.strip())
    while more:
        match = CLAUSE.match(text, place)
        if match is None:
            raise InvalidParameter(f"Invalid filter string at '{text[place:]}': only comparisons joined by 'and' work")
        kind = KINDS.get((match["kind"] or "attributes").lower())
        key = match["key"].strip("\"'`")
        if kind is None or (kind == "attributes" and key not in attributes):
            raise InvalidParameter(f"Invalid filter: unknown field '{match['kind'] or ''}.{key}'")
        operator = " ".join(match["op"].upper().split())
        clauses.append(Clause(kind, key, operator, _value(match["value"])))
        place, more = match.end(), bool(match["more"])
    return clauses


def stages(view_type: str | None) -> frozenset[str]:
    """The lifecycle stages that a view shows."""
    match view_type:
        case None | "ACTIVE_ONLY":
            return frozenset({"active"})
        case "DELETED_ONLY":
            return frozenset({"deleted"})
        case "ALL":
            return frozenset({"active", "deleted"})
    raise InvalidParameter(f"Invalid view type '{view_type}'")


def is_too_young(written: float, lag_seconds: float) -> bool:
    """Say whether a lagging index would not have this write yet."""
    return time.monotonic() - written < lag_seconds


def fits_run(clause: Clause, run: Run, artifact_uri: str, lag_seconds: float) -> bool:
    return clause.holds(_run_value(clause, run, artifact_uri, lag_seconds))


def _run_value(clause: Clause, run: Run, artifact_uri: str, lag_seconds: float) -> Any:
    match clause.kind:
        case "params":
            return run.params.get(clause.key)
        case "tags":
            tag = run.tags.get(clause.key)
            return None if tag is None or is_too_young(tag.written, lag_seconds) else tag.value
        case "metrics":
            points = [p for p in run.points if p.key == clause.key and not is_too_young(p.written, lag_seconds)]
            return max(points, key=_order).value if points else None
    attributes = {
        "run_id": run.run_id,
        "run_name": run.name,
        "status": run.status,
        "start_time": run.start_ms,
        "created": run.created_ms,
        "end_time": run.end_ms,
        "user_id": run.user_id,
        "artifact_uri": artifact_uri,
    }
    return attributes[clause.key]


def _order(point: MetricPoint) -> tuple[int, int]:
    return point.step, point.timestamp


def fits_experiment(clause: Clause, experiment: Experiment) -> bool:
    if clause.kind == "tags":
        return clause.holds(experiment.tags.get(clause.key))
    attributes = {
        "experiment_id": experiment.experiment_id,
        "name": experiment.name,
        "creation_time": experiment.created_ms,
        "last_update_time": experiment.updated_ms,
    }
    return clause.holds(attributes.get(clause.key))


def parse_order(entries: list[str]) -> list[tuple[str, bool]]:
    """Read order_by into (attribute, descending); the service orders by attributes only."""
    order = []
    for entry in entries:
        words = entry.split()
        field = words[0].removeprefix("attributes.").removeprefix("attribute.").strip('`"')
        if field not in RUN_FIELDS:
            raise InvalidParameter(f"Ordering by '{words[0]}' is not supported: only by attributes")
        order.append((field, len(words) > 1 and words[1].upper() == "DESC"))
    return order
