"""What may be searched by in the model registry, as MLflow 3.17 has it.

Source: `mlflow.utils.search_utils` (`SearchModelUtils`, `SearchModelVersionUtils`) and the SQL store that uses them.
"""

from runmirror.search.tree import Entity, Field, Kind, Language, Operator

_NUMERIC = frozenset(
    {Operator.EQUAL, Operator.UNEQUAL, Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST}
)
_TEXTUAL = frozenset({Operator.EQUAL, Operator.UNEQUAL, Operator.LIKE, Operator.ILIKE})
_LISTED = frozenset({Operator.IN, Operator.NOT_IN})
_ENTITIES = {"attribute": Entity.ATTRIBUTE, "tag": Entity.TAG, "tags": Entity.TAG}

REGISTERED_MODELS = Language(
    entities=_ENTITIES,
    quoted_entities=False,
    fields={
        Entity.TAG: Field(Kind.TEXT, _TEXTUAL),
        Entity.ATTRIBUTE: {"name": Field(Kind.TEXT, _TEXTUAL | _LISTED, "name")},
    },
    order_fields={
        "name": "name",
        **dict.fromkeys(("timestamp", "last_updated_timestamp"), "last_updated_timestamp"),
    },
    order_entities=frozenset({Entity.ATTRIBUTE}),
    order_repeats=False,
)

MODEL_VERSIONS = Language(
    entities=_ENTITIES,
    quoted_entities=False,
    fields={
        Entity.TAG: Field(Kind.TEXT, _TEXTUAL),
        Entity.ATTRIBUTE: {
            "name": Field(Kind.TEXT, _TEXTUAL | _LISTED, "name"),
            "run_id": Field(Kind.TEXT, _TEXTUAL | _LISTED, "run_id"),
            "source_path": Field(Kind.TEXT, _TEXTUAL, "source_path"),
            "version_number": Field(Kind.QUOTABLE_NUMBER, _NUMERIC, "version_number"),
        },
    },
    order_fields={name: name for name in ("name", "version_number", "creation_timestamp", "last_updated_timestamp")},
    order_entities=frozenset({Entity.ATTRIBUTE}),
    order_repeats=False,
)
