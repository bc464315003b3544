"""Logged models with metrics on datasets, and searches over them, drawn from a fixed seed."""

import random
from typing import Any

SEED = 2026
MODELS = 14
DATASETS = [("train", "d1"), ("train", "d2"), ("test", "d3")]
VALUES = (0.1, 0.2, 0.25, 0.5, 1.0, -3.0, 1e300)

Point = dict[str, Any]


def name(number: int) -> str:
    return f"{'Mm'[number % 2]}odel_{number:02}"


def fields(number: int) -> dict[str, Any]:
    """How model `number` is created; {run0} and {run1} are the runs of each server."""
    pairs = {
        "params": {"lr": str(number % 4), "opt": ("adam", "Adam", "a_m")[number % 3]},
        "tags": {"team": ("red", "Red", "blue")[number % 3]} if number % 4 else {},
    }
    made = {kind: [{"key": key, "value": value} for key, value in of.items()] for kind, of in pairs.items()}
    source = {"source_run_id": f"{{run{number % 2}}}"} if number % 3 else {}
    return {"name": name(number), "model_type": ("", "sklearn", "torch")[number % 3], **made, **source}


def points() -> list[tuple[int, int, Point]]:
    """(model, run, point): several steps, times, runs and datasets; some models have none."""
    draw = random.Random(SEED)
    found: dict[tuple[object, ...], tuple[int, int, Point]] = {}
    for model in range(MODELS - 2):
        for _ in range(draw.randrange(1, 7)):
            run = draw.randrange(2)
            point: Point = {
                "key": draw.choice(("loss", "acc", "dotted.key")),
                "value": draw.choice(VALUES),
                "timestamp": draw.randrange(1, 4),
                "step": draw.randrange(3),
            }
            if draw.random() < 0.7:
                point["dataset_name"], point["dataset_digest"] = draw.choice(DATASETS)
            found.setdefault((model, run, point["key"], point["timestamp"], point["step"]), (model, run, point))
    return list(found.values())


CONDITIONS = [
    "metrics.loss < 0.3", "metrics.loss >= 0.25", "metrics.acc != 1", "metrics.acc = 0.5", "metrics.loss > -10",
    "metrics.`dotted.key` <= 1", "metrics.dotted.key > 0", "metrics.unknown > 0", "metrics.acc < 1e301",
    "params.lr = '1'", "params.opt ILIKE 'ADAM'", "params.opt LIKE 'a%'", "params.lr IN ('0', '2')",
    "tags.team = 'red'", "tags.team != 'red'", "tags.team IN ('red', 'blue')", "name LIKE 'M%'",
    "attributes.name != 'Model_00'", "model_type = 'sklearn'", "model_type != ''", "source_run_id = '{run0}'",
    "source_run_id != '{run0}'", "source_run_id IN ('{run1}')", "status = '1'", "status_message = 'x'",
    "creation_timestamp > 0", "last_updated_timestamp_ms >= 1000",
]  # fmt: skip

ORDERS = [
    "name", "model_type", "status", "source_run_id", "status_message", "lifecycle_stage", "experiment_id",
    "metrics.loss", "metrics.acc", "metrics.dotted.key", "metrics.unknown",
]  # fmt: skip


def searches(count: int) -> list[dict[str, Any]]:
    """Bodies of searches that end with an order by name, so that every order is a whole one."""
    draw = random.Random(SEED + 1)
    made = []
    for _ in range(count):
        order = [_order(draw, draw.choice(ORDERS)) for _ in range(draw.randrange(3))]
        search: dict[str, Any] = {"order_by": [*order, {"field_name": "name", "ascending": draw.random() < 0.5}]}
        if conditions := draw.sample(CONDITIONS, draw.choice((0, 1, 1, 2))):
            search["filter"] = " AND ".join(conditions)
        if draw.random() < 0.5:
            search["datasets"] = [_dataset(*chosen) for chosen in draw.sample(DATASETS, draw.choice((1, 1, 2)))]
        made.append(search)
    return made


def _order(draw: random.Random, field: str) -> dict[str, Any]:
    order: dict[str, Any] = {"field_name": field, "ascending": draw.random() < 0.5}
    if field.startswith("metrics.") and draw.random() < 0.6:
        dataset = _dataset(*draw.choice(DATASETS))
        order |= {key: dataset[key] for key in draw.choice((("dataset_name",), ("dataset_digest",), tuple(dataset)))}
    return order


def _dataset(of: str, digest: str) -> dict[str, str]:
    return {"dataset_name": of, "dataset_digest": digest}
