"""A client that knows one thing: MLFLOW_TRACKING_URI. Logs for argv[1] seconds; prints its run and last step."""

import json
import os
import sys
import time

import mlflow

strangers = [name for name in os.environ if name.startswith("AZURE") or name.lower() in {"https_proxy", "http_proxy"}]
assert strangers == [], strangers

mlflow.set_experiment("long-training")
with mlflow.start_run(run_name="long") as run:
    mlflow.log_param("lr", 0.1)
    mlflow.log_text("hello", "notes/hello.txt")
    start, step = time.monotonic(), 0
    while time.monotonic() - start < float(sys.argv[1]):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
        step += 1
    mlflow.set_tag("finished", "yes")
print(json.dumps({"run_id": run.info.run_id, "steps": step}))
