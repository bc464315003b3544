"""The script of an Azure ML job. One call puts tracking back; what is logged goes to the job's own run."""

import mlflow

import runmirror_client

runmirror_client.activate()  # the address is in RUNMIRROR_TRACKING_URI, who it is in RUNMIRROR_TOKEN or _TOKEN_SCOPE

with mlflow.start_run() as run:  # resumes the job's run
    mlflow.log_param("lr", 0.1)
    for step in range(3):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_text("trained in Azure", "notes/summary.txt")
print(run.info.run_id)
