"""Where the workspace's files are not the source's, because it keeps what it has: the overflow file says so."""

import json
import re

import pytest

from runmirror.mirror.overflow import PATH
from runmirror.mirror.worker import Worker
from tests.azureml_emulator.process import EmulatorProcess
from tests.azureml_emulator.rest import Json, Rest
from tests.mirror.azure import files_of, remote_run
from tests.mirror.conftest import MakeWorker
from tests.mirror.factories import Source, SourceRun
from tests.mirror.memory_target import MemoryTarget
from tests.mirror.test_azureml import md5


def told(emulator: EmulatorProcess, run: SourceRun) -> list[Json]:
    """What the newest overflow file says of files."""
    remote = remote_run(emulator, run.run_id.hex)
    newest = max((path for path in files_of(remote) if path.endswith(PATH)), key=_revision)
    with emulator.client() as client:
        rest = Rest(emulator, client, emulator.token())
        content = client.get(rest.read_url(remote, newest)).text
    lines = [json.loads(line) for line in content.splitlines()]
    return [line for line in lines if line["kind"] in {"revision", "deleted_artifact"}]


def _revision(path: str) -> int:
    match = re.match(r"runmirror/revisions/(\d+)/", path)
    return int(match[1]) if match else 0


@pytest.mark.parametrize("write_sas", [True, False])
async def test_a_deleted_file_stays_and_is_told_until_it_is_there_again(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, write_sas: bool
) -> None:
    emulator.change_settings(write_sas=write_sas)
    run = await source.run()
    await run.upload("d/a", b"a")
    await run.upload("d/b", b"b")
    await run.finish()
    await azure_worker.drain()
    assert (await run.tags())["runmirror.status"] == "mirrored"
    await run.delete_file("d")
    await azure_worker.drain()
    assert {"d/a", "d/b"} <= files_of(remote_run(emulator, run.run_id.hex)).keys()
    assert told(emulator, run) == [
        {"kind": "deleted_artifact", "key": path, "reason": "deleted"} for path in ("d/a", "d/b")
    ]
    assert (await run.tags())["runmirror.status"] == "partial"
    await run.upload("d/a", b"a")
    await azure_worker.drain()
    assert [line["key"] for line in told(emulator, run)] == ["d/b"]
    await run.upload("d/b", b"b")
    await azure_worker.drain()
    assert told(emulator, run) == []
    assert (await run.tags())["runmirror.status"] == "mirrored"
    assert "runmirror.overflow" not in remote_run(emulator, run.run_id.hex)["tags"]


async def test_a_file_whose_place_is_taken_for_good_is_told_with_the_place_it_has(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    emulator.change_settings(write_sas=False)
    run = await source.run()
    await run.upload("a.txt", b"first")
    await run.finish()
    await azure_worker.drain()
    for content in (b"second", b"third"):
        await run.upload("a.txt", content)
        seq = (await run.mirror()).seq
        await azure_worker.drain()
        place = f"runmirror/revisions/{seq}/a.txt"
        line = {"kind": "revision", "key": "a.txt", "reason": "write_once", "path": place}
        assert told(emulator, run) == [line]
        assert files_of(remote_run(emulator, run.run_id.hex))[place] == (len(content), md5(content))
    assert (await run.tags())["runmirror.status"] == "partial"
    await run.upload("a.txt", b"first")
    await azure_worker.drain()
    assert told(emulator, run) == [], "the first content is what stands there"
    assert (await run.tags())["runmirror.status"] == "mirrored"
    await run.upload("a.txt", b"second")
    await azure_worker.drain()
    await run.delete_file("a.txt")
    await azure_worker.drain()
    assert told(emulator, run) == [{"kind": "deleted_artifact", "key": "a.txt", "reason": "deleted"}]


async def test_what_was_deleted_before_it_was_mirrored_leaves_no_trace(
    source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    run = await source.run()
    await run.upload("kept", b"1")
    await run.upload("temporary", b"2")
    await run.delete_file("temporary")
    await run.finish()
    await make_worker(target).drain()
    assert target.of(run.run_id.hex).files == {"kept": b"1"}
    assert (await run.tags())["runmirror.status"] == "mirrored"
    assert target.calls.count("artifact_paths") == 1


async def test_a_same_sized_file_without_an_md5_is_read_before_it_is_believed(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    run = await source.run()
    await run.upload("a", b"first")
    await azure_worker.drain()
    with emulator.client() as client:  # somebody else's upload of other content, by blocks: storage has no MD5 of it
        rest = Rest(emulator, client, emulator.token())
        remote = remote_run(emulator, run.run_id.hex)
        answer = rest.artifact("GET", f"/artifacts/write/ExperimentRun/dcid.{remote['run_id']}/a")
        url = answer.raise_for_status().json()["contentUri"]
        client.put(f"{url}&comp=block&blockid=YQ==", content=b"xxxxx").raise_for_status()
        listed = '<?xml version="1.0"?><BlockList><Latest>YQ==</Latest></BlockList>'
        client.put(f"{url}&comp=blocklist", content=listed).raise_for_status()
    await run.upload("a", b"first")
    await azure_worker.drain()
    assert files_of(remote_run(emulator, run.run_id.hex))["a"] == (5, md5(b"first"))
