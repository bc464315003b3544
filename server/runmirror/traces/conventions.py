"""Span attributes of other conventions → MLflow's own: type, inputs, outputs, tokens and model.

Two are known, the ones that instrumentation libraries agree on: OpenTelemetry's for generative AI, and OpenInference.
Source: `mlflow.tracing.otel.translation`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runmirror.traces.keys import (
    CHAT_TOOLS,
    CHAT_USAGE,
    LLM_MODEL,
    LLM_PROVIDER,
    SPAN_INPUTS,
    SPAN_OUTPUTS,
    SPAN_TYPE,
)


@dataclass(frozen=True, slots=True)
class Convention:
    """Which attribute says what; of several the first that says something counts."""

    kind: str
    kinds: Mapping[str, str]  # its value → MLflow's span type
    tokens: Mapping[str, Sequence[str]]  # column → attributes
    inputs: Sequence[str]
    outputs: Sequence[str]
    model: Sequence[str]
    provider: Sequence[str]
    tools: Sequence[str] = ()


_OPEN_INFERENCE = Convention(
    kind="openinference.span.kind",
    kinds={
        name: name
        for name in (
            "TOOL", "CHAIN", "LLM", "RETRIEVER", "EMBEDDING", "AGENT", "RERANKER", "UNKNOWN", "GUARDRAIL", "EVALUATOR",
        )
    },
    tokens={
        "input_tokens": ["llm.token_count.prompt"],
        "output_tokens": ["llm.token_count.completion"],
        "total_tokens": ["llm.token_count.total"],
        "cache_read_input_tokens": ["llm.token_count.prompt_details.cache_read"],
        "cache_creation_input_tokens": ["llm.token_count.prompt_details.cache_write"],
    },
    inputs=["input.value"],
    outputs=["output.value"],
    model=["llm.response.model_name", "llm.model_name", "llm.request.model_name", "embedding.model_name"],
    provider=["llm.provider"],
)  # fmt: skip

_GEN_AI = Convention(
    kind="gen_ai.operation.name",
    kinds={
        "chat": "CHAT_MODEL",
        "create_agent": "AGENT",
        "embeddings": "EMBEDDING",
        "execute_tool": "TOOL",
        "generate_content": "LLM",
        "invoke_agent": "AGENT",
        "text_completion": "LLM",
        "response": "LLM",
    },
    tokens={
        "input_tokens": ["gen_ai.usage.input_tokens"],
        "output_tokens": ["gen_ai.usage.output_tokens"],
        "cache_read_input_tokens": ["gen_ai.usage.cache_read.input_tokens"],
        "cache_creation_input_tokens": [
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
        ],
    },
    inputs=["gen_ai.input.messages", "gen_ai.tool.call.arguments"],
    outputs=["gen_ai.output.messages", "gen_ai.tool.call.result"],
    model=["gen_ai.response.model", "gen_ai.request.model"],
    provider=["gen_ai.provider.name"],
    tools=["gen_ai.tool.definitions"],
)

_CONVENTIONS = (_OPEN_INFERENCE, _GEN_AI)


def translate(attributes: dict[str, str]) -> None:
    """Add MLflow's attributes where a known convention says what they would; what is there stays.

    `attributes` is {key: JSON text}.
    """
    if _loaded(attributes.get(SPAN_TYPE)) in (None, "UNKNOWN"):
        for convention in _CONVENTIONS:
            if span_type := convention.kinds.get(str(_loaded(attributes.get(convention.kind)))):
                attributes[SPAN_TYPE] = json.dumps(span_type)
                break
    for key, field in ((SPAN_INPUTS, "inputs"), (SPAN_OUTPUTS, "outputs"), (CHAT_TOOLS, "tools")):
        if key not in attributes and (value := _first(attributes, field)) is not None:
            attributes[key] = value
    if CHAT_USAGE not in attributes and (usage := _usage(attributes)):
        attributes[CHAT_USAGE] = json.dumps(usage)
    for key, field in ((LLM_MODEL, "model"), (LLM_PROVIDER, "provider")):
        if key not in attributes and (value := _first(attributes, field)) is not None:
            attributes[key] = value
    if LLM_MODEL not in attributes:
        for source in (SPAN_INPUTS, SPAN_OUTPUTS):
            found = _loaded(attributes.get(source))
            if isinstance(found, dict) and found.get("model"):
                if isinstance(found["model"], str):
                    attributes[LLM_MODEL] = json.dumps(found["model"], ensure_ascii=False)
                break


def _first(attributes: Mapping[str, str], field: str) -> str | None:
    """The first attribute that a convention names for `field` and that is neither empty nor 0."""
    for convention in _CONVENTIONS:
        for name in getattr(convention, field):
            if _loaded(attributes.get(name)):
                return attributes[name]
    return None


def _usage(attributes: Mapping[str, str]) -> dict[str, int]:
    for convention in _CONVENTIONS:
        found: dict[str, int] = {}
        for column, names in convention.tokens.items():
            for name in reversed(names):
                if (count := _count(attributes.get(name))) is not None:
                    found[column] = count
        if not {"input_tokens", "output_tokens", "total_tokens"} & found.keys():
            continue
        if "total_tokens" not in found and {"input_tokens", "output_tokens"} <= found.keys():
            found["total_tokens"] = found["input_tokens"] + found["output_tokens"]
        return found
    return {}


def _count(value: str | None) -> int | None:
    found = _loaded(value)
    try:
        return int(found) if isinstance(found, int | str) and not isinstance(found, bool) else None
    except ValueError:
        return None


def _loaded(value: str | None) -> Any:
    try:
        return json.loads(value or "null")
    except (ValueError, RecursionError):
        return value
