"""The same runs on both servers, known by their number, and the searches over them that are compared."""

from typing import Any

from tests.conformance.compare import Both, Deviation

RUNS = 30
DELETED = (27, 28, 29)
TOGETHER = 3  # runs that share a start time; among them ids decide, so numbers follow the ids of each server
MISSING: Any = object()

ACC = [
    0.1, 0.2, 0.3, -0.5, "NaN", "Infinity", "-Infinity", MISSING, 0.0, 1e-300, 1e300, 0.3, "NaN", 5, -5,
    MISSING, 0.25, 0.5, 2**53, 1.7976931348623157e308, -0.0, 100, 0.2, MISSING, 7.5, "NaN", 1, 0.9, "NaN", 3,
]  # fmt: skip
LOSS = [n / 10 if n % 4 else MISSING for n in range(RUNS)]
OPTIMIZERS = [
    "adam", "Adam", "ADAM", "sgd", "sgd ", "a%m", "a_m", "a\\m", "it's", 'say "hi"', "", "é", "É", "日本", "z",
]  # fmt: skip
TEAMS = ["red", "Blue", "blue", MISSING, "green", "10", "9", "RED", "", "_", "%"]
STATUSES = ["FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED"]


def start_time(number: int) -> int:
    return 1000 + 10 * (number // TOGETHER)


class Searched:
    """Two servers with the runs of this module in the bound experiment."""

    def __init__(self, both: Both) -> None:
        self.both = both
        both.new_experiment()
        both.new_experiment("other")
        for first in range(0, RUNS, TOGETHER):
            self._create(first)
        for number in range(RUNS):
            self._fill(number)
        self._new_run("elsewhere", experiment_id="{other}", tags=[{"key": "n", "value": "elsewhere"}])

    def ask(self, **fields: Any) -> dict[str, dict[str, Any]]:
        """What each side answers to a search of the experiment, by side; both must answer alike."""
        self.both.call("POST", "runs/search", json={"experiment_ids": ["{experiment}"], **fields}, body=False)
        return {side.name: side.last.body for side in self.both.sides if side.last is not None}

    def compare(self, **fields: Any) -> list[str]:
        """The numbers of the runs that both sides found, in their common order."""
        found = {name: numbers(answer) for name, answer in self.ask(**fields).items()}
        assert found["runmirror"] == found["mlflow"], fields
        return found["mlflow"]

    def compare_pages(self, size: int, **fields: Any) -> list[list[str]]:
        """All pages of a search, which must have the same runs on both sides."""
        pages, token = [], {}
        while True:
            answers = self.ask(max_results=size, **fields, **token)
            found = {name: numbers(answer) for name, answer in answers.items()}
            assert found["runmirror"] == found["mlflow"], (fields, len(pages))
            pages.append(found["mlflow"])
            more = {name: "next_page_token" in answer for name, answer in answers.items()}
            assert more["runmirror"] == more["mlflow"], (fields, len(pages))
            if not more["mlflow"]:
                return pages
            for side in self.both.sides:
                side.bound["next"] = answers[side.name]["next_page_token"]
            token = {"page_token": "{next}"}

    def compare_refusal(self, **fields: Any) -> None:
        """Both sides answer 400 with the same code."""
        self.ask(**fields)
        assert all(side.last is not None and side.last.status == 400 for side in self.both.sides), fields

    def differs(self, theirs: Any, ours: Any, why: str, **fields: Any) -> None:
        """The answers differ as written down: a (status, error_code), or the numbers of the runs that are found."""
        outcomes = [(200, None) if isinstance(side, list) else side for side in (theirs, ours)]
        body = {"experiment_ids": ["{experiment}"], **fields}
        deviation = Deviation(outcomes[0], outcomes[1], why=why)
        self.both.call("POST", "runs/search", json=body, deviation=deviation)
        for side, expected in zip(self.both.sides, (theirs, ours), strict=True):
            assert side.last is not None
            if isinstance(expected, list):
                assert numbers(side.last.body) == expected, side.name

    def _create(self, first: int) -> None:
        """Runs that start together, numbered on each side in the order of their ids there."""
        group = range(first, first + TOGETHER)
        for number in group:
            self._new_run(f"r{number:02}", start_time=start_time(first), user_id=f"user{first % 4}")
        for side in self.both.sides:
            ids = sorted(side.bound[f"r{number:02}"] for number in group)
            side.bound.update({f"r{number:02}": run_id for number, run_id in zip(group, ids, strict=True)})

    def _new_run(self, name: str, **fields: Any) -> None:
        self.call("runs/create", {"experiment_id": "{experiment}", "start_time": 1, **fields})
        self.both.bind(name, "run.info.run_id")

    def _fill(self, number: int) -> None:
        run = f"{{r{number:02}}}"
        values = {"acc": ACC[number], "loss step": LOSS[number], "order": number, "epoch.val": number % 3}
        metrics = [
            {"key": key, "value": value, "timestamp": 1, "step": 0}
            for key, value in values.items()
            if value is not MISSING
        ]
        params = [{"key": "opt", "value": OPTIMIZERS[number % len(OPTIMIZERS)]}, {"key": "lr", "value": str(number)}]
        tags = [{"key": "n", "value": f"{number:02}"}, {"key": "gone", "value": "soon"}]
        team = TEAMS[number % len(TEAMS)]
        if team is not MISSING:
            tags.append({"key": "team", "value": team})
        if number % 2:
            params.append({"key": "my param/1", "value": "x"})
            tags.append({"key": "mlflow.note.content", "value": f"Note {number}"})
        batch = {"run_id": run, "metrics": metrics, "params": params, "tags": tags}
        self.call("runs/log-batch", batch)
        if number % 3 == 0:
            self.call("runs/delete-tag", {"run_id": run, "key": "gone"})
        if number % 5 == 0:
            self.call("runs/log-inputs", {"run_id": run, "datasets": _datasets(number)})
        status = STATUSES[number % len(STATUSES)]
        ended = {"end_time": 5000 - number} if status in {"FINISHED", "KILLED"} else {}
        name = f"Run {number % 7}" if number % 2 else f"run_{number % 7}"
        self.call("runs/update", {"run_id": run, "status": status, "run_name": name, **ended})
        if number in DELETED:
            self.call("runs/delete", {"run_id": run})

    def call(self, path: str, body: dict[str, Any]) -> None:
        answer = self.both.call("POST", path, json=body, body=False)
        assert answer.status == 200, answer.body


def numbers(answer: dict[str, Any]) -> list[str]:
    """The runs of an answer, by the tag that says their number."""
    return [_tags(run["data"]["tags"])["n"] for run in answer.get("runs", [])]


def _tags(tags: list[dict[str, str]]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in tags}


def _datasets(number: int) -> list[dict[str, Any]]:
    def dataset(name: str, context: str | None) -> dict[str, Any]:
        tags = [] if context is None else [{"key": "mlflow.data.context", "value": context}]
        source = {"source_type": "local", "source": "/tmp", "schema": "{}", "profile": "{}"}
        return {"tags": tags, "dataset": {"name": name, "digest": f"d{number}", **source}}

    pair = [dataset("Iris", "train"), dataset("iris_test", "eval")]
    return [pair, [dataset("wine", None)], pair[:1]][number // 5 % 3]
