"""Where the pages are: in the installed `mlflow` package, or in a folder that the operator names."""

from importlib.util import find_spec
from pathlib import Path

from runmirror.settings import Settings

INDEX = "index.html"
HOW_TO_GET_IT = (
    "runmirror serves MLflow's API here; for its web pages install them with `pip install 'runmirror[ui]'`, or set "
    "RUNMIRROR_UI_DIR to a folder that holds them, and start again.\n"
)


def ui_folder(settings: Settings) -> Path | None:
    """The folder of index.html, or None. The package is looked for, never imported: it would bring half of PyPI."""
    if settings.ui_dir is not None:
        return settings.ui_dir
    package = find_spec("mlflow")
    for place in (package.submodule_search_locations or ()) if package else ():
        folder = Path(place) / "server" / "js" / "build"
        if (folder / INDEX).is_file():
            return folder
    return None


def files_below(folder: Path) -> dict[str, Path]:
    """Every file by the path a browser asks for: a request names one of these or nothing, so none leads elsewhere."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
