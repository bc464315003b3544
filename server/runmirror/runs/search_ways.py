"""The ways in which Postgres finds one page of a search.

- From few: a comparison that an index answers is met by few runs (they are counted first, up to a bound). Those are
  looked at one by one, and sorted.
- By walking: an index has the order asked for. Runs are looked at in that order until the page is full.
- All: every run of the experiments is looked at, as Postgres thinks best.

The first two are spelled so that Postgres has no choice: by its statistics, which know neither how values depend on
keys nor keys on experiments, it would often read a hundred thousand rows to give a hundred. What they read grows with
the answer, except where comparisons that many runs meet are met together by few.

With each run of the page comes its version: a text that is another one after whatever changes what is shown of the run.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Text,
    and_,
    collate,
    func,
    intersect,
    literal,
    literal_column,
    or_,
    select,
    true,
    union_all,
)

from runmirror.entities import LifecycleStage
from runmirror.mirror.own_tags import WRITTEN_TAGS
from runmirror.runs.conditions import ATTRIBUTES, KEYED, attribute_holds, has_key, holds, looked_up, value_matches
from runmirror.search import paging
from runmirror.search.clauses import is_one_of, run_id_matches
from runmirror.search.paging import SortTerm, SortValue
from runmirror.search.tree import Comparison, Entity, Operator, SortKey
from runmirror.tables import latest_metrics, params, runs, tags
from runmirror.tables.runs import LONGEST_INDEXED, PARENT_TAG

_MOST_WALKS = 20  # experiments, each of which is walked through for a whole page
# Tables that Postgres may join in the order it likes: choosing among 30 takes it seconds, among 100 minutes.
_MOST_JOINED = 6

_NUMERIC = frozenset({Operator.EQUAL, Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST})
_NAN: ColumnElement[float] = literal_column("'NaN'::double precision")
_FENCE: ColumnElement[int] = literal_column("0")  # OFFSET 0: the subquery is planned for itself

# A write to a run bumps its seq and makes its row anew, by which xmin tells a seq from the same one of another history
# of the database (restored, or failed over). The mirror writes its own tags without a bump: their rows tell of it.
_VERSION: ColumnElement[str] = literal_column(
    f"""concat_ws(' ', page.seq, page.row_xmin, (
        SELECT string_agg(concat_ws(' ', own.key, own.xmin), ' ' ORDER BY own.key)
        FROM tags own WHERE own.run_id = page.run_id AND own.key IN {WRITTEN_TAGS}))""",  # noqa: S608
    Text,
)
_OF_VERSION: tuple[ColumnElement[Any], ...] = (runs.c.seq, literal_column("runs.xmin").label("row_xmin"))


# From the experiment to its page.
_Walk = Callable[[ColumnElement[int]], Select[Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A search, understood; `last` are the sort values of the last row given out before, `most` rows are wanted."""

    experiments: tuple[int, ...]
    stage: LifecycleStage | None
    comparisons: tuple[Comparison, ...]
    keys: tuple[SortKey, ...]
    last: tuple[SortValue, ...] | None
    most: int

    @property
    def of_runs(self) -> list[ColumnElement[bool]]:
        """What is asked of the row in `runs`."""
        attributes = [c for c in self.comparisons if c.entity is Entity.ATTRIBUTE]
        stage = [] if self.stage is None else [runs.c.lifecycle_stage == self.stage]
        return [*stage, *map(attribute_holds, attributes)]

    @property
    def of_logged(self) -> list[Comparison]:
        return [c for c in self.comparisons if c.entity is not Entity.ATTRIBUTE]

    def among(self, experiment_id: ColumnElement[int]) -> ColumnElement[bool]:
        return is_one_of(experiment_id, self.experiments, BigInteger())


@dataclass(frozen=True, slots=True)
class Start:
    """The ids of the runs that meet a comparison, from an index; without one, of all runs of the experiments."""

    comparison: Comparison | None
    ids: Select[tuple[UUID]]
    few: bool = False  # without counting


def sort_terms(keys: Sequence[SortKey]) -> list[SortTerm]:
    return _ordered(runs, runs, keys, runs.c.run_id)[1]


def walked_key(asked: Asked) -> SortKey | None:
    """The key whose order an index has, if one does."""
    key = asked.keys[0] if asked.keys else SortKey(Entity.ATTRIBUTE, "start_time", descending=True)
    if len(asked.experiments) > _MOST_WALKS:
        return None
    if key.entity is Entity.METRIC:  # the index knows nothing of runs without the metric
        return None if asked.last is not None and _is_nothing(asked.last[0]) else key
    return key if key.entity is Entity.ATTRIBUTE and key.key == "start_time" else None


def _is_nothing(value: SortValue) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def starts(asked: Asked, walked: SortKey | None) -> Iterable[Start]:
    """Where a search may begin other than at `walked`."""
    for comparison in asked.comparisons:
        match comparison:
            case Comparison(Entity.ATTRIBUTE, "run_id", Operator.EQUAL | Operator.IN):
                yield Start(comparison, select(runs.c.run_id).where(run_id_matches(runs.c.run_id, comparison)), True)
            case Comparison(Entity.METRIC, _, operator) if operator in _NUMERIC and not _is(walked, comparison):
                yield _start(comparison, latest_metrics, asked.among(latest_metrics.c.experiment_id))
            case Comparison(Entity.PARAM, _, Operator.EQUAL) if len(comparison.texts[0]) <= LONGEST_INDEXED:
                yield _start(comparison, params, and_(asked.among(params.c.experiment_id), _is_short(params)))
            case Comparison(Entity.TAG, key, Operator.EQUAL) if (
                key == PARENT_TAG and len(comparison.texts[0]) <= LONGEST_INDEXED
            ):
                parent = literal_column(f"'{PARENT_TAG}'", Text)
                yield _start(comparison, tags, and_(tags.c.key == parent, _is_short(tags)))
    if walked is not None and walked.entity is Entity.METRIC:
        yield Start(None, select(runs.c.run_id).where(asked.among(runs.c.experiment_id)))


def _start(comparison: Comparison, table: FromClause, condition: ColumnElement[bool]) -> Start:
    ids = select(table.c.run_id).where(condition, table.c.key == comparison.key, value_matches(table, comparison))
    return Start(comparison, ids)


def asks_for_number(asked: Asked, key: SortKey) -> bool:
    """Whether no run without a number in this metric is wanted."""
    return any(c.operator in _NUMERIC and _is(key, c) for c in asked.comparisons)


def _is(key: SortKey | None, comparison: Comparison) -> bool:
    return key is not None and (key.entity, key.key) == (comparison.entity, comparison.key)


def _is_short(table: FromClause) -> ColumnElement[bool]:
    """As the index says it."""
    return func.length(table.c.value) <= literal_column(str(LONGEST_INDEXED))


def counts(counted: Sequence[Start], bounds: Sequence[int]) -> Select[Any]:
    """How many runs each has, up to one more than its bound."""
    some = [start.ids.limit(bound + 1).subquery() for start, bound in zip(counted, bounds, strict=True)]
    return select(*(select(func.count()).select_from(ids).scalar_subquery() for ids in some))


def from_few(asked: Asked, few: Sequence[Start]) -> Select[Any]:
    ids = [start.ids for start in few]
    found = (ids[0] if len(ids) == 1 else intersect(*ids)).subquery("found")
    met = [start.comparison for start in few]
    left = [looked_up(c, found.c.run_id) for c in asked.of_logged if c not in met]
    run = _run(asked.keys, found.c.run_id, asked.among(runs.c.experiment_id), *asked.of_runs)
    source, terms = _ordered(found.join(run, true()), run, asked.keys, found.c.run_id)
    return _with_versions(_page(_selected(run, source, terms).where(*left), terms, asked), asked)


def by_start_time(asked: Asked) -> Select[Any]:
    def walk(experiment: ColumnElement[int]) -> Select[Any]:
        source, terms = _ordered(runs, runs, asked.keys, runs.c.run_id)
        query = _selected(runs, source, terms).where(runs.c.experiment_id == experiment, *asked.of_runs)
        query = query.where(*(looked_up(c, runs.c.run_id) for c in asked.of_logged))
        return _page(query, terms, asked)

    return _with_versions(_of_each(asked, walk), asked)


def by_metric(asked: Asked, key: SortKey) -> Select[Any]:
    return _with_versions(_with_metric(asked, key), asked)


def _with_metric(asked: Asked, key: SortKey) -> Select[Any]:
    """Of the last rows with the same value all are found, so that the other keys of the order may choose among them."""
    same = [c for c in asked.of_logged if _is(key, c)]
    others = [c for c in asked.of_logged if not _is(key, c)]

    def walk(experiment: ColumnElement[int]) -> Select[Any]:
        metric = latest_metrics.alias("walked")
        value = metric.c.value
        run = _run(asked.keys, metric.c.run_id, *asked.of_runs)
        source, terms = _ordered(metric.join(run, true()), run, asked.keys, metric.c.run_id, first=value)
        query = _selected(run, source, terms).where(
            metric.c.experiment_id == experiment, metric.c.key == key.key, *(value_matches(metric, c) for c in same),
            *(looked_up(c, metric.c.run_id) for c in others),
        )  # fmt: skip
        if key.descending:
            query = query.where(value < _NAN)
        if asked.last is not None:
            bound = literal(asked.last[0], value.type)
            query = query.where(value <= bound if key.descending else value >= bound)
            query = query.where(paging.follows(terms, asked.last))
        return query.order_by(value.desc() if key.descending else value).fetch(asked.most, with_ties=True)

    return _of_each(asked, walk)


def by_metric_and_rest(asked: Asked, key: SortKey) -> Select[Any]:
    """The runs without a number, which come last, are only looked for while the page is not full."""
    first = _with_metric(asked, key).cte("first")
    rest, terms = _selected_of_all(asked)
    value = terms[0].expression
    rest = rest.where(
        select(func.count()).select_from(first).scalar_subquery() < asked.most,
        or_(value.is_(None), value == _NAN) if key.descending else value.is_(None),
    )
    both = union_all(select(first), select(_page(rest, terms, asked).subquery())).subquery()
    return _with_versions(_sorted(both, asked), asked)


def _of_each(asked: Asked, walk: _Walk) -> Select[Any]:
    """The walks through the experiments, together."""
    if len(asked.experiments) == 1:
        return _sorted(walk(literal(asked.experiments[0], BigInteger)).subquery(), asked)
    each = (
        func.unnest(literal(list(asked.experiments), ARRAY(BigInteger)))
        .table_valued("experiment_id")
        .render_derived("each")
    )
    of_each = walk(each.c.experiment_id).lateral()
    return _sorted(select(*of_each.c).select_from(each.join(of_each, true())).subquery(), asked)


def of_all(asked: Asked) -> Select[Any]:
    query, terms = _selected_of_all(asked)
    return _with_versions(_page(query, terms, asked), asked)


def _selected_of_all(asked: Asked) -> tuple[Select[Any], list[SortTerm]]:
    """Where comparisons are many, EXISTS … IS TRUE makes Postgres look them up run by run, not join."""
    joined = [*asked.of_logged, *(key for key in asked.keys if key.entity is not Entity.ATTRIBUTE)]
    source, terms = _ordered(runs, runs, asked.keys, runs.c.run_id, joined=True)
    conditions = [holds(c, runs.c.run_id) for c in asked.of_logged]
    if len(joined) > _MOST_JOINED:
        conditions = [condition.is_(True) for condition in conditions]
    query = _selected(runs, source, terms)
    return query.where(asked.among(runs.c.experiment_id), *asked.of_runs, *conditions), terms


def _run(keys: Sequence[SortKey], run_id: ColumnElement[UUID], *conditions: ColumnElement[bool]) -> FromClause:
    """What the version and the order need of the row of `runs`, looked up."""
    names = {"run_id", "start_time", *(key.key for key in keys if key.entity is Entity.ATTRIBUTE)}
    columns = (ATTRIBUTES[name] for name in sorted(names))
    found = select(*columns, *_OF_VERSION).where(runs.c.run_id == run_id, *conditions)
    return found.offset(_FENCE).lateral("run")


def _ordered(
    source: FromClause, run: FromClause, keys: Sequence[SortKey], run_id: ColumnElement[UUID], *,
    first: ColumnElement[Any] | None = None, joined: bool = False,
) -> tuple[FromClause, list[SortTerm]]:  # fmt: skip
    """`source` with what the order needs, newest first where keys leave it open; `first` is the first key."""
    terms: list[SortTerm] = []
    for key in keys:
        if key.entity is Entity.ATTRIBUTE:
            terms.append(_attribute_term(run, key.key, descending=key.descending))
            continue
        metric = key.entity is Entity.METRIC
        if first is not None and not terms:
            column = first
        elif joined:
            table = KEYED[key.entity].alias()
            source = source.outerjoin(table, has_key(table, key.key, run_id))
            column = table.c.value
        else:
            table = KEYED[key.entity].alias()
            found = select(table.c.value).where(has_key(table, key.key, run_id)).offset(_FENCE).lateral()
            source = source.outerjoin(found, true())
            column = found.c.value
        terms.append(
            SortTerm(column if metric else collate(column, "C"), float if metric else str, key.descending, True)
        )
    asked = {key.key for key in keys if key.entity is Entity.ATTRIBUTE}
    if "start_time" not in asked:
        terms.append(_attribute_term(run, "start_time", descending=True))
    if "run_id" not in asked:
        terms.append(_attribute_term(run, "run_id"))
    return source, terms


def _attribute_term(run: FromClause, name: str, *, descending: bool = False) -> SortTerm:
    column = run.c[ATTRIBUTES[name].name]
    match name:
        case "run_id":
            return SortTerm(column, UUID, descending)
        case "start_time" | "end_time":
            return SortTerm(column, int, descending, nullable=bool(ATTRIBUTES[name].nullable))
    return SortTerm(collate(column, "C"), str, descending)


def _selected(run: FromClause, source: FromClause, terms: Sequence[SortTerm]) -> Select[Any]:
    """After the id and what the version needs, the values that the order is by."""
    state = _OF_VERSION if run is runs else (run.c.seq, run.c.row_xmin)
    by = (term.expression.label(f"by_{n}") for n, term in enumerate(terms))
    return select(run.c.run_id, *state, *by).select_from(source)


def _page(query: Select[Any], terms: Sequence[SortTerm], asked: Asked) -> Select[Any]:
    if asked.last is not None:
        query = query.where(paging.follows(terms, asked.last))
    return query.order_by(*(clause for term in terms for clause in term.clauses())).limit(asked.most)


def _sorted(found: FromClause, asked: Asked) -> Select[Any]:
    """Rows that were selected by `_selected`, brought into order."""
    terms = _terms_of(found, asked)
    query = select(found.c.run_id, found.c.seq, found.c.row_xmin, *(term.expression for term in terms))
    return query.order_by(*(clause for term in terms for clause in term.clauses())).limit(asked.most)


def _with_versions(page: Select[Any], asked: Asked) -> Select[Any]:
    """Whose tags are looked up for the runs of the page only."""
    found = page.subquery("page")
    terms = _terms_of(found, asked)
    query = select(found.c.run_id, _VERSION.label("version"), *(term.expression for term in terms))
    return query.order_by(*(clause for term in terms for clause in term.clauses()))


def _terms_of(found: FromClause, asked: Asked) -> list[SortTerm]:
    """The terms of the order, as columns of what `_selected` has selected."""
    return [
        SortTerm(found.c[f"by_{n}"], term.kind, term.descending, term.nullable)
        for n, term in enumerate(sort_terms(asked.keys))
    ]
