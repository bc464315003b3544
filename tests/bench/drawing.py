"""What the benches draw and write: SVG legible on light and dark pages, JSON beside it, the page's part."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# GitHub shows the picture as an image: it follows the reader's system by this, and has a ground of its own.
_STYLE = """<style>
  .ground { fill: #ffffff } text { fill: #24292f } .strong { font-weight: 600 } .quiet { fill: #6e7781 }
  .axis { stroke: #d0d7de } .frame { fill: none; stroke: #d0d7de }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 } .quiet { fill: #8d96a0 } .axis, .frame { stroke: #30363d }
  }
</style>"""
LINES = ("#2f81f7", "#db6d28")


@dataclass(frozen=True)
class Panel:
    """One small plot over a logarithmic axis; `lines` are points (x, y) by what they are."""

    title: str
    unit: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def drawing(width: float, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        'font-family="system-ui, sans-serif" font-size="12">'
    )
    return "\n".join(
        [head, _STYLE, f'<rect class="ground" width="{width:g}" height="{height:g}"/>', *parts, "</svg>\n"]
    )


def text(x: float, y: float, said: str, kind: str = "", anchor: str = "start") -> str:
    escaped = said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escaped}</text>'


def panels(head: str, drawn: Sequence[Panel], columns: int = 3) -> str:
    """Small plots side by side, each with its y axis from 0, and the names of the lines above them all."""
    wide, high, top = 300, 190, 56
    names = list(dict.fromkeys(name for panel in drawn for name in panel.lines))
    parts = [text(12, 20, head)]
    for place, name in enumerate(names):
        x = 12 + 220 * place
        parts += [f'<rect x="{x}" y="31" width="16" height="4" fill="{LINES[place]}"/>', text(x + 22, 38, name)]
    for place, panel in enumerate(drawn):
        x, y = wide * (place % columns), top + high * (place // columns)
        parts.append(f'<g transform="translate({x} {y})">{_panel(panel, names)}</g>')
    rows = -(-len(drawn) // columns)
    return drawing(wide * columns, top + high * rows, parts)


def _panel(panel: Panel, names: Sequence[str]) -> str:
    left, right, upper, lower = 16, 288, 34, 152
    values = [value for points in panel.lines.values() for _, value in points]
    most = max(values, default=1) * 1.15 or 1
    sizes = [size for points in panel.lines.values() for size, _ in points]
    first, last = math.log10(min(sizes)), math.log10(max(sizes))

    def place(size: float, value: float) -> tuple[float, float]:
        along = (math.log10(size) - first) / ((last - first) or 1)
        return left + 14 + along * (right - left - 40), lower - value / most * (lower - upper)

    parts = [
        text(left, 18, panel.title, "strong"),
        f'<rect class="frame" x="{left}" y="{upper - 8}" width="{right - left}" height="{lower - upper + 8}"/>',
    ]
    for exponent in range(math.ceil(first), math.floor(last) + 1):
        x, _ = place(10**exponent, 0)
        parts += [
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{lower}" y2="{lower + 4}"/>',
            text(x, lower + 17, _power(exponent), "quiet", "middle"),
        ]
    for name, points in panel.lines.items():
        colour = LINES[names.index(name)]
        spots = [place(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in spots]
        below = 17 if names.index(name) else -7  # the second line is labelled below
        for (x, y), (_, value), anchor in ((spots[0], points[0], "start"), (spots[-1], points[-1], "end")):
            parts.append(text(x, y + below, f"{number(value)} {panel.unit}", "quiet", anchor))
    return "".join(parts)


def _power(exponent: int) -> str:
    return "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(exponent))


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def write_json(folder: Path, name: str, run: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")


def write(folder: Path, name: str, run: Mapping[str, Any], svg: str) -> None:
    write_json(folder, name, run)
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")


def into_page(page: Path, part: str, markdown: str) -> None:
    """Between the two marks of this part."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}\n{markdown}\n{end}{after}", encoding="utf-8")
