"""A client: logs a model, registers it as `prices` with the alias `champion`; prints what it predicts."""

import json

import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

frame = pd.DataFrame({"area": [50.0, 80.0, 120.0], "rooms": [2.0, 3.0, 5.0]})
model = LinearRegression().fit(frame, np.array([100.0, 170.0, 260.0]))
with mlflow.start_run():
    logged = mlflow.sklearn.log_model(
        model, name="model", registered_model_name="prices", pip_requirements=["mlflow", "scikit-learn", "pandas"]
    )
mlflow.MlflowClient().set_registered_model_alias("prices", "champion", logged.registered_model_version)
print(json.dumps({"split": frame.to_dict("split"), "predicted": model.predict(frame).tolist()}))
