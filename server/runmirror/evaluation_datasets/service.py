"""One function per write of an evaluation dataset: the rules and their order."""

import time
from collections.abc import Sequence
from itertools import count
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.errors import DoesNotExist, EvaluationDatasetNotFound, InvalidParameter
from runmirror.evaluation_datasets import queries, records, records_queries
from runmirror.evaluation_datasets.json_text import parse_object
from runmirror.evaluation_datasets.search import parse_existing
from runmirror.runs.service import new_run_id

MAX_TAG_KEY_LENGTH = 255
MAX_TAG_VALUE_LENGTH = 5000


async def create(connection: AsyncConnection, *, name: str, tags: str, experiment_ids: list[str]) -> str:
    """The id of a new dataset without records. Raises `DoesNotExist` at an experiment that is not there."""
    given = parse_object(tags, "tags") if tags else {}
    experiments = await _existing(connection, experiment_ids)
    now_ms = _now_ms()
    dataset_id = f"d-{uuid4().hex}"
    await queries.create(
        connection,
        dataset_id=dataset_id,
        name=name,
        digest=records.digest(name, now_ms),
        user=records.user_in(given),
        tags={key: _tag_value(key, value) for key, value in given.items()},
        experiment_ids=experiments,
        now_ms=now_ms,
    )
    return dataset_id


async def set_tags(connection: AsyncConnection, dataset_id: str, tags: str) -> None:
    """Set or overwrite tags; a value of null leaves its tag as it is."""
    given = {key: _tag_value(key, value) for key, value in parse_object(tags, "tags").items()}
    await _lock(connection, dataset_id)
    await queries.set_tags(connection, dataset_id, {key: value for key, value in given.items() if value is not None})


async def upsert_records(connection: AsyncConnection, dataset_id: str, text: str) -> tuple[int, int]:
    """How many of the records were new and how many were merged into one that was there; see `records`."""
    given = records.parse_records(text)
    dataset = await _lock(connection, dataset_id)
    now_ms = _now_ms()
    stored = await records_queries.with_inputs(connection, dataset_id, list({one.input_hash for one in given}))
    first = new_run_id().int  # the ids of one request follow each other
    record_ids = (f"dr-{number:032x}" for number in count(first))
    written, inserted = records.apply(stored, given, record_ids, now_ms)
    await records_queries.write(connection, dataset_id, written)
    await records_queries.note_written(
        connection,
        dataset_id,
        inserted=inserted,
        user=next((one.user for one in reversed(given) if one.user is not None), None),
        digest=records.digest(dataset.name, now_ms),
        schema=records.updated_schema(dataset.schema, given),
        now_ms=now_ms,
    )
    return inserted, len(given) - inserted


async def delete_records(connection: AsyncConnection, dataset_id: str, record_ids: Sequence[str]) -> int:
    """How many of the records were there. The dataset is locked first, as by those who add records."""
    if await queries.lock(connection, dataset_id) is None:
        return 0
    return await records_queries.delete(connection, dataset_id, record_ids)


async def add_experiments(connection: AsyncConnection, dataset_id: str, experiment_ids: list[str]) -> None:
    """Put the dataset into experiments; where it is already it stays. Raises `DoesNotExist` at an unknown one."""
    await _lock(connection, dataset_id)
    experiments = await _existing(connection, experiment_ids)
    await queries.add_experiments(connection, dataset_id, experiments, _now_ms())


async def remove_experiments(connection: AsyncConnection, dataset_id: str, experiment_ids: list[str]) -> None:
    """Take the dataset out of experiments; where it is not, nothing changes."""
    await _lock(connection, dataset_id)
    await queries.remove_experiments(connection, dataset_id, parse_existing(experiment_ids), _now_ms())


async def _lock(connection: AsyncConnection, dataset_id: str) -> Any:
    dataset = await queries.lock(connection, dataset_id)
    if dataset is None:
        raise EvaluationDatasetNotFound(dataset_id)
    return dataset


async def _existing(connection: AsyncConnection, experiment_ids: list[str]) -> list[int]:
    numbers = parse_existing(experiment_ids)
    there = await queries.existing_experiments(connection, numbers) if numbers else set()
    for experiment_id in experiment_ids:
        if not there.intersection(parse_existing([experiment_id])):
            raise DoesNotExist(f"No Experiment with id={experiment_id[:80]}")
    return numbers


def _tag_value(key: str, value: Any) -> str | None:
    """Whatever a client sets is kept as text, as MLflow does."""
    kept = None if value is None else str(value)
    if len(key) > MAX_TAG_KEY_LENGTH or (kept is not None and len(kept) > MAX_TAG_VALUE_LENGTH):
        raise InvalidParameter(
            f"Invalid tag {key[:80]!r}: a key has at most {MAX_TAG_KEY_LENGTH} characters, a value "
            f"{MAX_TAG_VALUE_LENGTH}."
        )
    return kept


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
