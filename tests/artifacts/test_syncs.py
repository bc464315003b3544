"""Files that go to the disk side by side: each is told from the others, by the kernel's requests as by hand."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from runmirror.artifacts import syncs
from runmirror.artifacts.syncs import begin_syncs, use_kernel


def by_hand() -> None:
    """What a thread begins with that may not use the kernel's requests."""


@pytest.fixture(params=[use_kernel, by_hand])
def thread(request: pytest.FixtureRequest) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, initializer=request.param) as executor:
        if request.param is use_kernel and executor.submit(lambda: syncs._here.context).result() is None:
            pytest.skip("this system takes no asynchronous requests")
        yield executor


@contextmanager
def opened(folder: Path, count: int) -> Iterator[list[int]]:
    descriptors = [os.open(folder / str(n), os.O_CREAT | os.O_WRONLY) for n in range(count)]
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def synced(descriptors: Sequence[int]) -> Sequence[bool]:
    return begin_syncs(descriptors)()


def test_a_thread_that_cannot_load_what_asks_the_kernel_syncs_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "caio", None)
    with ThreadPoolExecutor(1, initializer=use_kernel) as executor, opened(tmp_path, 2) as descriptors:
        assert executor.submit(synced, descriptors).result() == [True, True]


def test_files_and_folders_are_synced_and_what_cannot_be_is_told_apart(
    thread: ThreadPoolExecutor, tmp_path: Path
) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    pipe = os.pipe()  # has no disk
    with opened(tmp_path, 3) as (one, two, closed):
        os.write(one, b"1" * 10_000)
        spare = os.dup(closed)
        os.close(spare)
        for descriptors, expected in (
            ([one, two, folder], [True] * 3),
            ([one, pipe[1], two], [True, False, True]),
            ([spare, folder, one], [False, True, True]),
            ([], []),
        ):
            assert thread.submit(synced, descriptors).result() == expected
    for descriptor in (folder, *pipe):
        os.close(descriptor)


def test_more_files_than_the_kernel_makes_room_for_are_synced_all_the_same(
    thread: ThreadPoolExecutor, tmp_path: Path
) -> None:
    with opened(tmp_path, 3 * syncs._AT_ONCE) as descriptors:
        for descriptor in descriptors:
            os.write(descriptor, b"1")
        assert thread.submit(synced, descriptors).result() == [True] * len(descriptors)


def test_a_signal_ends_no_wait(thread: ThreadPoolExecutor, tmp_path: Path) -> None:
    waiter: int = thread.submit(threading.get_ident).result()
    came = 0

    def count(*_: object) -> None:
        nonlocal came
        came += 1

    def sync_again_and_again() -> bool:
        with opened(tmp_path, 4) as descriptors:
            for _ in range(50):
                for descriptor in descriptors:
                    os.pwrite(descriptor, b"1" * 10_000, 0)
                if not all(synced(descriptors)):
                    return False
        return True

    before = signal.signal(signal.SIGUSR1, count)
    try:
        ending = thread.submit(sync_again_and_again)
        while not ending.done():
            signal.pthread_kill(waiter, signal.SIGUSR1)
        assert ending.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came > 0
