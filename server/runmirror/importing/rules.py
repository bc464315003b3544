"""What of a source cannot be stored here, and why: the limits are those of MLflow's wire, as for any client."""

from collections.abc import Iterable, Mapping

from runmirror import names
from runmirror.entities import RunStatus
from runmirror.errors import InvalidParameter, RunmirrorError
from runmirror.importing.entities import OldExperiment, OldModel, OldRegisteredModel, OldRun, OldVersion
from runmirror.logged_models.service import MODEL_ID
from runmirror.registry import rules as registry_rules
from runmirror.run_ids import stored_id
from runmirror.wire import INT64_MAX

_STAGES = ("active", "deleted")


class Refused(Exception):
    """Cannot be stored here; says why."""


def check_experiment(experiment: OldExperiment) -> None:
    """Raises `Refused`."""
    try:
        names.check_experiment_name(experiment.name)
        for key, value in experiment.tags.items():
            names.check_experiment_tag(key, value)
    except InvalidParameter as error:
        raise Refused(error.message) from error
    _check_texts([experiment.name, *experiment.tags, *experiment.tags.values()])
    if not experiment.name:
        raise Refused("it has no name")


def check_run(run: OldRun) -> None:
    """Raises `Refused`."""
    if stored_id(run.run_id) is None:
        raise Refused(f"{run.run_id[:80]!r} cannot be the id of a run")
    if run.status not in RunStatus.__members__:
        raise Refused(f"its status {run.status[:80]!r} is unknown")
    if run.lifecycle_stage not in _STAGES:
        raise Refused(f"its lifecycle stage {run.lifecycle_stage[:80]!r} is unknown")
    _check_pairs("param", run.params, names.MAX_PARAM_VALUE_LENGTH)
    _check_pairs("tag", run.tags, names.MAX_TAG_VALUE_LENGTH)
    try:
        for key in run.latest:
            names.check_name(key, "metric")
    except InvalidParameter as error:
        raise Refused(error.message) from error
    _check_numbers(run.start_time_ms, run.end_time_ms or 0, run.deleted_time_ms or 0)
    _check_numbers(*(number for _, timestamp_ms, step in run.latest.values() for number in (timestamp_ms, step)))
    datasets = [text for given in run.datasets for text in _texts_of(given.dataset)]
    input_tags = [text for given in run.datasets for tag in given.tags for text in (tag.key, tag.value)]
    _check_texts([run.name, run.user_id, *run.params.values(), *run.tags.values(), *datasets, *input_tags])


def check_model(model: OldModel) -> None:
    """Raises `Refused`."""
    if not MODEL_ID.fullmatch(model.model_id):
        raise Refused(f"{model.model_id[:80]!r} cannot be the id of a logged model")
    if model.source_run_id and stored_id(model.source_run_id) is None:
        raise Refused(f"its source run {model.source_run_id[:80]!r} cannot be the id of a run")
    pairs = [text for given in (model.params, model.tags) for pair in given.items() for text in pair]
    _check_texts([model.name, model.model_type, model.status_message, *pairs, *(m.key for m in model.metrics)])
    _check_numbers(*(number for metric in model.metrics for number in (metric.timestamp_ms, metric.step)))


def check_registered_model(model: OldRegisteredModel) -> None:
    """Raises `Refused`."""
    try:
        registry_rules.check_model_name(model.name)
        for alias in model.aliases:
            registry_rules.check_new_alias(alias)
    except RunmirrorError as error:
        raise Refused(error.message) from error
    _check_texts([model.name, model.description, *model.tags, *model.tags.values()])


def check_version(version: OldVersion) -> None:
    """Raises `Refused`."""
    if not 0 < version.version < 2**31:
        raise Refused(f"{version.version} cannot be the number of a version")
    try:
        registry_rules.canonical_stage(version.stage)
    except RunmirrorError as error:
        raise Refused(error.message) from error
    _check_texts([version.description or "", version.source, version.run_link, *version.tags, *version.tags.values()])


def _check_pairs(what: str, pairs: Mapping[str, str], longest: int) -> None:
    for key, value in pairs.items():
        try:
            names.check_name(key, what)
        except InvalidParameter as error:
            raise Refused(error.message) from error
        if len(value) > longest:
            raise Refused(f"the value of its {what} {key!r} has {len(value)} characters, of at most {longest}")


def _check_numbers(*numbers: int) -> None:
    if any(abs(number) > INT64_MAX for number in numbers):
        raise Refused("it holds a number that is too large for 64 bits")


def _check_texts(texts: Iterable[str]) -> None:
    for text in texts:
        if "\0" in text:
            raise Refused("it holds a text with a NUL character")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise Refused("it holds a text that is no valid Unicode") from None


def _texts_of(dataset: object) -> list[str]:
    fields = ("name", "digest", "source_type", "source", "schema", "profile")
    return [getattr(dataset, name) or "" for name in fields]
