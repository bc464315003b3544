"""What of a request or a response is shown in a list of traces: the last message of a chat, or the value itself."""

import json
from typing import Any

MAX_LENGTH = 1000


def preview(value: str | None, role: str) -> str | None:
    """At most `MAX_LENGTH` characters of the JSON text `value`; of a chat, the last message of `role`."""
    if value is None:
        return None
    try:
        messages = _messages(json.loads(value))
    except (ValueError, RecursionError):
        messages = []
    shown = (_text_of(messages, role) if messages else "") or value
    return shown if len(shown) <= MAX_LENGTH else shown[: MAX_LENGTH - 3] + "..."


def _messages(value: Any) -> list[dict[str, Any]]:
    """The messages in the shapes that OpenAI's chat and responses interfaces give them."""
    while isinstance(value, dict):
        if isinstance(value.get("messages"), list) and value["messages"]:
            return _only_messages(value["messages"])
        choices = value.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            chosen = _only_messages([choices[0].get("message")])
            if chosen:
                return chosen
        for key in ("input", "output"):
            if isinstance(value.get(key), list) and value[key]:
                return _only_messages(value[key])
        value = value.get("request")
    return []


def _only_messages(items: list[Any]) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict) and "role" in item and "content" in item]


def _text_of(messages: list[dict[str, Any]], role: str) -> str:
    message = next((m for m in reversed(messages) if m.get("role") == role), messages[-1])
    content = message["content"]
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if isinstance(part, str):
            return part
        if isinstance(part, dict) and part.get("type") in {"text", "output_text"}:
            return str(part.get("text") or "")
    return ""
