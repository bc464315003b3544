"""What is sent to /graphql."""

from typing import Any

from runmirror.wire import Wire


class GraphQLRequest(Wire):
    query: str = ""
    variables: dict[str, Any] = {}
    operationName: str | None = None  # noqa: N815  the name GraphQL over HTTP gives it
