"""Submits train.py as an Azure ML job through azureml-core (SDK v1): ScriptRunConfig.

python submit.py --compute cpu-cluster          # config.json of the workspace in this folder or above
python submit.py --compute cpu-cluster --dry-run  # only shows what would be submitted
"""

import argparse
import json
import os
from pathlib import Path

from azureml.core import Environment, ScriptRunConfig

HERE = Path(__file__).parent

parser = argparse.ArgumentParser()
parser.add_argument("--compute", required=True)
parser.add_argument("--dry-run", action="store_true")
options = parser.parse_args()

environment = Environment.from_conda_specification("train-with-runmirror", str(HERE / "environment.yaml"))
environment.environment_variables = {
    name: os.environ[name]
    for name in ("RUNMIRROR_TRACKING_URI", "RUNMIRROR_TOKEN", "RUNMIRROR_TOKEN_SCOPE")
    if name in os.environ
}
config = ScriptRunConfig(str(HERE), "train.py", compute_target=options.compute, environment=environment)

if options.dry_run:
    run = config.run_config
    told = {
        "script": config.script,
        "target": run.target,
        "environment_variables": run.environment.environment_variables,
        "packages": list(run.environment.python.conda_dependencies.pip_packages),
    }
    print(json.dumps(told))
else:
    from azureml.core import Experiment, Workspace

    submitted = Experiment(Workspace.from_config(), "examples").submit(config)
    print(submitted.get_portal_url())
