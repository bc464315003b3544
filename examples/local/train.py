"""A training program that knows nothing of Azure: MLFLOW_TRACKING_URI says where it logs to, and a token who it is."""

import mlflow

mlflow.set_experiment("examples")
with mlflow.start_run(run_name="local") as run:
    mlflow.log_params({"lr": 0.1, "epochs": 5})
    for step in range(5):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_text("trained", "notes/summary.txt")
print(run.info.run_id)
