"""Executes one document; imported with the first one, because it takes a tenth of the start to import."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi.responses import JSONResponse
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLScalarType,
    GraphQLSyntaxError,
    build_schema,
    execute_sync,
    parse,
    validate,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.artifacts.service import Artifacts
from runmirror.errors import InvalidParameter, RunmirrorError
from runmirror.graphql.limits import MAX_CHARACTERS, MAX_TOKENS, check_limits
from runmirror.graphql.resolvers import Context, resolve
from runmirror.graphql.wire import GraphQLRequest
from runmirror.wire import missing

SCHEMA = build_schema((Path(__file__).parent / "schema.graphql").read_text(encoding="utf-8"))


def _text(value: Any) -> str:
    return str(value)


def _number(value: Any) -> int:
    return int(value)


_LONG = SCHEMA.type_map["LongString"]
if isinstance(_LONG, GraphQLScalarType):  # a 64-bit integer leaves as text and arrives as text or number
    _LONG.serialize = _text  # type: ignore[method-assign]
    _LONG.parse_value = _number  # type: ignore[method-assign]


async def answer(request: GraphQLRequest, connection: AsyncConnection, service: Artifacts) -> JSONResponse:
    """What went wrong in the document stands in `errors`, as messages."""
    document = _parsed(request.query)
    try:
        check_limits(document)
    except GraphQLError as error:
        return _answer(ExecutionResult(None, [error]))
    # One connection is enough: whoever waited for a second would hold up those who hold one and wait as well.
    listing = Artifacts(service.store, reading=lambda: nullcontext(connection), writing=service.writing)
    run = partial(_execute, document, request, Context(connection, listing))
    return _answer(await anyio.to_thread.run_sync(run))


def _execute(document: DocumentNode, request: GraphQLRequest, context: Context) -> ExecutionResult:
    if errors := validate(SCHEMA, document, max_errors=5):
        return ExecutionResult(None, errors)
    return execute_sync(
        SCHEMA, document, context_value=context, variable_values=request.variables,
        operation_name=request.operationName, field_resolver=resolve,
    )  # fmt: skip


def _parsed(query: str) -> DocumentNode:
    if not query:
        raise InvalidParameter(missing("query"))
    if len(query) > MAX_CHARACTERS:
        raise InvalidParameter(f"The GraphQL query has more than {MAX_CHARACTERS} characters.")
    try:
        return parse(query, max_tokens=MAX_TOKENS)
    except GraphQLSyntaxError as error:
        raise InvalidParameter(error.message) from error


def _answer(result: ExecutionResult) -> JSONResponse:
    """Raises what is neither the query's fault nor an error of ours: the app answers that as anywhere else."""
    for error in result.errors or ():
        if error.original_error and not isinstance(error.original_error, GraphQLError | RunmirrorError):
            raise error.original_error
    errors = [error.message for error in result.errors] if result.errors else None
    return JSONResponse({"data": result.data, "errors": errors})
