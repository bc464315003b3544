"""Requests and responses of webhooks."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from runmirror.errors import InvalidParameter
from runmirror.webhooks.events import EXAMPLES, actions_of
from runmirror.wire import Int64, Wire

Required = Annotated[str, Field(min_length=1)]

# By the numbers they have in MLflow's protobuf, where an enumeration may be sent as its number.
_ENTITIES = (
    "ENTITY_UNSPECIFIED", "REGISTERED_MODEL", "MODEL_VERSION", "MODEL_VERSION_TAG", "MODEL_VERSION_ALIAS", "PROMPT",
    "PROMPT_VERSION", "PROMPT_TAG", "PROMPT_VERSION_TAG", "PROMPT_ALIAS", "BUDGET_POLICY",
)  # fmt: skip
_ACTIONS = ("ACTION_UNSPECIFIED", "CREATED", "UPDATED", "DELETED", "SET", "EXCEEDED")
_STATUSES = ("STATUS_UNSPECIFIED", "ACTIVE", "DISABLED")


def _one_of(names: tuple[str, ...]) -> BeforeValidator:
    def name_of(value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < len(names):
            return names[value]
        if isinstance(value, str) and value in names[1:]:
            return value
        raise ValueError(f"must be one of {', '.join(names[1:])}")

    return BeforeValidator(name_of)


def _text_or_silence(value: Any) -> str:
    """An error never repeats what was sent as a secret."""
    if not isinstance(value, str):
        raise InvalidParameter("Invalid value for parameter 'secret' supplied: it must be text.")
    return value


Status = Annotated[Literal["ACTIVE", "DISABLED"], _one_of(_STATUSES)]
Secret = Annotated[str, BeforeValidator(_text_or_silence)]


class EventIn(Wire):
    entity: Annotated[str, _one_of(_ENTITIES)]
    action: Annotated[str, _one_of(_ACTIONS)]

    def to_event(self) -> str:
        entity, action = self.entity.lower(), self.action.lower()
        if f"{entity}.{action}" not in EXAMPLES:
            raise InvalidParameter(
                f"Invalid action '{action}' for entity '{entity}'. Valid actions are: {actions_of(entity)}"
            )
        return f"{entity}.{action}"


class CreateWebhook(Wire):
    name: Required
    url: Required
    events: list[EventIn]
    description: str = ""
    secret: Secret = Field("", repr=False)
    status: Status = "ACTIVE"


class UpdateWebhook(Wire):
    """What is left out stays; so does what is sent empty, except description and secret."""

    name: str = ""
    url: str = ""
    events: list[EventIn] = []
    description: str | None = None
    secret: Secret | None = Field(None, repr=False)
    status: Status | None = None


class ListWebhooks(Wire):
    max_results: Int64 = 100
    page_token: str = ""


class TryWebhook(Wire):
    event: EventIn | None = None


class EventOut(Wire):
    entity: str
    action: str


class WebhookWire(Wire):
    """A webhook as it is shown: without its secret."""

    webhook_id: str
    name: str
    description: str | None = None
    url: str
    events: list[EventOut]
    status: str
    creation_timestamp: int
    last_updated_timestamp: int


class WebhookAnswer(Wire):
    webhook: WebhookWire


class WebhooksPage(Wire):
    webhooks: list[WebhookWire] | None = None
    next_page_token: str | None = None


class ResultWire(Wire):
    success: bool
    response_status: int | None = None
    response_body: str | None = None
    error_message: str | None = None


class TryAnswer(Wire):
    result: ResultWire
