"""Send the same call to MLflow's server and to ours, and compare the two answers.

    def test_a_run_can_be_read_back(both: Both) -> None:
        both.call("POST", "experiments/create", json={"name": both.unique("exp")})
        both.bind("experiment", "experiment_id")                  # differs per server: later calls say {experiment}
        both.call("POST", "runs/create", json={"experiment_id": "{experiment}", "start_time": 1})
        both.bind("run", "run.info.run_id")
        both.call("GET", "runs/get", params={"run_id": "{run}"})  # status, error_code and body are compared
        both.call("GET", "runs/get", params={"run_id": "nope"}, message=True)  # and the message too

`call` takes paths below /api/2.0/mlflow, or any path that starts with "/". Ids, clock times and random run names are
normalised; `[]` equals absent; a list whose entries have different keys is compared without its order. A difference
we want is written down at the call: `deviation=Deviation((500, "INTERNAL_ERROR"), (400, "…"), why="…")`.
"""

import difflib
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.conformance.endpoints import is_told_to_differ

RANDOM_NAME = re.compile(r"^[a-z]+-[a-z]+-\d{1,4}$")
HEX_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
PLACEHOLDER = re.compile(r"\{([a-z_0-9]+)\}")
NEARLY_NOW_MS = 3_600_000
JSON_TEXTS = {"records", "tags"}  # where they are JSON inside a text, its blanks and the order of its keys are free
ABSENT = object()


@dataclass(frozen=True, slots=True)
class Deviation:
    """A difference we want: (status, error_code) of MLflow and of ours, and the reason.

    Where one accepts what the other refuses, the table of endpoints in docs/mlflow.md says so (`endpoints.DIFFERENT`),
    unless it holds `everywhere`.
    """

    mlflow: tuple[int, str | None]
    ours: tuple[int, str | None]
    why: str
    everywhere: bool = False

    @property
    def is_of_the_endpoint(self) -> bool:
        """That a client's mistake is no failure of the server holds everywhere, too."""
        theirs, ours = self.mlflow[0], self.ours[0]
        return not self.everywhere and theirs < 500 and (theirs < 400) != (ours < 400)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one server answered; `body` is None when it was not JSON."""

    status: int
    body: Any
    content: bytes
    headers: Mapping[str, str]

    @property
    def error_code(self) -> str | None:
        return self.body.get("error_code") if isinstance(self.body, dict) else None

    @property
    def message(self) -> str | None:
        return self.body.get("message") if isinstance(self.body, dict) else None

    def at(self, path: str) -> Any:
        """The value at a dotted path such as `run.info.run_id` or `experiments.0.name`."""
        value = self.body
        for part in path.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value


@dataclass(slots=True)
class Side:
    """One of the two servers, what was bound on it, and its last answer."""

    name: str
    url: str
    client: httpx.Client
    bound: dict[str, str] = field(default_factory=dict)
    last: Answer | None = None
    output: Path | None = None  # what the server prints

    def last_words(self) -> str:
        """The end of what the server printed, when its last answer was a failure of its own."""
        if self.output is None or self.last is None or self.last.status < 500:
            return ""
        return f"\n{self.name} printed:\n" + self.output.read_text(errors="replace")[-3000:]

    def fill(self, value: Any) -> Any:
        """`value` with every bound {placeholder} replaced; others stay as they are."""
        if isinstance(value, str):
            return PLACEHOLDER.sub(lambda match: self.bound.get(match[1], match[0]), value)
        if isinstance(value, dict):
            return {self.fill(key): self.fill(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.fill(item) for item in value]
        return value


class Both:
    """MLflow's server and ours, called in step."""

    def __init__(self, mlflow: Side, ours: Side) -> None:
        self.mlflow, self.ours = mlflow, ours

    @staticmethod
    def unique(prefix: str = "name") -> str:
        """A name that no other test uses, the same on both servers."""
        return f"{prefix}-{uuid.uuid4().hex[:8]}"

    @staticmethod
    def tick() -> None:
        """Wait for the clock's next millisecond: the order of what was made in the same one is by chance."""
        now = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 == now:
            pass

    def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = ABSENT,
        params: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        message: bool = False,
        body: bool = True,
        compare_headers: tuple[str, ...] = (),
        ignore: tuple[str, ...] = (),
        deviation: Deviation | None = None,
    ) -> Answer:
        """Send, compare, and return our answer.

        `body=False` compares status and error_code only; `ignore` names keys that may differ, wherever they stand.
        """
        rest = {"params": params, "content": content, "headers": dict(headers or {})}
        for side in self.sides:
            side.last = _send(side, method, path, json, rest)
        theirs, ours = _last(self.mlflow), _last(self.ours)
        heading = f"{method} {path}"
        if deviation is not None:
            found = ((theirs.status, theirs.error_code), (ours.status, ours.error_code))
            assert found == (deviation.mlflow, deviation.ours), f"{heading}: the deviation is another one: {found}"
            if deviation.is_of_the_endpoint:
                assert is_told_to_differ(method, _full(self.ours.fill(path))), (
                    f"{heading} is not in endpoints.DIFFERENT"
                )
            return ours
        seen = [_seen(side, message=message, body=body, headers=compare_headers, ignore=ignore) for side in self.sides]
        assert_same(heading, *seen, hint=self.ours.last_words)
        return ours

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.mlflow, self.ours

    def bind(self, name: str, path: str) -> None:
        """Remember, per server, what its last answer says at `path`; later calls write it {name}."""
        for side in self.sides:
            side.bound[name] = str(_last(side).at(path))

    def name(self, placeholder: str, value: str) -> None:
        """Bind the same text on both servers."""
        for side in self.sides:
            side.bound[placeholder] = value

    def each(self, act: Callable[[str], Any]) -> Any:
        """Call `act(tracking_uri)` on both servers, compare what it returns (made of JSON's types), return ours."""
        theirs, ours = act(self.mlflow.url), act(self.ours.url)
        name = getattr(act, "__name__", "each")
        assert_same(name, normal(theirs, self.mlflow, ()), normal(ours, self.ours, ()))
        return ours

    def new_experiment(self, name: str = "experiment") -> None:
        """Create an experiment on both and bind its id to `name`."""
        self.call("POST", "experiments/create", json={"name": self.unique(name)})
        self.bind(name, "experiment_id")

    def new_run(self, name: str = "run", experiment: str = "experiment", **fields: Any) -> None:
        """Create a run in a bound experiment on both and bind its id to `name`."""
        self.call("POST", "runs/create", json={"experiment_id": f"{{{experiment}}}", "start_time": 1000, **fields})
        self.bind(name, "run.info.run_id")


def assert_same(heading: str, theirs: Any, ours: Any, *, hint: Callable[[], str] = str) -> None:
    """Fail with a diff, MLflow's answer first, unless the two normalised values are equal (NaN equals NaN)."""
    one, two = _rendered(theirs), _rendered(ours)
    if one != two:
        lines = difflib.unified_diff(one, two, "mlflow", "runmirror", lineterm="", n=30)
        raise AssertionError(f"{heading}\n" + "\n".join(lines) + hint())


def normal(value: Any, side: Side, ignore: tuple[str, ...], key: str = "") -> Any:
    """`value` with everything that rightly differs between two servers replaced by its meaning."""
    if isinstance(value, dict):
        kept = {k: normal(v, side, ignore, _meaning(k, value)) for k, v in value.items() if k not in ignore}
        return {k: v for k, v in kept.items() if v != []}
    if isinstance(value, list):
        items = [normal(item, side, ignore, key.removesuffix("s")) for item in value]
        keys = [item.get("key") if isinstance(item, dict) else None for item in items]
        if None not in keys and len(set(keys)) == len(keys):
            items.sort(key=lambda item: str(item["key"]))
        return items
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        if key in JSON_TEXTS and isinstance(inside := _parsed(value), dict | list):
            return normal(inside, side, ignore, key)
        return _normal_text(value, side, key)
    if key == "experiment_id" and isinstance(value, int) and value:
        return "<experiment>"
    return "<now>" if isinstance(value, int) and _is_now(value) else value


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _meaning(key: str, siblings: Mapping[str, Any]) -> str:
    """The key that says what a value is: a tag's own key when the value is a tag's."""
    own = siblings.get("key")
    return own if key == "value" and isinstance(own, str) else key


def _normal_text(value: str, side: Side, key: str) -> str:
    for name, bound in side.bound.items():
        if value == bound:
            return f"{{{name}}}"
        if len(bound) > 8:
            value = value.replace(bound, f"{{{name}}}")
    if key in {"run_name", "mlflow.runName"} and RANDOM_NAME.match(value):
        return "<random name>"
    if key == "experiment_id" and value.isdigit() and value != "0":
        return "<experiment>"
    if value.isdigit() and len(value) < 20 and _is_now(int(value)):
        return "<now>"
    if "mlflow-artifacts:" in value:
        names = {bound: f"{{{name}}}" for name, bound in side.bound.items()}
        parts = [
            names.get(part, "<experiment>" if part.isdigit() and part != "0" else part) for part in value.split("/")
        ]
        value = "/".join(parts)
    return HEX_ID.sub("<id>", value)


def _normal_message(message: str, side: Side) -> str:
    for name, bound in side.bound.items():
        message = re.sub(rf"(?<!\w){re.escape(bound)}(?!\w)", f"{{{name}}}", message)
    return HEX_ID.sub("<id>", message)


def _is_now(value: int) -> bool:
    return abs(value - time.time() * 1000) < NEARLY_NOW_MS


def _full(path: str) -> str:
    return path if path.startswith("/") else f"/api/2.0/mlflow/{path}"


def _send(side: Side, method: str, path: str, body: Any, rest: Mapping[str, Any]) -> Answer:
    path = side.fill(path)
    filled = {name: value if isinstance(value, bytes) else side.fill(value) for name, value in rest.items()}
    if body is not ABSENT:  # httpx refuses NaN; clients of MLflow do send it
        filled["content"] = json.dumps(side.fill(body)).encode()
        filled["headers"] = {"Content-Type": "application/json"} | filled["headers"]
    response = side.client.request(method, _full(path), follow_redirects=False, **filled)
    return Answer(response.status_code, _parsed(response.content), response.content, response.headers)


def _seen(
    side: Side, *, message: bool, body: bool, headers: tuple[str, ...], ignore: tuple[str, ...]
) -> dict[str, Any]:
    """What of a side's last answer is compared."""
    answer = _last(side)
    seen: dict[str, Any] = {"status": answer.status, "error_code": answer.error_code}
    if message:
        seen["message"] = _normal_message(answer.message or "", side)
    if body and answer.status < 400:
        seen["body"] = answer.content if answer.body is None else normal(answer.body, side, ignore)
    return seen | {"headers": {name: answer.headers.get(name) for name in headers}}


def _last(side: Side) -> Answer:
    assert side.last is not None, "no call was made yet"
    return side.last


def _rendered(value: Any) -> list[str]:
    return json.dumps(value, indent=2, sort_keys=True, default=repr, ensure_ascii=False).splitlines()
