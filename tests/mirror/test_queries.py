"""A page is whole writes, in order, whatever the mix, and every row is in exactly one page."""

from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.mirror import overflow_queries, queries
from runmirror.mirror.queue import Lease
from tests.mirror.factories import Source, SourceRun, points
from tests.mirror.memory_target import MemoryTarget
from tests.mirror.test_queue import claim


async def pages(engine: AsyncEngine, lease: Lease, most: int) -> list[queries.Page]:
    found = []
    async with engine.connect() as connection:
        while not found or not found[-1].is_last:
            page = await queries.read_page(connection, lease, most)
            assert page is not None
            assert page.upto > lease.watermark or page.is_last, "progress"
            found.append(page)
            lease = replace(lease, watermark=page.upto)
    return found


@pytest.fixture
async def run(source: Source, target: MemoryTarget) -> SourceRun:
    return await source.run()


async def test_pages_are_cut_between_writes(run: SourceRun, engine: AsyncEngine) -> None:
    for part in range(7):
        await run.log(metrics=points("m", 10, first=10 * part), params={f"p{part}": "1"}, tags={f"t{part}": "1"})
        await run.upload(f"f{part}", b"x")
    [lease] = await claim(engine)
    cut = await pages(engine, lease, 30)
    assert len(cut) > 3
    assert [point.metric.step for page in cut for point in page.points] == list(range(70))
    assert sorted(param.key for page in cut for param in page.params) == [f"p{n}" for n in range(7)]
    assert sorted(file.path for page in cut for file in page.files) == [f"f{n}" for n in range(7)]
    for page in cut:
        rows = len(page.points) + len(page.params) + len(page.tags) + len(page.files)
        assert rows <= 30
        assert len(page.points) % 10 == 0
        assert len(page.points) == 10 * len(page.params)


async def test_a_write_larger_than_a_page_is_a_page(run: SourceRun, engine: AsyncEngine) -> None:
    await run.log(metrics=points("m", 5))
    await run.log(metrics=points("m", 500, first=5))
    await run.log(metrics=points("m", 5, first=505))
    [lease] = await claim(engine)
    sizes = [len(page.points) for page in await pages(engine, lease, 20)]
    assert [size for size in sizes if size] == [5, 500, 5]


async def test_a_page_boundary_that_fits_exactly(run: SourceRun, engine: AsyncEngine) -> None:
    [lease] = await claim(engine)
    created = len((await pages(engine, lease, 1000))[0].tags)
    await run.log(metrics=points("m", 10 - created))
    assert len(await pages(engine, lease, 10)) == 1
    assert len(await pages(engine, lease, 9)) == 2


async def test_overwritten_rows_stand_in_the_page_of_their_last_write(run: SourceRun, engine: AsyncEngine) -> None:
    await run.log(tags={"a": "1", "gone": "1", "runmirror.x": "ours"})
    await run.upload("f", b"one")
    await run.delete_tag("gone")
    await run.log(tags={"a": "2"})
    await run.delete_file("f")
    [lease] = await claim(engine)
    [page] = await pages(engine, lease, 1000)
    assert {tag.key: tag.value for tag in page.tags if tag.key != "mlflow.runName"} == {"a": "2"}
    assert page.deleted_tags == ("gone",)
    assert page.files == ()


async def test_a_page_tells_what_is_known_of_the_workspace_it_goes_to(run: SourceRun, engine: AsyncEngine) -> None:
    [lease] = await claim(engine)
    for link_id, remote_id, limit in ((lease.link_id + 1, "theirs", 7), (lease.link_id, "ours", 9)):
        async with engine.begin() as connection:
            await queries.save_experiment(
                connection, 0, link_id=link_id, remote_experiment_id=remote_id, remote_name="Default"
            )
            await overflow_queries.learn_limit(connection, link_id, "params", limit)
        [page] = await pages(engine, lease, 1000)
        known = (page.source.remote_experiment_id, dict(page.learned_limits))
        assert known == (("ours", {"params": 9}) if remote_id == "ours" else (None, {}))
