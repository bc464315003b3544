"""The names MLflow reserves in tags, metadata and span attributes, and the shape of an id.

Source: `mlflow.tracing.constant`.
"""

import re

from runmirror.errors import DoesNotExist, InvalidParameter

# Goes into paths of the artifact store, so it is checked before any use (CVE-2026-53995).
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")

TRACE_NAME = "mlflow.traceName"
ARTIFACT_LOCATION = "mlflow.artifactLocation"
SPANS_LOCATION = "mlflow.trace.spansLocation"
IN_TRACKING_STORE = "TRACKING_STORE"
ARCHIVAL_FAILURE = "mlflow.trace.archivalFailure"
IMMUTABLE_TAGS = {SPANS_LOCATION, "mlflow.trace.archiveLocation", ARCHIVAL_FAILURE}

SESSION = "mlflow.trace.session"
TOKEN_USAGE = "mlflow.trace.tokenUsage"  # noqa: S105 a name
COST = "mlflow.trace.cost"
USER = "mlflow.trace.user"
SIZE_STATS = "mlflow.trace.sizeStats"
SOURCE_RUN = "mlflow.sourceRun"
FINALIZED = "mlflow.trace.infoFinalized"  # start-trace has spoken: spans that come later do not overrule it

TOKEN_COLUMNS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_input_tokens_above_1hr",
)
COST_COLUMNS = ("input_cost", "output_cost", "total_cost")

REQUEST_ID = "mlflow.traceRequestId"
SPAN_TYPE = "mlflow.spanType"
SPAN_INPUTS = "mlflow.spanInputs"
SPAN_OUTPUTS = "mlflow.spanOutputs"
CHAT_USAGE = "mlflow.chat.tokenUsage"
CHAT_TOOLS = "mlflow.chat.tools"
LLM_COST = "mlflow.llm.cost"
LLM_MODEL = "mlflow.llm.model"
LLM_PROVIDER = "mlflow.llm.provider"
TAG_ATTRIBUTE_PREFIX = "mlflow.traceTag."

MAX_TAG_VALUE_LENGTH = 8000
MAX_NAME_LENGTH = 4096
MAX_SESSION_LENGTH = 250


class TraceNotFound(DoesNotExist):
    def __init__(self, trace_id: str) -> None:
        super().__init__(f"Trace with ID '{trace_id[:80]}' not found.")


def existing_id(trace_id: str) -> str:
    """Raises `TraceNotFound`: what has not the shape of an id cannot exist."""
    if not ID.fullmatch(trace_id):
        raise TraceNotFound(trace_id)
    return trace_id


def new_id(value: str, name: str) -> str:
    """An id that a client chose. Raises `InvalidParameter` unless it has the shape of one."""
    if not ID.fullmatch(value):
        raise InvalidParameter(
            f"Invalid value {value[:80]!r} for parameter '{name}' supplied: an id has 1 to 50 letters, digits, dashes "
            "and underscores, and begins with a letter or digit."
        )
    return value


def check_length(what: str, value: str, limit: int) -> str:
    if len(value) > limit:
        raise InvalidParameter(f"'{what}' exceeds the maximum length of {limit} characters")
    return value
