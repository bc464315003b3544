"""The commands of docs/migrate.md, to be run one after the other."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "migrate.md"


def blocks() -> Iterator[list[list[str]]]:
    """The words of each command behind `runmirror`, block by block."""
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        commands = [shlex.split(line) for line in block.splitlines()]
        assert all(command[:2] == ["runmirror", "import"] for command in commands)
        yield [command[1:] for command in commands]
