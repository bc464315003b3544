"""What an import would bring: read at the source, nothing written."""

from runmirror.experiments import queries as experiment_queries
from runmirror.importing import queries, rules
from runmirror.importing.entities import fingerprint
from runmirror.importing.rules import Refused
from runmirror.importing.task import Task, chosen_experiments


async def tell_plan(task: Task) -> None:
    """Counts, by what would become of it, and what would be refused."""
    engine, source, wish, report = task.engine, task.source, task.wish, task.report
    chosen = await chosen_experiments(source, wish)
    ids = None if not wish.experiments else [one.experiment_id for one in chosen]
    async with engine.connect() as connection:
        source_id = await queries.known_source(connection, task.name) or -1
        known = await queries.known(connection, source_id, "experiment", [one.experiment_id for one in chosen])
        for one in chosen:
            same = await experiment_queries.by_name(connection, one.name)
            report.count("experiments", **{_what(one.experiment_id in known, same is not None): 1})
    async for page in source.runs(ids, wish.since_ms):
        async with engine.connect() as connection:
            before = await queries.known(connection, source_id, "run", [run.run_id for run in page])
        for run in page:
            try:
                rules.check_run(run)
            except Refused as error:
                report.refuse("run", run.run_id, str(error))
                continue
            note = before.get(run.run_id)
            what = "new" if note is None else "unchanged" if note.fingerprint == fingerprint(run) else "changed"
            report.count("runs", **{what: 1}, points=run.points or 0)
    async for models in source.models(ids):
        report.count("logged models", there=len(models))
    if wish.registry and not wish.experiments:
        async for model in source.registered_models():
            report.count("registered models", there=1, versions=len(model.versions))
    report.end(task.name)


def _what(is_known: bool, is_here: bool) -> str:
    if is_known:
        return "imported_before"
    return "into_ones_that_are_here" if is_here else "new"
