"""What another tracking server has is here after an import: once, whole, and again after it has changed."""

import asyncio
import sqlite3
import sys
from asyncio.subprocess import DEVNULL
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.__main__ import main
from runmirror.importing.source import SourceError
from runmirror.settings import Settings
from tests.conformance.compare import Both, Side
from tests.importing.blocks import blocks
from tests.importing.conftest import Import
from tests.importing.old_server import OldServer, copy_of, copy_to_postgres, multiply
from tests.server import clean_environment, serving

POINT = "(key, value, timestamp, step, is_nan, run_uuid) VALUES ('loss', 9.5, 9000, 50, 0, ?)"
MANY = 2000
DEADLINE_S = 60
EVERYTHING = {
    "experiments": {"new": 2, "into_ones_that_are_here": 1, "unchanged": 0},
    "runs": {"new": 9, "changed": 0, "unchanged": 0, "points": 2524},
    "files of runs": {"copied": 3, "bytes": 3001, "unchanged": 0},
    "logged models": {"new": 1, "changed": 0, "unchanged": 0},
    "files of models": {"copied": 1, "bytes": 12, "unchanged": 0},
    "registered models": {"new": 2, "changed": 0, "unchanged": 0},
    "traces": {"new": 3, "changed": 0, "unchanged": 0},
    "compared": {"runs": 9, "files": 4, "logged_models": 1, "registered_models": 2, "versions": 4, "traces": 3},
}


@pytest.mark.parametrize("kind", ["server", "database", "folder"])
async def test_everything_is_brought_once_from_a_server_its_database_or_a_folder(
    old_places: tuple[OldServer, Path], import_all: Import, tmp_path: Path, kind: str
) -> None:
    server, files = old_places
    options = {}
    if kind == "server":
        address = server.url
    elif kind == "database":
        address = f"sqlite:///{server.copied_database(tmp_path)}"
        options = {"artifacts_from": server.artifacts}
    else:
        address = str(copy_of(files, tmp_path / "moved"))  # the addresses in it lead to where it was
    planned = await import_all(address, dry_run=True, **options)
    assert planned.counts["runs"]["new"] == 9
    first = await import_all(address, **options)
    assert first.lines[:-1] == []
    assert (first.agrees, first.counts) == (True, EVERYTHING)
    again = await import_all(address, **options)
    assert again.agrees
    assert again.counts["runs"] == {"new": 0, "changed": 0, "unchanged": 9, "points": 0}
    assert again.counts["files of runs"] == {"copied": 0, "bytes": 0, "unchanged": 0}
    assert {phase: numbers.get("new", 0) for phase, numbers in again.counts.items()}.keys() == EVERYTHING.keys()
    assert sum(numbers.get("new", 0) + numbers.get("changed", 0) for numbers in again.counts.values()) == 0


async def test_a_later_import_brings_what_has_changed_and_leaves_what_was_written_here(
    old_server: OldServer, import_all: Import, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    database = old_server.copied_database(tmp_path)
    address, options = f"sqlite:///{database}", {"artifacts_from": old_server.artifacts}
    assert (await import_all(address, **options)).agrees
    one, two, *_ = old_server.made["small_runs"]

    async def write(path: str, **body: object) -> None:
        answer = await client.post(f"/api/2.0/mlflow/{path}", json=body)
        assert answer.status_code == 200, answer.text

    await write("runs/set-tag", run_id=one, key="stage", value="ours")
    await write("runs/update", run_id=two, status="KILLED", end_time=5)
    with sqlite3.connect(database) as db:
        for statement, *values in (
            ("UPDATE tags SET value = 'theirs' WHERE key = 'round' AND run_uuid = ?", one),
            ("INSERT INTO tags (key, value, run_uuid) VALUES ('stage', 'theirs', ?)", one),
            ("DELETE FROM tags WHERE key = 'temporary' AND run_uuid = ?", one),
            ("INSERT INTO params (key, value, run_uuid) VALUES ('late', 'yes', ?)", one),
            (f"INSERT INTO metrics {POINT}", one),
            ("DELETE FROM latest_metrics WHERE key = 'loss' AND run_uuid = ?", one),
            (f"INSERT INTO latest_metrics {POINT}", one),
            ("UPDATE runs SET status = 'FAILED', end_time = 7 WHERE run_uuid IN (?, ?)", one, two),
            ("UPDATE runs SET lifecycle_stage = 'active' WHERE run_uuid = ?", old_server.made["deleted_run"]),
            ("INSERT INTO registered_model_aliases (name, alias, version) VALUES ('classifier', 'newest', 3)",),
            ("UPDATE trace_tags SET value = 'no' WHERE key = 'reviewed'",),
        ):
            assert db.execute(statement, values).rowcount >= 1, statement
    (new,) = multiply(database, 1, 1)

    later = await import_all(address, **options)
    assert (later.agrees, later.lines[:-1]) == (True, [])
    assert later.counts["runs"] == {"new": 1, "changed": 3, "unchanged": 6, "points": 10 + 3}
    assert later.counts["registered models"] == {"new": 0, "changed": 1, "unchanged": 1}
    assert later.counts["traces"] == {"new": 0, "changed": 1, "unchanged": 2}

    async def run(run_id: str) -> dict[str, dict[str, object]]:
        found = (await client.get("/api/2.0/mlflow/runs/get", params={"run_id": run_id})).json()["run"]
        data = {name: {pair["key"]: pair["value"] for pair in found["data"].get(name, [])} for name in found["data"]}
        return {**data, "info": found["info"]}

    first, second = await run(one), await run(two)
    assert (first["tags"]["stage"], first["tags"]["round"]) == ("ours", "theirs")
    assert "temporary" not in first["tags"]
    assert (first["params"]["late"], first["metrics"]["loss"]) == ("yes", 9.5)
    assert (first["info"]["status"], first["info"]["end_time"]) == ("FAILED", 7)
    assert (second["info"]["status"], second["info"]["end_time"]) == ("KILLED", 5)
    assert (await run(old_server.made["deleted_run"]))["info"]["lifecycle_stage"] == "active"
    assert (await run(new))["metrics"]["m"] == 3.0


async def test_what_cannot_be_brought_is_told_and_the_rest_comes(
    old_server: OldServer, import_all: Import, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    database = old_server.copied_database(tmp_path)
    long, nul, _, away = old_server.made["small_runs"][:4]
    with sqlite3.connect(database) as db:
        db.execute("INSERT INTO params (key, value, run_uuid) VALUES ('text', ?, ?)", ["x" * 6001, long])
        db.execute("UPDATE tags SET value = ? WHERE key = 'round' AND run_uuid = ?", ["a\0b", nul])
        db.execute("UPDATE runs SET artifact_uri = 's3://bucket/there' WHERE run_uuid = ?", [away])
        db.execute("UPDATE runs SET artifact_uri = '/etc' WHERE run_uuid = ?", [old_server.made["default_run"]])
    # The same run, from another source; and a registered model of the same name.
    await import_all(f"sqlite:///{database}", source_name="other", experiments=["Default"], verify=False)
    made = await client.post("/api/2.0/mlflow/registered-models/create", json={"name": "classifier"})
    assert made.status_code == 200

    told = await import_all(f"sqlite:///{database}", artifacts_from=old_server.artifacts, verify=False)
    assert not told.agrees
    reasons = {line["id"]: line["reason"] for line in told.told("refused")}
    assert reasons == {
        long: "the value of its param 'text' has 6001 characters, of at most 6000",
        nul: "it holds a text with a NUL character",
        old_server.made["default_run"]: "a run of this id is here already and did not come from this source",
        away: "its files are at s3://bucket/there: name the server that reaches them, or the folder that it serves, "
        "with --artifacts-from",
        "classifier": "a registered model of this name is here already and did not come from this source",
    }
    assert told.counts["runs"]["new"] == 6
    with pytest.raises(SourceError, match="no file"):
        await import_all("sqlite:////nowhere/none.db")


async def test_a_planted_difference_is_found_and_named(
    old_server: OldServer, import_all: Import, engine: AsyncEngine
) -> None:
    await import_all(old_server.url, verify=False)
    run_id = old_server.made["run"]
    async with engine.begin() as connection:
        for statement in (
            "UPDATE latest_metrics SET value = 0.75 WHERE key = 'back'",
            "DELETE FROM metric_chunks WHERE first_step = 1000",
            "UPDATE params SET value = '0.2' WHERE key = 'lr'",
            "DELETE FROM tags WHERE key = 'colour'",
            "UPDATE artifacts SET size_bytes = 2 WHERE path = 'files/a.txt'",
            "DELETE FROM spans WHERE name = 'answer'",
            "UPDATE registered_model_aliases SET version = 2 WHERE alias = 'champion'",
        ):
            assert (await connection.execute(text(statement))).rowcount >= 1, statement
    found = await import_all(old_server.url, verify_only=True)
    assert not found.agrees
    of_run = {line["what"]: (line["source"], line["here"]) for line in found.told("different") if line["id"] == run_id}
    assert of_run == {
        "last value of metric back": (["5.0", 50, 5], ["0.75", 50, 5]),
        "number of points": (2508, 1508),
        "param lr": ("0.1", "0.2"),
        "tag colour": ("blé", None),
        "file files/a.txt": (1, 2),
    }
    kinds = [line["kind"] for line in found.told("different") if line["id"] != run_id]
    assert sorted(kinds) == ["registered_model", "trace", "trace", "trace"]


async def test_a_folder_that_is_no_run_s_is_never_read(
    old_server: OldServer, import_all: Import, tmp_path: Path
) -> None:
    database = old_server.copied_database(tmp_path)
    run_id = old_server.made["default_run"]
    outside = tmp_path / "secret"
    outside.write_text("secret")
    folder = tmp_path / run_id / "artifacts"
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(outside)
    (folder / "plain.txt").write_text("plain")
    with sqlite3.connect(database) as db:
        db.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", [str(folder), run_id])
    told = await import_all(f"sqlite:///{database}", experiments=["Default"])
    assert (told.agrees, told.counts["files of runs"]["copied"]) == (True, 1)


async def test_runs_may_be_kept_out_of_the_mirror(
    old_server: OldServer, import_all: Import, engine: AsyncEngine, settings: Settings
) -> None:
    await import_all(old_server.url, mirror=False, artifacts=False, traces=False)
    asked = text("SELECT value, count(*) FROM tags WHERE key = 'runmirror.mirror' GROUP BY 1")
    async with engine.connect() as connection:
        rows = await connection.execute(asked)
        assert rows.all() == [("off", 9)]


async def number_of(engine: AsyncEngine, table: str) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def test_an_import_that_is_killed_goes_on_where_it_was_and_nothing_is_there_twice(
    old_server: OldServer, import_all: Import, engine: AsyncEngine, settings: Settings, tmp_path: Path
) -> None:
    database = old_server.copied_database(tmp_path)
    multiply(database, int(old_server.made["experiment"]), MANY)
    address = f"sqlite:///{database}"
    command = [sys.executable, "-m", "runmirror", "import", address, "--artifacts-from", old_server.artifacts]
    environment = clean_environment(
        {"RUNMIRROR_DATABASE_URL": str(settings.database_url), "RUNMIRROR_DATA_DIR": str(settings.data_dir)}
    )
    child = await asyncio.create_subprocess_exec(*command, env=environment, stdout=DEVNULL, stderr=DEVNULL)
    async with asyncio.timeout(DEADLINE_S):
        while await number_of(engine, "runs") < 500:
            assert child.returncode is None
            await asyncio.sleep(0.01)
    child.kill()
    await child.wait()
    there = await number_of(engine, "runs")
    assert 500 <= there < MANY
    async with engine.connect() as connection:
        # Each run is there whole, with its note, or not at all.
        broken = text(
            """
            SELECT count(*) FROM runs r
            FULL JOIN (SELECT * FROM imported WHERE kind = 'run') i ON i.target = replace(r.run_id::text, '-', '')
            LEFT JOIN mirrors m ON m.run_id = r.run_id
            LEFT JOIN latest_metrics l ON l.run_id = r.run_id AND l.key = 'm'
            WHERE r.run_id IS NULL OR i.key IS NULL OR m.run_id IS NULL OR (r.name = 'small' AND l.value <> 3)
                OR (r.name = 'small' AND l.key IS NULL)
        """.replace("::", r"\:\:")
        )
        assert await connection.scalar(broken) == 0

    rest = await import_all(address, artifacts_from=old_server.artifacts)
    assert rest.agrees, rest.lines[:5]
    assert rest.counts["runs"]["unchanged"] == there
    assert rest.counts["runs"]["new"] == MANY + 9 - there
    assert await number_of(engine, "runs") == MANY + 9
    assert await number_of(engine, "metric_points") == MANY * 10 + 2524


async def test_postgres_is_read_as_sqlite_is(
    old_server: OldServer, import_all: Import, postgres: str, tmp_path: Path
) -> None:
    """The same source under another address: then nothing of it is new, whatever driver gave it."""
    database = old_server.copied_database(tmp_path)
    copy = make_url(postgres).set(database="mlflow_copy")
    await copy_to_postgres(database, copy.render_as_string(hide_password=False), postgres)
    options = {"artifacts_from": old_server.artifacts, "source_name": "theirs"}
    assert (await import_all(f"sqlite:///{database}", **options)).agrees
    again = await import_all(copy.render_as_string(hide_password=False), **options)
    assert again.agrees
    assert [numbers.get("new", 0) + numbers.get("changed", 0) for numbers in again.counts.values()] == [0] * 8


async def test_the_same_calls_are_answered_as_by_the_old_server(
    old_server: OldServer, import_all: Import, settings: Settings
) -> None:
    assert (await import_all(old_server.url)).agrees
    made = old_server.made
    with (
        serving(settings.data_dir, "--no-mirror", "--backend-store-uri", str(settings.database_url)) as server,
        httpx.Client(base_url=old_server.url, timeout=60, trust_env=False) as theirs,
        httpx.Client(base_url=server.url, timeout=60, trust_env=False) as ours,
    ):
        both = Both(Side("mlflow", old_server.url, theirs), Side("runmirror", server.url, ours, output=server.log))
        await asyncio.to_thread(ask_both, both, made)


def ask_both(both: Both, made: dict[str, Any]) -> None:
    both.call("GET", "registered-models/get", params={"name": "classifier"})
    both.call("GET", "model-versions/search", params={"filter": "name = 'classifier'"})
    for alias in ("champion", "rival"):
        both.call("GET", "registered-models/alias", params={"name": "classifier", "alias": alias})
    both.call("GET", "model-versions/get", params={"name": "greeting", "version": "1"})
    for name, place in (("churn", "experiment"), ("over", "gone")):
        both.call("GET", "experiments/get-by-name", params={"experiment_name": name})
        both.bind(place, "experiment.experiment_id")
        search = {"experiment_ids": [f"{{{place}}}"], "run_view_type": "ALL", "order_by": ["attributes.start_time"]}
        found = both.call("POST", "runs/search", json=search, ignore=("deleted_time",))
        assert len(found.at("runs")) == {"churn": 7, "over": 1}[name]
    for key in ("loss", "odd", "back", "nan", "f1"):
        both.call("GET", "metrics/get-history", params={"run_id": made["run"], "metric_key": key})
    both.call("GET", "artifacts/list", params={"run_id": made["run"]})
    both.call("GET", "artifacts/list", params={"run_id": made["run"], "path": "files/deep"})
    both.call("GET", "/get-artifact", params={"run_uuid": made["run"], "path": "files/deep/b ü.txt"})
    both.call("GET", f"logged-models/{made['model']}")
    both.call("GET", f"logged-models/{made['model']}/artifacts/directories")
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "{experiment}"}}
    both.call("POST", "/api/3.0/mlflow/traces/search", json={"locations": [location], "max_results": 10})
    for trace_id in made["traces"]:
        both.call("GET", "/ajax-api/2.0/mlflow/get-trace-artifact", params={"request_id": trace_id})


async def test_a_database_of_mlflow_2_lacks_tables_and_columns(
    old_server: OldServer, import_all: Import, tmp_path: Path
) -> None:
    database = old_server.copied_database(tmp_path)
    with sqlite3.connect(database) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        newer = (
            "logged_model",
            "trace_",
            "span",
            "assessments",
            "entity_associations",
            "inputs",
            "registered_model_alias",
        )
        for table in [table for table in tables if table.startswith(newer)]:
            db.execute(f"DROP TABLE {table}")
        for column in ("runs.deleted_time", "experiments.last_update_time", "model_versions.storage_location"):
            table, name = column.split(".")
            db.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
    told = await import_all(f"sqlite:///{database}", artifacts_from=old_server.artifacts, verify=False)
    assert [line["id"] for line in told.told("refused")] == ["classifier/3"]  # a version of a logged model
    assert told.counts["runs"]["points"] == 2524


@pytest.mark.parametrize("number", range(3))
def test_every_command_of_the_page_about_migration_works(
    old_places: tuple[OldServer, Path], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    server, files = old_places
    folder = tmp_path / "there"
    folder.mkdir()
    server.copied_database(folder).rename(folder / "mlflow.db")
    (folder / "artifacts").symlink_to(server.artifacts)
    (folder / "mlruns").symlink_to(files)
    monkeypatch.chdir(folder)
    environment = {"RUNMIRROR_DATABASE_URL": str(settings.database_url), "RUNMIRROR_DATA_DIR": str(settings.data_dir)}
    found = list(blocks())
    assert len(found) == 3
    for command in found[number]:
        words = [word.replace("http://127.0.0.1:5001", server.url) for word in command]
        result = CliRunner().invoke(main, words, env=environment)
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
