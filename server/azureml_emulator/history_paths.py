"""What the paths of run history name."""

from starlette.requests import Request

from azureml_emulator import runs
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import NotFound
from azureml_emulator.state import Experiment, Run


def find_experiment(emulator: Emulator, request: Request) -> Experiment:
    """The slot takes a name or an id, as both clients use it."""
    slot = request.path_params["experiment"]
    found = emulator.state.experiments.get(slot) or emulator.state.experiment_named(slot)
    if found is None:
        raise NotFound(f"Experiment {slot} was not found")
    return found


def find_run(emulator: Emulator, request: Request) -> Run:
    """The run of a path, which must belong to the experiment of that path, if it names one."""
    run = runs.find(emulator, request.path_params["run_id"])
    if "experiment" in request.path_params and find_experiment(emulator, request).experiment_id != run.experiment_id:
        raise NotFound(f"Run {run.run_id} was not found in experiment {request.path_params['experiment']}")
    return run
