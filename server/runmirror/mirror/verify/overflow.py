"""The overflow file as it stands in the workspace, read back."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from runmirror.entities import Metric
from runmirror.mirror.overflow import PATH
from runmirror.mirror.source_files import revision_path
from runmirror.mirror.target import RemoteRun
from runmirror.mirror.verify.reader import Reader
from runmirror.mirror.verify.series import Series

REVISIONS = "runmirror/revisions/"
_LONGEST_LINE = 64 * 1024**2


@dataclass(slots=True)
class Overflow:
    """`upto` is the write it says it tells of; `inputs` are names and digests; `points` those that were asked for.

    `revisions` are paths of files, and where the newer content is.
    """

    upto: int = -1
    name: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    inputs: set[tuple[str, str]] = field(default_factory=set)
    metrics: dict[str, Series] = field(default_factory=dict)
    points: list[Metric] = field(default_factory=list)
    revisions: dict[str, str] = field(default_factory=dict)
    deleted_files: set[str] = field(default_factory=set)

    def add(self, line: Any, keep: str | None) -> None:
        """One line of the file. One that cannot be read says nothing: then what it should have said is missing."""
        try:
            match line["kind"]:
                case "overflow":
                    self.upto = int(line["upto"])
                case "param":
                    self.params[str(line["key"])] = str(line["value"])
                case "tag":
                    self.tags[str(line["key"])] = str(line["value"])
                case "run_name":
                    self.name = str(line["value"])
                case "revision":
                    self.revisions[str(line["key"])] = str(line["path"])
                case "deleted_artifact":
                    self.deleted_files.add(str(line["key"]))
                case "dataset":
                    self.inputs.add((str(line["name"]), str(line["digest"])))
                case "metric":
                    metric = Metric(str(line["key"]), float(line["value"]), int(line["timestamp"]), int(line["step"]))
                    self.metrics.setdefault(metric.key, Series()).add(metric)
                    if metric.key == keep:
                        self.points.append(metric)
        except (KeyError, TypeError, ValueError, OverflowError):
            return


async def read_overflow(
    reader: Reader, run: RemoteRun, paths: Collection[str], *, keep: str | None = None
) -> Overflow | None:
    """The newest overflow file among the run's paths, if it has one; of the metric `keep` every point."""
    found: Overflow | None = None
    for path in candidates(paths):
        if await reader.content(run, path) is None:
            continue  # registered by a worker that died before it sent the bytes
        read = await _read(reader, run, path, keep)
        found = read if found is None or read.upto > found.upto else found
    return found


def candidates(paths: Collection[str]) -> list[str]:
    """The file itself, and the last of the revisions that followed it where it could not be overwritten.

    Whether it can is Azure's to say each time, so that either may be the newer one.
    """
    revisions = [path.removeprefix(REVISIONS).partition("/") for path in paths if path.startswith(REVISIONS)]
    numbers = [int(number) for number, _, path in revisions if number.isdecimal() and path == PATH]
    newest = [revision_path(max(numbers), PATH)] if numbers else []
    return [*newest, *([PATH] if PATH in paths else [])]


async def _read(reader: Reader, run: RemoteRun, path: str, keep: str | None) -> Overflow:
    read = Overflow()
    rest = b""
    async for piece in reader.read(run, path):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            read.add(_parsed(line), keep)
        if len(rest) > _LONGEST_LINE:
            return read  # we never wrote that
    read.add(_parsed(rest), keep)
    return read


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
