"""A run of the bench as a table and as a plot, for the README; the figures themselves stay beside them as JSON."""

import json
from pathlib import Path
from typing import Any

from tests.bench.servers import FASTTRACKML, MLFLOW, OURS

NAMES = {OURS: "runmirror", MLFLOW: "mlflow server 3.17.2", FASTTRACKML: "FastTrackML 0.6.0"}
_COLOURS = {OURS: "#2f6fde", MLFLOW: "#9aa4b2", FASTTRACKML: "#e0a458"}
_BEGIN, _END = "<!-- bench: begin -->", "<!-- bench: end -->"


def table(run: dict[str, Any]) -> str:
    """Markdown: medians, and how many times faster than each competitor."""
    machine, mirror = run["machine"], "on" if run["mirror"] else "off"
    lines = [
        f"Measured {run['when'][:10]} on {machine}, shared by load generator, server and Postgres.",
        f"Medians of {run['rounds']} rounds, servers in turn; mirror {mirror}.",
        "",
        "| work | runmirror | `mlflow server` 3.17.2 | FastTrackML 0.6.0 | wanted | |",
        "|---|---|---|---|---|---|",
    ]
    for row in run["rows"]:
        cells = [_figure(row, OURS), _figure(row, MLFLOW), _figure(row, FASTTRACKML)]
        verdict = {True: "yes", False: "not yet", None: ""}[row["holds"]]
        lines.append(f"| {row['title']} | {' | '.join(cells)} | {row['wanted']} | {verdict} |")
    return "\n".join(lines)


def plot(run: dict[str, Any]) -> str:
    """SVG: for each row that somebody else does too, how many times the slowest each server does."""
    rows = [row for row in run["rows"] if len(row["medians"]) > 1]
    height = 40 + 62 * len(rows)
    told = f"Longer is faster, on a scale of its own in each row. {run['when'][:10]}, {run['machine']}"
    font = 'font-family="system-ui, sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {height}" {font}>',
        f'<rect width="900" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="18" fill="#333">{_escaped(told)}</text>',
    ]
    for number, row in enumerate(rows):
        top = 34 + 62 * number
        parts.append(f'<text x="10" y="{top + 8}" fill="#111" font-weight="600">{_escaped(row["title"])}</text>')
        speeds = {name: value if row["higher_is_better"] else 1 / value for name, value in row["medians"].items()}
        most = max(speeds.values())
        for place, (name, speed) in enumerate(speeds.items()):
            y, width = top + 12 + 14 * place, max(speed / most * 560, 1.5)
            parts.append(f'<rect x="10" y="{y}" width="{width:.1f}" height="11" fill="{_COLOURS[name]}"/>')
            said = f"{NAMES[name]}: {_number(row['medians'][name])} {row['unit']}"
            parts.append(f'<text x="{width + 16:.1f}" y="{y + 10}" fill="#333">{_escaped(said)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def keep(run: dict[str, Any], folder: Path) -> None:
    """Write `latest.json` and `latest.svg`, and put the table into the README."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    (folder / "latest.svg").write_text(plot(run), encoding="utf-8")
    readme = folder.parents[1] / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    readme.write_text(f"{before}{_BEGIN}\n{table(run)}\n{_END}{after}", encoding="utf-8")


def _figure(row: dict[str, Any], name: str) -> str:
    if name not in row["medians"]:
        return ""
    said = f"{_number(row['medians'][name])} {row['unit']}"
    factor = row["factors"].get(name)
    return said if factor is None else f"{said} ({factor:.1f} x)"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
