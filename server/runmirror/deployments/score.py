"""The script that azureml-core uploads: it runs in the container of a web service on ACI or AKS, never here.

It takes what a managed online endpoint takes, `{"input_data": …}`, and what MLflow's own scoring server takes.
"""

import json
import os
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd

_model: Any = None


def init() -> None:
    """Called once, by the container's server."""
    global _model  # noqa: PLW0603 - the server calls two functions and keeps nothing between them
    _model = mlflow.pyfunc.load_model(str(_folder(Path(os.environ["AZUREML_MODEL_DIR"]))))


def run(raw_data: str) -> Any:
    """Called for each request, with its body."""
    return _plain(_model.predict(_given(json.loads(raw_data))))


def _folder(root: Path) -> Path:
    """Where the model is: below a folder of its name, or not, by how it was registered."""
    found = sorted(root.rglob("MLmodel"), key=lambda file: len(file.parts))
    if not found:
        raise FileNotFoundError(f"no MLmodel below {root}: this is no model that MLflow logged")
    return found[0].parent


def _given(body: dict[str, Any]) -> Any:
    if "dataframe_split" in body:
        return _frame(body["dataframe_split"])
    if "dataframe_records" in body:
        return pd.DataFrame(body["dataframe_records"])
    data = next((body[key] for key in ("input_data", "inputs", "instances") if key in body), None)
    if data is None:
        raise ValueError("the body has neither 'input_data' nor 'dataframe_split', 'dataframe_records' or 'inputs'")
    if isinstance(data, dict) and "columns" in data and "data" in data:
        return _frame(data)
    if isinstance(data, dict):
        return {key: np.asarray(value) for key, value in data.items()}
    return pd.DataFrame(data) if data and isinstance(data[0], dict) else np.asarray(data)


def _frame(split: dict[str, Any]) -> Any:
    return pd.DataFrame(split["data"], columns=split["columns"], index=split.get("index"))


def _plain(answer: Any) -> Any:
    """As JSON can carry it."""
    if isinstance(answer, pd.DataFrame):
        return answer.to_dict("records")
    return answer.tolist() if hasattr(answer, "tolist") else answer
