"""What one fault cost, counted by the clients that were there; and the table of them all."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.bench.drawing import number


@dataclass
class Figures:
    """`wrong` is everything that must not be: a fault passes when it is empty."""

    fault: str
    title: str
    clients: int = 0
    sent: int = 0
    ok: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    recovery_s: float | None = None
    longest_s: float = 0.0
    mlflow_calls: int = 0
    mlflow_failed: int = 0
    mirrored_runs: int | None = None
    outage_s: float = 0.0
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"errors": dict(self.errors)}


def table(run: dict[str, Any]) -> str:
    """Markdown, from what `as_json` kept of each fault."""
    heads = [
        "fault", "clients", "requests", "answered ok", "errors", "writes acknowledged", "lost", "doubled",
        "recovered after", "longest answer", "mlflow client: calls, failed", "runs equal in the workspace",
    ]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for found in run["faults"]:
        errors = ", ".join(f"{count:,} × {what}" for what, count in sorted(found["errors"].items())) or "none"
        recovery = "" if found["recovery_s"] is None else f"{found['recovery_s']:.1f} s"
        mlflow = f"{found['mlflow_calls']:,}, {found['mlflow_failed']}" if found["mlflow_calls"] else ""
        mirrored = "" if found["mirrored_runs"] is None else number(found["mirrored_runs"])
        lines.append(
            f"| {found['title']} | {found['clients']} | {found['sent']:,} | {found['ok']:,} | {errors} "
            f"| {found['acknowledged']:,} | {found['lost']} | {found['doubled']} | {recovery} "
            f"| {found['longest_s']:.1f} s | {mlflow} | {mirrored} |"
        )
    return "\n".join(lines)


def page(run: dict[str, Any]) -> str:
    """docs/faults.md."""
    notes = [f"- **{found['title']}**: {'; '.join(found['notes'])}." for found in run["faults"] if found["notes"]]
    failed = [f"- **{found['title']}**: {what}" for found in run["faults"] for what in found["wrong"]]
    return "\n".join([
        "# Faults under load",
        "",
        "Made by `make faults`; not written by hand. Each fault strikes a real server while clients log. *Lost* are",
        "acknowledged writes that cannot be read back, *doubled* is what is stored twice; *recovered* tells how long",
        "after the fault every client had been answered 200 again, *longest answer* how long one request took at most.",
        "Where a workspace is linked, `runmirror verify` compares both sides in the end.",
        "",
        f"Measured {run['when'][:10]} at {run['commit']} on {run['machine']}, seed {run['seed']}.",
        "The machine was shared with other work: what counts here is what was answered and kept, not how fast.",
        "",
        table(run),
        "",
        *notes,
        "",
        *(["## What was wrong", "", *failed] if failed else ["Nothing was lost, doubled, or answered wrongly."]),
        "",
    ])  # fmt: skip
