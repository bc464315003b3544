# Databricks notebook source
# The cluster's init script (`runmirror init-script databricks`) has installed the package and set
# RUNMIRROR_TRACKING_URI. Databricks itself points MLflow to the workspace's own tracking when the notebook is
# attached, so the first cell puts it back.
import mlflow

import runmirror_client

runmirror_client.activate()

# COMMAND ----------

# Databricks would take the notebook's own experiment, which this server does not know.
mlflow.set_experiment("examples")
with mlflow.start_run(run_name="databricks") as run:
    mlflow.log_param("lr", 0.1)
    mlflow.log_metric("loss", 0.5)

# COMMAND ----------

print(run.info.run_id)
