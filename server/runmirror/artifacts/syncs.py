"""Many files to the disk at once, by one thread.

The kernel's own asynchronous requests (`io_submit`) are handed over together, done side by side, and waited for once.
One `fsync` after the other would wait for each, and each time give up the interpreter and have to get it back. Where
there are no such requests (a strict sandbox, another system), that is how it is done.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caio.abstract import AbstractOperation
    from caio.linux_aio import Context

log = logging.getLogger(__name__)

Wait = Callable[[], Sequence[bool]]
"""Returns when all are on the disk, and says of each whether it is."""

_AT_ONCE = 64  # requests that the kernel makes room for, and answers told at once
_NOT_TAKEN = (OverflowError, ValueError, SystemError)  # what caio makes of EAGAIN, of EBADF and EINVAL, of all others


class _Here(threading.local):
    """Of each thread, since whoever waits in one would take the answers of another."""

    context: "Context | None" = None
    fsync: "Callable[[int], AbstractOperation]"


_here = _Here()


def use_kernel() -> None:
    """Have what this thread syncs done by the kernel's asynchronous requests, if it may use them."""
    try:
        from caio import linux_aio  # noqa: PLC0415 - a twentieth of a second, which the start need not wait for

        if linux_aio is not None:  # else caio was built without it
            _here.fsync, _here.context = linux_aio.Operation.fsync, linux_aio.Context(_AT_ONCE)
            _try_out()
    except Exception as error:  # noqa: BLE001 - whatever it is, by hand it works
        log.info("small files that arrive together wait for the disk one after the other: %s", error)
        _here.context = None


def begin_syncs(descriptors: Sequence[int]) -> Wait:
    """Have each of the open files or folders go to the disk. They may only be closed after the wait."""
    context = _here.context
    operations = [] if context is None else _taken(context, descriptors)
    ended: list[int] = []
    for operation in operations:
        operation.set_callback(ended.append)

    def wait() -> Sequence[bool]:
        by_hand = [_is_synced(descriptor) for descriptor in descriptors[len(operations) :]]
        while context is not None and len(ended) < len(operations):
            _await(context, len(operations) - len(ended))
        return [*map(_is_done, operations), *by_hand]

    return wait


def _try_out() -> None:
    """Raises what the requests meet with: a sandbox may allow to make them, and not to wait for them."""
    file = os.memfd_create("syncs")  # on no disk, which may be read-only
    try:
        begin_syncs([file])()
    finally:
        os.close(file)


def _taken(context: "Context", descriptors: Sequence[int]) -> "Sequence[AbstractOperation]":
    """Those requests that the kernel took, of the first descriptors."""
    operations = [_here.fsync(descriptor) for descriptor in descriptors]
    with suppress(*_NOT_TAKEN):
        return operations[: context.submit(*operations)]
    return []


def _await(context: "Context", events: int) -> None:
    try:
        context.process_events(_AT_ONCE, min(events, _AT_ONCE), -1)  # without end
    except SystemError as error:  # of an errno
        if error.args[0] != errno.EINTR:
            raise


def _is_done(operation: "AbstractOperation") -> bool:
    with suppress(SystemError):  # what caio makes of an error of the disk
        operation.get_value()
        return True
    return False


def _is_synced(descriptor: int) -> bool:
    with suppress(OSError):
        os.fsync(descriptor)
        return True
    return False
