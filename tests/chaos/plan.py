"""What one seed means: the whole workload and all faults, drawn before anything is started."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.crash_points import KINDS

Json = dict[str, Any]

START_MS = 1_700_000_000_000
LIMITS = {"params": 14, "tags": 16, "metrics": 5}  # of the workspace, as the settings know them
TIMEOUT_S = 2.0  # of the worker's requests
SETTLE_S = 0.5
# Longer than a worker waits. One that is stopped cannot hang up: then Azure acts on the request all the same, so late.
# What it does even later than timeout and settle is promised to nobody (docs/design.md): there is no idempotency key.
_HANG_S = TIMEOUT_S + 0.3
assert _HANG_S < TIMEOUT_S + SETTLE_S


@dataclass(frozen=True)
class Op:
    """One call of a client. `give_up`: not repeated when its answer is lost, so it may or may not have happened."""

    kind: str
    what: Json
    give_up: bool = False


@dataclass(frozen=True)
class RunPlan:
    """The calls of one client to one run, in order; `parent` is the index of the run it is nested in."""

    name: str
    experiment: int
    parent: int | None
    tags: dict[str, str]
    ops: list[Op]


@dataclass(frozen=True)
class Event:
    """A fault outside the emulator, when so much of the workload (1.0: all) is acknowledged."""

    at: float
    kind: str
    number: int = 0
    seconds: float = 0.0


@dataclass
class Plan:
    """Drawn from one seed."""

    seed: int
    runs: list[RunPlan] = field(default_factory=list)
    faults: list[Json] = field(default_factory=list)  # of the emulator, as its control port takes them
    events: list[Event] = field(default_factory=list)
    deaths: list[tuple[str, int]] = field(default_factory=list)  # of workers, one per life
    server_deaths: list[tuple[str, int]] = field(default_factory=list)
    emulator: Json = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    blob_store: bool = False
    workers: int = 1


def draw(seed: int) -> Plan:
    dice = random.Random(seed)
    plan = Plan(seed)
    plan.runs = [_run(dice, number) for number in range(dice.randint(3, 5))]
    plan.workers = dice.choice([1, 1, 2])
    plan.blob_store = dice.random() < 0.4
    plan.emulator = {
        "write_sas": dice.random() < 0.5,
        "read_lag_seconds": dice.choice([0, 0, 0.1]),
        "sas_lifetime": dice.choice([3600, 3600, 1]),
        "limits": _limits_of_the_workspace(dice),
    }
    plan.environment = {
        "RUNMIRROR_MIRROR_METRICS_PER_REQUEST": str(dice.choice([7, 50, 200])),
        "RUNMIRROR_MIRROR_CONCURRENCY": str(dice.choice([1, 2, 4])),
        "RUNMIRROR_MIRROR_ON_DELETE": "delete",
    }
    plan.faults = [_fault(dice) for _ in range(dice.randint(6, 12))]
    plan.events = sorted((_event(dice) for _ in range(dice.randint(1, 4))), key=lambda event: event.at)
    # The first boundary goes round with the seeds, so that enough of them meet every one.
    first = (KINDS[seed % len(KINDS)], 1 + seed // len(KINDS) % 30)
    plan.deaths = [first] + [(dice.choice(KINDS), dice.randint(1, 40)) for _ in range(dice.randint(0, 2))]
    if dice.random() < 0.5:
        plan.server_deaths = [(dice.choice(["before_commit", "after_commit"]), dice.randint(5, 60))]
    return plan


def _limits_of_the_workspace(dice: random.Random) -> dict[str, int]:
    """Sometimes tighter than the settings know: then they are learned."""
    tight = dice.random() < 0.3
    return {
        "params_per_run": LIMITS["params"] - (dice.randint(1, 4) if tight else 0),
        "tags_per_run": LIMITS["tags"],
        "metric_names_per_run": LIMITS["metrics"] - (dice.randint(0, 2) if tight else 0),
        "points_per_metric_name": 1_000_000,
    }


_SERVICE = "/mlflow/v2.0/"
_PLACES = [
    r"runs/log-batch$", r"runs/log-batch$", r"runs/create$", r"runs/update$", r"runs/search$", r"experiments/create$",
    r"experiments/get-by-name$", r"batch/metadata$", r"metrics/get-history$", r"runs/delete-tag$", r"runs/log-inputs$",
    r"/artifacts/write/", r"artifacts/contentinfo$", r"runs/get$",
]  # fmt: skip


def _match(dice: random.Random) -> Json:
    if dice.random() < 0.15:
        return {"host": "*.blob.*", "method": dice.choice(["PUT", "HEAD"])}
    return {"path": dice.choice(_PLACES)}


def _fault(dice: random.Random) -> Json:
    """One misfortune at Azure's side."""
    kind = dice.choice([
        "reset_before", "reset_after", "reset_after", "hang", "hang_after", "truncate", "drip", "throttled",
        "throttled_until", "throttled_silently", "server error", "unauthorized once", "forbidden for a while",
        "vanished", "conflict", "too large", "sas expired",
    ])  # fmt: skip
    skip = dice.choice([0, 0, 0, 1, 1, 2, 4])
    times = dice.randint(1, 3)
    rule: Json = {"match": _match(dice), "skip": skip, "times": times}
    everything: Json = {"match": {"path": _SERVICE}, "skip": dice.randint(0, 20), "times": times}
    late: Json = {"match": {"path": r"runs/log-batch$"}, "skip": skip, "times": 1}
    found: dict[str, Callable[[], Json]] = {
        "hang": lambda: rule | {"kind": "hang", "seconds": dice.choice([0.2, _HANG_S]), "times": 1},
        "hang_after": lambda: rule | {"kind": "hang_after", "seconds": dice.choice([0.2, _HANG_S]), "times": 1},
        "drip": lambda: rule | {"kind": "drip", "seconds": dice.choice([0.4, 3.0]), "times": 1},
        "throttled": lambda: everything | _status(429, {"Retry-After": dice.choice(["0.2", "0.2", "1"])}),
        "throttled_until": lambda: everything | _status(429, {"Retry-After": "date+1"}) | {"times": 1},
        "throttled_silently": lambda: everything | _status(429),
        "server error": lambda: (
            rule | _status(dice.choice([500, 502, 503, 504]), {"Retry-After": "0.1"} if dice.random() < 0.3 else {})
        ),
        "unauthorized once": lambda: everything | _status(401) | {"times": 1},
        "forbidden for a while": lambda: everything | _status(403) | {"times": dice.randint(2, 6)},
        "vanished": lambda: {
            "match": {"path": r"runs/(log-batch|update|get)$"},
            "skip": dice.randint(1, 6),
            "times": dice.choice([1, 4]),
            **_status(404, told="RESOURCE_DOES_NOT_EXIST"),
        },
        "conflict": lambda: rule | _status(409, told="RESOURCE_CONFLICT") | {"times": 1},
        "too large": lambda: late | _status(413, told="REQUEST_TOO_LARGE"),
        "sas expired": lambda: (
            rule
            | {"match": {"host": "*.blob.*", "method": "PUT"}}
            | _status(403, {"x-ms-error-code": "AuthenticationFailed"})
        ),
    }  # fmt: skip
    return found[kind]() if kind in found else rule | {"kind": kind}


def _status(status: int, headers: dict[str, str] | None = None, *, told: str = "") -> Json:
    error = {"code": "UserError" if status < 500 else "ServiceError", "message": f"chaos answers {status}"}
    return {"kind": "status", "status": status, "headers": headers or {}, "body": {"error": error, "error_code": told}}


def _event(dice: random.Random) -> Event:
    kind = dice.choice([
        "kill worker", "kill worker", "kill server", "zombie", "cut network", "refuse network", "stall network",
        "kill postgres session", "terminate postgres sessions", "restart postgres", "kill postgres", "pause postgres",
        "blob store away", "second worker",
    ])  # fmt: skip
    return Event(round(dice.uniform(0.05, 0.95), 2), kind, dice.randint(0, 99), round(dice.uniform(0.1, 0.6), 2))


def _run(dice: random.Random, number: int) -> RunPlan:
    parent = dice.randrange(number) if number and dice.random() < 0.3 else None
    tags = {f"born{n}": str(n) for n in range(dice.randint(0, 3))}
    writer = _Writer(dice, number)
    ops = [op for _ in range(dice.randint(8, 22)) for op in writer.next()]
    ops += writer.ending()
    name = f"run {number}" + (" long" * 60 if dice.random() < 0.1 else "")
    return RunPlan(name, dice.randint(0, 1), parent, tags, ops)


class _Writer:
    """Draws the calls of one client; it knows what it has written, so that it can repeat and overwrite."""

    def __init__(self, dice: random.Random, number: int) -> None:
        self._dice = dice
        self._number = number
        self._step = 0
        self._params = 0
        self._tags: list[str] = []
        self._files: list[str] = []
        self._points: list[Json] = []
        self._serial = 0

    def next(self) -> list[Op]:  # noqa: PLR0911 - one for each kind of call
        draw = self._dice.random()
        if draw < 0.5:
            return [self._batch()]
        if draw < 0.62:
            return [self._set_tag()]
        if draw < 0.67 and self._tags:
            return [Op("delete_tag", {"key": self._tags.pop(self._dice.randrange(len(self._tags)))})]
        if draw < 0.84:
            return [self._file()]
        if draw < 0.88:
            return [Op("update", {"run_name": f"renamed {self._number} {self._next()}"})]
        if draw < 0.92:
            return [Op("inputs", {"name": f"data{self._next()}"})]
        if draw < 0.95:
            return [Op("delete", {}), Op("restore", {})]
        return [self._end(), Op("update", {"status": "RUNNING"}), self._batch()]

    def ending(self) -> list[Op]:
        """Most runs end, some are deleted after that, and to some more is written all the same."""
        draw = self._dice.random()
        ops = [self._end()] if draw < 0.85 else []
        if draw < 0.2:
            ops.append(self._batch())
        if draw > 0.75:
            ops.append(Op("delete", {}))
        return ops

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _end(self) -> Op:
        status = self._dice.choice(["FINISHED", "FAILED", "KILLED"])
        # No two endings have the same time, so that the workspace's can be told apart.
        return Op("update", {"status": status, "end_time": START_MS + self._number * 1000 + self._next()})

    def _batch(self) -> Op:
        dice = self._dice
        points = [self._point(f"m{dice.randint(0, 6)}") for _ in range(dice.choice([0, 1, 3, 20, 60]))]
        if self._points and dice.random() < 0.4:
            points += dice.sample(self._points, min(len(self._points), 5))  # known already
        self._points = (self._points + points)[-50:]
        what: Json = {"metrics": points}
        if dice.random() < 0.5:
            what["params"] = [self._param() for _ in range(dice.randint(1, 6))]
        if dice.random() < 0.3:
            what["tags"] = [{"key": key, "value": self._value()} for key in {self._tag() for _ in range(3)}]
        return Op("batch", what, give_up=not what.get("tags") and dice.random() < 0.3)

    def _point(self, key: str) -> Json:
        dice = self._dice
        self._step += 1
        value: float | str = dice.choice(["NaN", "Infinity", "-Infinity"]) if dice.random() < 0.03 else self._step / 7
        timestamp = START_MS + self._step if dice.random() < 0.7 else START_MS - dice.randint(0, 10_000)
        step = self._step if dice.random() < 0.8 else dice.randint(-5, 20)
        return {"key": key, "value": value, "timestamp": timestamp, "step": step}

    def _param(self) -> Json:
        self._params += 1
        long = self._dice.random() < 0.1
        return {"key": f"p{self._params}", "value": "x" * 600 if long else f"v{self._params} ä"}

    def _tag(self) -> str:
        key = f"t{self._dice.randint(0, 14)}"
        if key not in self._tags:
            self._tags.append(key)
        return key

    def _value(self) -> str:
        return f"{self._next()}" + (" long" * 250 if self._dice.random() < 0.1 else "")

    def _set_tag(self) -> Op:
        return Op("tag", {"key": self._tag(), "value": self._value()})

    def _file(self) -> Op:
        dice = self._dice
        if self._files and dice.random() < 0.15:
            return Op("delete_file", {"path": self._files.pop(dice.randrange(len(self._files)))})
        overwrite = self._files and dice.random() < 0.35
        path = dice.choice(self._files) if overwrite else f"dir{dice.randint(0, 2)}/f{self._next()} ü.txt"
        if path not in self._files:
            self._files.append(path)
        size = dice.choice([0, 10, 1000, 200_000])
        content = f"{self._number} {self._next()} " + "x" * size if size else ""
        return Op("file", {"path": path, "content": content})
