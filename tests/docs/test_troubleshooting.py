"""Every message that the page explains is one that the server can say."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "troubleshooting.md"
MESSAGES = re.findall(r"(?m)^### `(.+)`$", PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def said() -> list[str]:
    """Every text in the source, with what is put into it as `…`."""
    texts = []
    for file in (REPOSITORY / "server" / "runmirror").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value.replace("\\", ""))  # of patterns too
    return texts


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_is_explained_is_one_the_server_says(message: str, said: list[str]) -> None:
    wanted = re.sub("…+", "…", message.removesuffix("…"))
    assert any(wanted in text for text in said), f"nothing in server/runmirror says {message!r} any more"
