"""Every error a client can be answered with; `code` and `status` follow MLflow's own table.

Source: `mlflow.exceptions.ERROR_CODE_TO_HTTP_STATUS`.
"""


class RunmirrorError(Exception):
    """The root: what is raised below it knows its own answer."""

    code = "INTERNAL_ERROR"
    status = 500
    retry_after_s: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidParameter(RunmirrorError):
    code, status = "INVALID_PARAMETER_VALUE", 400


class BodyTooLong(InvalidParameter):
    status = 413

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The request body is longer than {limit_bytes} bytes (RUNMIRROR_MAX_BODY_BYTES).")


class BadRequest(RunmirrorError):
    code, status = "BAD_REQUEST", 400


class AlreadyExists(RunmirrorError):
    code, status = "RESOURCE_ALREADY_EXISTS", 400


class InvalidState(RunmirrorError):
    """MLflow answers `INVALID_STATE` with 500; a client did it, so we answer 400 (the code is what clients read)."""

    code, status = "INVALID_STATE", 400


class Unauthenticated(RunmirrorError):
    """Nobody knows who asks; the answer says how to tell."""

    code, status = "UNAUTHENTICATED", 401
    challenge = 'Basic realm="runmirror", Bearer realm="runmirror"'


class PermissionDenied(RunmirrorError):
    code, status = "PERMISSION_DENIED", 403


class DoesNotExist(RunmirrorError):
    code, status = "RESOURCE_DOES_NOT_EXIST", 404


class EndpointNotFound(RunmirrorError):
    code, status = "ENDPOINT_NOT_FOUND", 404


class NotServedYet(RunmirrorError):
    code, status = "NOT_IMPLEMENTED", 501


class TransferNotSupported(RunmirrorError):
    """The store is not one that clients can reach themselves; the client knows the sentence, and comes to us."""

    code, status = "NOT_IMPLEMENTED", 501

    def __init__(self, transfer: str, why: str) -> None:
        super().__init__(f"{transfer} is not supported for the current artifact repository: {why}.")


class Busy(RunmirrorError):
    """Nothing was done and the call may be repeated: MLflow's client repeats unsafe POSTs on 429, not on 503."""

    code, status, retry_after_s = "REQUEST_LIMIT_EXCEEDED", 429, 2


class Unavailable(RunmirrorError):
    """A service behind us went away while the request ran, so whether it took effect is unknown."""

    code, status, retry_after_s = "TEMPORARILY_UNAVAILABLE", 503, 2


class TookTooLong(RunmirrorError):
    """Not 429 and not 503: a client would only ask for the same again."""

    code, status = "DEADLINE_EXCEEDED", 504


class ExperimentNotFound(DoesNotExist):
    def __init__(self, experiment_id: str) -> None:
        super().__init__(f"No Experiment with id={experiment_id} exists")


class AzureExperimentNotFound(ExperimentNotFound):
    """The id is one that Azure ML gave: see `runmirror.adoption`."""

    def __init__(self, experiment_id: str) -> None:
        super().__init__(experiment_id)
        self.experiment_id = experiment_id


class RunNotFound(DoesNotExist):
    """The id may be one that Azure ML gave: see `runmirror.adoption`."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"Run with id={run_id} not found")
        self.run_id = run_id


class LoggedModelNotFound(DoesNotExist):
    def __init__(self, model_id: str) -> None:
        super().__init__(f"Logged model with ID '{model_id}' not found.")


class EvaluationDatasetNotFound(DoesNotExist):
    def __init__(self, dataset_id: str) -> None:
        super().__init__(f"Evaluation dataset with id '{dataset_id[:80]}' not found")


class RegisteredModelNotFound(DoesNotExist):
    def __init__(self, name: str) -> None:
        super().__init__(f"Registered Model with name={name} not found")


class ModelVersionNotFound(DoesNotExist):
    def __init__(self, name: str, version: int) -> None:
        super().__init__(f"Model Version (name={name}, version={version}) not found")


class ArtifactNotFound(DoesNotExist):
    def __init__(self, path: str) -> None:
        super().__init__(f"No such artifact: '{path}'")
