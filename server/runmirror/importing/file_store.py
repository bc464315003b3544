"""A folder as MLflow's file store writes it (`./mlruns`): what lies where, and how it is read.

Read by itself and not by the `mlflow` package, which has taken the file store out of use and reads every run anew for
each page of a search.

    <experiment id>/meta.yaml, tags/        .trash/<experiment id>: deleted
        <run id>/meta.yaml, params/, tags/, metrics/, inputs/, outputs/
        datasets/<dataset id>/, models/<model id>/, traces/<trace id>/
    models/<name>/meta.yaml, tags/, aliases/, version-<n>/
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from runmirror.importing.source import SourceError
from runmirror.runs.hot_columns import Point

META = "meta.yaml"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # never anything but plain values


def meta(folder: Path, name: str = META) -> dict[str, Any]:
    """Raises `SourceError`."""
    file = folder / name
    try:
        found = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a safe loader
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise SourceError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise SourceError(f"{file} is no {name} of MLflow")
    return found


def folders(place: Path) -> list[Path]:
    """By name; links are not followed."""
    try:
        return sorted(one for one in place.iterdir() if one.is_dir() and not one.is_symlink())
    except FileNotFoundError:
        return []


def files(place: Path) -> Iterator[tuple[str, Path]]:
    """The files below a folder by the names of what they hold: a name may have slashes in it."""
    if not place.is_dir():
        return
    for file in sorted(place.rglob("*")):
        if file.is_file() and not file.is_symlink():
            yield file.relative_to(place).as_posix(), file


def texts(place: Path) -> dict[str, str]:
    """Raises `SourceError`."""
    try:
        return {name: file.read_text(encoding="utf-8") for name, file in files(place)}
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{place} cannot be read: {error}") from error


def points(key: str, file: Path) -> Iterator[Point]:
    """The lines of a metric's file: `timestamp value step`, in older ones without the step. Raises `SourceError`."""
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                parts = line.split()
                if parts:
                    yield Point(key, float(parts[1]), int(parts[0]), int(parts[2]) if len(parts) > 2 else 0)
    except (OSError, ValueError, IndexError) as error:
        raise SourceError(f"{file} is no file of a metric: {error}") from error


def experiments(root: Path) -> Iterator[tuple[Path, bool]]:
    """`(folder, whether it is deleted)`."""
    for place, is_deleted in ((root, False), (root / ".trash", True)):
        for folder in folders(place):
            if folder.name not in {"models", ".trash"} and (folder / META).is_file():
                yield folder, is_deleted


def runs(experiment: Path) -> Iterator[Path]:
    for folder in folders(experiment):
        if folder.name not in {"tags", "datasets", "traces", "models"} and (folder / META).is_file():
            yield folder
