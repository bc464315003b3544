"""A run of the bench as a table and as a plot, for docs/benchmarks.md; the figures stay beside them as JSON."""

from pathlib import Path
from typing import Any

from tests.bench.drawing import drawing, into_page, number, text, write
from tests.bench.rows import RATE_ROUNDS
from tests.bench.servers import FASTTRACKML, MIRRORED, MLFLOW, OURS

NAMES = {
    OURS: "runmirror",
    MIRRORED: "runmirror, mirroring",
    MLFLOW: "mlflow server 3.17.2",
    FASTTRACKML: "FastTrackML 0.6.0",
}
_COLOURS = {OURS: "#2f6fde", MIRRORED: "#85abe9", MLFLOW: "#9aa4b2", FASTTRACKML: "#e0a458"}


def table(run: dict[str, Any]) -> str:
    """Markdown: medians, and how many times faster than each competitor."""
    lines = [
        f"Measured {run['when'][:10]} at {run['commit']} on {run['machine']}, shared by load generator, server and",
        f"Postgres; medians of {run['rounds']} rounds ({RATE_ROUNDS * run['rounds']} of rates), servers in turn. In",
        "brackets: how many times faster we are.",
        "",
        "| work | runmirror | the same, mirroring | `mlflow server` 3.17.2 | FastTrackML 0.6.0 | wanted | reached |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in run["rows"]:
        cells = [_figure(row, name) for name in NAMES]
        verdict = {True: "yes", False: "not yet", None: ""}[row["holds"]]
        lines.append(f"| {row['title']} | {' | '.join(cells)} | {row['wanted']} | {verdict} |")
    return "\n".join(lines)


def plot(run: dict[str, Any]) -> str:
    """SVG: for each row that somebody else does too, how fast each server is beside the fastest."""
    rows = [row for row in run["rows"] if len(row["medians"]) > 1]
    parts, y = (
        [text(10, 18, f"Longer is faster, on a scale of its own in each row. {run['when'][:10]}, {run['machine']}")],
        44,
    )
    for row in rows:
        parts.append(text(10, y, row["title"], "strong"))
        medians = {name: row["medians"][name] for name in NAMES if name in row["medians"]}
        speeds = {name: value if row["higher_is_better"] else 1 / max(value, 0.1) for name, value in medians.items()}
        for name, speed in speeds.items():
            y, width = y + 14, max(speed / max(speeds.values()) * 560, 1.5)
            parts.append(f'<rect x="10" y="{y - 9}" width="{width:.1f}" height="11" fill="{_COLOURS[name]}"/>')
            parts.append(text(width + 16, y, f"{NAMES[name]}: {number(medians[name])} {row['unit']}"))
        y += 26
    return drawing(900, y, parts)


def keep(run: dict[str, Any], folder: Path) -> None:
    """Write `latest.json` and `latest.svg`, and put the table into the page."""
    write(folder, "latest", run, plot(run))
    into_page(folder.parent / "benchmarks.md", "bench", table(run))


def _figure(row: dict[str, Any], name: str) -> str:
    if name not in row["medians"]:
        return ""
    said = f"{number(row['medians'][name])} {row['unit']}".rstrip()
    factor = row["factors"].get(name)
    return said if factor is None else f"{said} ({factor:.1f} x)"
