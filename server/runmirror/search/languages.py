"""What may be searched by, for each resource, as MLflow 3.17 has it.

Source: `mlflow.utils.search_utils` (`SearchUtils`, `SearchExperimentsUtils`) and the SQL store that uses them.
"""

from runmirror.search.tree import Entity, Field, Kind, Language, Operator

_NUMERIC = frozenset(
    {Operator.EQUAL, Operator.UNEQUAL, Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST}
)
_TEXTUAL = frozenset({Operator.EQUAL, Operator.UNEQUAL, Operator.LIKE, Operator.ILIKE})
_LISTED = frozenset({Operator.IN, Operator.NOT_IN})
_NULLABLE = frozenset({Operator.IS_NULL, Operator.IS_NOT_NULL})


def _text(name: str) -> Field:
    return Field(Kind.TEXT, _TEXTUAL, name)


def _time(name: str, kind: Kind = Kind.NUMBER) -> Field:
    return Field(kind, _NUMERIC, name)


_RUN_ENTITIES = {
    Entity.METRIC: ("metric", "metrics"),
    Entity.PARAM: ("parameter", "parameters", "param", "params"),
    Entity.TAG: ("tag", "tags"),
    Entity.ATTRIBUTE: ("attribute", "attributes", "attr", "run"),
    Entity.DATASET: ("dataset", "datasets"),
}

RUNS = Language(
    entities={spelling: entity for entity, spellings in _RUN_ENTITIES.items() for spelling in spellings},
    quoted_entities=True,
    fields={
        Entity.METRIC: Field(Kind.NUMBER, _NUMERIC),
        Entity.PARAM: Field(Kind.TEXT, _TEXTUAL | _NULLABLE),
        Entity.TAG: Field(Kind.TEXT, _TEXTUAL | _NULLABLE),
        Entity.ATTRIBUTE: {
            "run_id": Field(Kind.TEXT, _TEXTUAL | _LISTED, "run_id"),
            "artifact_uri": _text("artifact_uri"),
            "status": _text("status"),
            "user_id": _text("user_id"),
            "end_time": _time("end_time"),
            **dict.fromkeys(("start_time", "created", "Created"), _time("start_time")),
            **dict.fromkeys(("run_name", "run name", "Run name", "Run Name"), _text("run_name")),
        },
        Entity.DATASET: {name: Field(Kind.TEXT, _TEXTUAL | _LISTED, name) for name in ("name", "digest", "context")},
    },
    order_fields={
        **{name: name for name in ("artifact_uri", "end_time", "run_id", "run_name", "status", "user_id")},
        **dict.fromkeys(("start_time", "created", "Created"), "start_time"),
    },
    order_entities=frozenset({Entity.METRIC, Entity.PARAM, Entity.TAG, Entity.ATTRIBUTE}),
    order_repeats=False,
)

EXPERIMENTS = Language(
    entities={"attribute": Entity.ATTRIBUTE, "tag": Entity.TAG, "tags": Entity.TAG},
    quoted_entities=False,
    fields={
        Entity.TAG: Field(Kind.TEXT, _TEXTUAL | _NULLABLE),
        Entity.ATTRIBUTE: {
            "name": _text("name"),
            "experiment_id": Field(Kind.TEXT, _LISTED | {Operator.EQUAL, Operator.UNEQUAL}, "experiment_id"),
            "creation_time": _time("creation_time", Kind.WHOLE_NUMBER),
            "last_update_time": _time("last_update_time", Kind.WHOLE_NUMBER),
        },
    },
    order_fields={name: name for name in ("name", "experiment_id", "creation_time", "last_update_time")},
    order_entities=frozenset({Entity.ATTRIBUTE}),
    order_repeats=True,
)
