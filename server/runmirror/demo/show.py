"""The comparison as plain text, no wider than a terminal of 100 columns."""

from collections.abc import Iterator

from runmirror.demo.compare import AZURE_TAGS, OWN_TAG_PREFIX, Comparison, Row

WIDTH = 100
_NAME, _SIDE = 37, 29  # with two margins, a mark between the sides and the spaces: 100
_ABSENT = "—"
_LEFT_OUT = f"  (not compared: the tags {OWN_TAG_PREFIX}* and {', '.join(sorted(AZURE_TAGS))}, which only one side has)"
_HEADINGS = {"run": "run", "param": "params", "tag": "tags", "metric": "metrics", "file": "artifacts"}


def table(comparison: Comparison, source_title: str, target_title: str) -> str:
    """Every row of the comparison under the titles of its sides, and a line that sums up."""
    lines = [_line("", source_title, " ", target_title), "─" * WIDTH]
    kind = ""
    for row in comparison.rows:
        if row.kind != kind:
            kind = row.kind
            lines.append(_HEADINGS[kind])
        lines.append(_line(f"  {row.name}", _shown(row.source), "✓" if row.equal else "≠", _shown(row.target)))
    lines += ["─" * WIDTH, summary(comparison), _LEFT_OUT]
    return "\n".join(lines)


def summary(comparison: Comparison) -> str:
    """The verdict, with what it stands on."""
    counts = ", ".join(_counts(comparison.rows))
    if comparison.equal:
        return f"✓ both sides are equal: {counts}"
    if not comparison.rows:
        return "≠ there was nothing to compare"
    return f"≠ {comparison.differences} of {len(comparison.rows)} rows differ ({counts})"


def _counts(rows: tuple[Row, ...]) -> Iterator[str]:
    for kind, heading in _HEADINGS.items():
        number = sum(row.kind == kind for row in rows)
        if number and kind != "run":
            yield f"{number} {heading if number != 1 else heading.removesuffix('s')}"


def _line(name: str, source: str, mark: str, target: str) -> str:
    return f"{_fit(name, _NAME)} {_fit(source, _SIDE)} {mark} {_fit(target, _SIDE)}".rstrip()


def _shown(text: str | None) -> str:
    return _ABSENT if text is None else text


def _fit(text: str, width: int) -> str:
    """Exactly `width` characters on one line; of a long text the beginning and the end."""
    flat = " ".join(text.splitlines())
    if len(flat) <= width:
        return flat.ljust(width)
    head = (width - 1) // 2
    return f"{flat[:head]}…{flat[len(flat) - (width - 1 - head) :]}"
