"""Creating a run again under the same key gives the same run: a client may repeat what it got no answer to.

The key is the value of a tag that the run is created with, so every client of MLflow can give one:
`mlflow.start_run(tags={"runmirror.idempotency_key": "job-17"})`. It belongs to the experiment, and to the run until
that is erased; changing the tag later changes nothing.
"""

from collections.abc import Mapping

from runmirror.errors import InvalidParameter

TAG = "runmirror.idempotency_key"
MAX_LENGTH = 250


def key_of(tags: Mapping[str, str]) -> str:
    """The key among the tags of a new run, or "". Raises `InvalidParameter` when it is too long to be one."""
    key = tags.get(TAG, "")
    if len(key) > MAX_LENGTH:
        raise InvalidParameter(f"The tag {TAG!r} is longer than {MAX_LENGTH} characters.")
    return key
