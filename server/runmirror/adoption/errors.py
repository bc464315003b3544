"""What a client inside an Azure ML job is told when its run or experiment is not to be had."""

from collections.abc import Sequence

from runmirror.errors import DoesNotExist

_AT_HOME = (
    " If this program runs inside an Azure ML job, Azure ML itself has set {variable} to {what} of its workspace: "
    "{then}."
)
_UNSET_RUN = "unset MLFLOW_RUN_ID to start a new run on this server"
_UNSET_EXPERIMENT = "unset MLFLOW_EXPERIMENT_ID, or name an experiment of this server"
_LINK = "have that workspace linked to this server (runmirror link), or {unset}"


class AzureRunNotFound(DoesNotExist):
    """404 that says what MLFLOW_RUN_ID has to do with it."""

    @classmethod
    def without_workspace(cls, run_id: str) -> "AzureRunNotFound":
        then = _LINK.format(unset=_UNSET_RUN)
        return cls(
            f"Run with id={run_id} not found: it is no id of this server's, and no Azure ML workspace is linked."
            + _AT_HOME.format(variable="MLFLOW_RUN_ID", what="the id of a run", then=then)
        )

    @classmethod
    def unknown_to(cls, workspace_ids: Sequence[str], run_id: str) -> "AzureRunNotFound":
        then = _LINK.format(unset=_UNSET_RUN)
        return cls(
            f"Run with id={run_id} not found, neither here nor in {_names(workspace_ids)}."
            + _AT_HOME.format(variable="MLFLOW_RUN_ID", what="the id of a run", then=then)
        )

    @classmethod
    def switched_off(cls, run_id: str) -> "AzureRunNotFound":
        return cls(
            f"Run with id={run_id} not found: it is no id of this server's, which adopts no runs of Azure ML "
            "(RUNMIRROR_AZUREML_ADOPT is off)."
            + _AT_HOME.format(variable="MLFLOW_RUN_ID", what="the id of a run", then=_UNSET_RUN)
        )

    @classmethod
    def a_copy(cls, run_id: str, ours: str) -> "AzureRunNotFound":
        return cls(
            f"Run with id={run_id} is, in the linked Azure ML workspace, the copy of run {ours[:80]} of a runmirror "
            f"server: use that id (MLFLOW_RUN_ID={ours[:80]})."
        )

    @classmethod
    def deleted(cls, run_id: str) -> "AzureRunNotFound":
        return cls(
            f"Run with id={run_id} is deleted in the linked Azure ML workspace: restore it there, or {_UNSET_RUN}."
        )

    @classmethod
    def in_deleted_experiment(cls, run_id: str, name: str) -> "AzureRunNotFound":
        return cls(
            f"Run with id={run_id} cannot be adopted from the linked Azure ML workspace: its experiment {name!r} is "
            "deleted on this server. Restore it first."
        )


class AzureExperimentUnknown(DoesNotExist):
    """404 that says what MLFLOW_EXPERIMENT_ID has to do with it."""

    @classmethod
    def of(cls, workspace_ids: Sequence[str], experiment_id: str) -> "AzureExperimentUnknown":
        where = (
            ": it is no id of this server's, and no Azure ML workspace is linked that it adopts from."
            if not workspace_ids
            else f", neither here nor in {_names(workspace_ids)}."
        )
        then = _LINK.format(unset=_UNSET_EXPERIMENT)
        return cls(
            f"No Experiment with id={experiment_id} exists{where}"
            + _AT_HOME.format(variable="MLFLOW_EXPERIMENT_ID", what="the id of an experiment", then=then)
        )


def _names(workspace_ids: Sequence[str]) -> str:
    names = [f"'{workspace_id.rpartition('/')[2]}'" for workspace_id in workspace_ids]
    if len(names) == 1:
        return f"the linked Azure ML workspace {names[0]}"
    return f"the linked Azure ML workspaces {', '.join(names)}"
