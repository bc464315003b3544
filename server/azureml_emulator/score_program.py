"""Stands in for the container of a deployed model: a line with a request's body in, a line with the answer out.

Usage: score_program.py MODEL_DIR [ENTRY_SCRIPT]. Without a script it serves as Azure does a model that MLflow logged.
"""

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any


class MlflowModel:
    """What a managed online endpoint makes of a model without a script."""

    def __init__(self, root: Path) -> None:
        import mlflow.pyfunc  # noqa: PLC0415 - only where it is needed

        (found, *_) = sorted(root.rglob("MLmodel"), key=lambda file: len(file.parts))
        self._model: Any = mlflow.pyfunc.load_model(str(found.parent))

    def run(self, body: str) -> Any:
        import pandas as pd  # noqa: PLC0415

        data = json.loads(body)["input_data"]
        frame = pd.DataFrame(data["data"], columns=data["columns"], index=data.get("index"))
        answer = self._model.predict(frame)
        return answer.tolist() if hasattr(answer, "tolist") else answer


def main() -> None:
    root = Path(sys.argv[1])
    os.environ["AZUREML_MODEL_DIR"] = str(root)
    # Whatever the model prints goes elsewhere than the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if len(sys.argv) > 2:
        script = runpy.run_path(sys.argv[2])
        script["init"]()
        run = script["run"]
    else:
        run = MlflowModel(root).run
    for line in sys.stdin:
        try:
            told = {"answer": run(json.loads(line))}
        except Exception as error:  # noqa: BLE001 - the caller is to hear of it
            told = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(told) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
