"""What traces may be searched and ordered by, as MLflow 3.17 has it.

Source: `mlflow.utils.search_utils.SearchTraceUtils`.
"""

from collections.abc import Iterator, Mapping

from runmirror.search.tree import Entity, Field, Kind, Language, Operator

_NUMERIC = frozenset(
    {Operator.EQUAL, Operator.UNEQUAL, Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST}
)
_TEXTUAL = frozenset({Operator.EQUAL, Operator.UNEQUAL, Operator.LIKE, Operator.ILIKE, Operator.RLIKE})
_LISTED = frozenset({Operator.IN, Operator.NOT_IN})
_NULLABLE = frozenset({Operator.IS_NULL, Operator.IS_NOT_NULL})
_CONTENT = frozenset({Operator.LIKE, Operator.ILIKE})

ATTRIBUTES_PREFIX = "attributes."


class _SpanFields(Mapping[str, Field]):
    """name, type, status, content, and whatever attribute follows `attributes.`"""

    _fixed = {  # noqa: RUF012 nobody writes to it
        **{name: Field(Kind.TEXT, _TEXTUAL | _LISTED, name) for name in ("name", "type", "status")},
        "content": Field(Kind.TEXT, _CONTENT, "content"),
    }

    def __getitem__(self, key: str) -> Field:
        if key.startswith(ATTRIBUTES_PREFIX) and len(key) > len(ATTRIBUTES_PREFIX):
            return Field(Kind.TEXT, _TEXTUAL | _LISTED)
        return self._fixed[key]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._fixed, f"{ATTRIBUTES_PREFIX}<attribute name>"])

    def __len__(self) -> int:
        return len(self._fixed) + 1


_ENTITIES = {
    Entity.TAG: ("tag", "tags"),
    Entity.METADATA: ("metadata", "request_metadata"),
    Entity.ATTRIBUTE: ("attribute", "attributes", "trace"),
    Entity.SPAN: ("span",),
    Entity.FEEDBACK: ("feedback",),
    Entity.EXPECTATION: ("expectation",),
    Entity.ISSUE: ("issue",),
}
_TIMES = {
    "timestamp": "request_time_ms",
    "timestamp_ms": "request_time_ms",
    "execution_time": "execution_time_ms",
    "execution_time_ms": "execution_time_ms",
    "end_time": "end_time_ms",
    "end_time_ms": "end_time_ms",
}

TRACES = Language(
    entities={spelling: entity for entity, spellings in _ENTITIES.items() for spelling in spellings},
    quoted_entities=True,
    fields={
        Entity.TAG: Field(Kind.TEXT, _TEXTUAL | _NULLABLE),
        Entity.METADATA: Field(Kind.TEXT, _TEXTUAL | _NULLABLE),
        Entity.ATTRIBUTE: {
            **{spelling: Field(Kind.NUMBER, _NUMERIC, name) for spelling, name in _TIMES.items()},
            "request_id": Field(Kind.TEXT, _TEXTUAL | _LISTED, "trace_id"),
            "status": Field(Kind.TEXT, _TEXTUAL | _LISTED, "state"),
            "client_request_id": Field(Kind.TEXT, _TEXTUAL | _LISTED, "client_request_id"),
            "name": Field(Kind.TEXT, _TEXTUAL | _NULLABLE, "name"),
            "run_id": Field(Kind.TEXT, _TEXTUAL | _NULLABLE, "run_id"),
            "prompt": Field(Kind.TEXT, frozenset({Operator.EQUAL}), "prompt"),
            "text": Field(Kind.TEXT, _CONTENT, "text"),
        },
        Entity.SPAN: _SpanFields(),
        Entity.FEEDBACK: Field(Kind.RANGED, _TEXTUAL | _NUMERIC | _NULLABLE),
        Entity.EXPECTATION: Field(Kind.RANGED, _TEXTUAL | _NUMERIC | _NULLABLE),
        Entity.ISSUE: {"id": Field(Kind.TEXT, frozenset({Operator.EQUAL}), "id")},
    },
    order_fields={
        **_TIMES,
        "request_id": "trace_id",
        "status": "state",
        "experiment_id": "experiment_id",
        "name": "name",
        "run_id": "run_id",
    },
    order_entities=frozenset({Entity.ATTRIBUTE, Entity.TAG, Entity.METADATA}),
    order_repeats=False,
)
