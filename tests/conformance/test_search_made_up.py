"""runs/search: made-up filters and orders find the same runs in the same order on both servers."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.search_data import MISSING, OPTIMIZERS, TEAMS, Searched

NUMBERS = st.one_of(
    st.sampled_from(["0", "-0.0", "0.25", ".5", "5.", "1e300", "9007199254740992"]),
    st.integers(-10, 10).map(str),
    st.floats(-10, 10).map(lambda number: f"{number:.3f}"),
)
KNOWN_TEXTS = [str(text) for text in OPTIMIZERS + TEAMS if text is not MISSING]
TEXTS = st.one_of(st.sampled_from(KNOWN_TEXTS), st.text("aAdm% _1", max_size=4)).map(
    lambda text: f'"{text}"' if "'" in text else f"'{text}'"
)
NUMERIC = st.sampled_from(["metrics.acc", "metrics.`loss step`", "metrics.order", "start_time", "attributes.end_time"])
TEXTUAL = st.sampled_from(["params.opt", "params.lr", "tags.team", "tags.n", "attributes.status", "run_name"])
COMPARISONS = st.one_of(
    st.tuples(NUMERIC, st.sampled_from([">", ">=", "<", "<=", "=", "!="]), NUMBERS),
    st.tuples(TEXTUAL, st.sampled_from(["=", "!=", "LIKE", "ILIKE"]), TEXTS),
    st.tuples(st.sampled_from(["params.opt", "tags.team", "tags.gone"]), st.sampled_from(["IS NULL", "IS NOT NULL"])),
).map(" ".join)
CLAUSES = st.tuples(st.one_of(NUMERIC, TEXTUAL), st.sampled_from(["", " ASC", " DESC"]))
ORDERS = st.lists(CLAUSES, max_size=2, unique_by=lambda clause: clause[0])  # a key given twice: see test_search.py


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    comparisons=st.lists(COMPARISONS, min_size=1, max_size=4),
    order_by=ORDERS.map(lambda clauses: ["".join(clause) for clause in clauses]),
    view=st.sampled_from(["ACTIVE_ONLY", "DELETED_ONLY", "ALL"]),
)
def test_any_filter_and_order_finds_the_same_runs(
    searched: Searched, comparisons: list[str], order_by: list[str], view: str
) -> None:
    searched.compare(filter=" AND ".join(comparisons), order_by=order_by, run_view_type=view)
