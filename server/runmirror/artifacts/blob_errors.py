"""What Azure says went wrong, in the tree of errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from azure.core.exceptions import AzureError, ResourceModifiedError, ResourceNotFoundError

from runmirror.errors import ArtifactNotFound, Busy, Unavailable


@contextmanager
def told(path: str) -> Iterator[None]:
    """Say what Azure said in the tree of errors."""
    try:
        yield
    except ResourceNotFoundError as error:
        if code_of(error) == "ContainerNotFound":
            raise Unavailable("The artifact store cannot be used: its blob container does not exist.") from error
        raise ArtifactNotFound(path) from error
    except ResourceModifiedError as error:
        raise Busy("The file was replaced while it was read; try again.") from error
    except AzureError as error:
        said = code_of(error) or type(error).__name__
        raise Unavailable(f"The artifact store cannot be reached or refused ({said}); try again.") from error


def code_of(error: AzureError) -> str | None:
    """Azure's name for what went wrong, if it gave one."""
    code: Any = getattr(error, "error_code", None)
    return str(getattr(code, "value", code)) if code else None
