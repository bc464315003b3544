"""The commands that the pages tell: each line of a `sh` block, with who carries it out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

_BLOCK = re.compile(r"(?ms)^```(\w+)\n(.*?)^```$")
_COMMENT = re.compile(r"\s+# .*$")

# Carried out by `test_commands.py` on a server with an emulated workspace, in this order of pages and lines.
HERE = (
    r"runmirror (token create|link|links|unlink|verify|replay|status|backfill|gc|audit|migrate)\b",
    r"runmirror init-script databricks",
)

# Carried out by tests of their own, which hold the words of the page or drive the same program.
ELSEWHERE = {
    r"make demo": "tests/demo/test_demo.py",
    r"make (test|lint|test-clients|help)": ".ci/run",
    r"make (bench|bench-growth|bench-overload|bench-mirror)\b": "tests/bench/__main__.py",
    r"make chaos": "tests/chaos/test_chaos.py",
    r"make audit": "Makefile",
    r"make browser": ".ci/run",
    r"make faults": "Makefile",
    r"make test-(docker|helm|azure)": "Makefile",
    r"pip install": ".ci/run",
    r"(RUNMIRROR_\w+=\S+ )?runmirror serve": "tests/server.py",
    r"runmirror deploy\b": "tests/deployments/test_end_to_end.py",
    r"runmirror import\b": "tests/importing",
    r"curl .*/api/runmirror/v1/deployments": "tests/deployments/test_routes.py",
    r"(pg_dump|pg_restore|createdb|psql|rsync)\b": "tests/test_restore.py",
    r"python tests/deployments": "tests/deployments/test_end_to_end.py",
    r"(python |cd )?examples/": "tests/examples",
    r"cd azure/terraform|az bicep|tofu (fmt|init -backend=false|validate)": "tests/azure",
    r"(docker|docker-compose)\b|cp \.env": "tests/docker",
    r"(helm|kubectl|kubeconform)\b": "tests/helm",
}

# What only a subscription, a cluster or R could prove; the pages say so where they tell it.
NOT_HERE = {
    r"az\b": "asks Azure Resource Manager for a real subscription",
    r"terraform\b|tofu\b": "asks Azure Resource Manager for a real subscription",
    r"databricks\b": "asks a real Databricks workspace",
    r"Rscript\b": "needs R with the package mlflow",
    r"python -c 'from azureml": "asks a real workspace",
    r"curl .*SCORING_URI": "asks a deployed service",
    r"python3\.11 -m venv": "tests/venvs.py makes such an environment, at another place",
    r"\w+=\S*|export ": "sets variables for the lines after it",
}


@dataclass(frozen=True)
class Told:
    """A command, and where it stands."""

    page: str
    command: str

    def fits(self, pattern: str) -> bool:
        return re.match(pattern, self.command) is not None


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Page and text of each block."""
    for page in PAGES:
        for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
            if kind == language:
                yield str(page.relative_to(REPOSITORY)), text


def _lines(text: str) -> Iterator[str]:
    """Lines that go on, by a backslash or within quotes, are one."""
    line = ""
    for part in re.sub(r"\\\n\s*", "", text).splitlines():
        line += part
        if line.count("'") % 2 == 0:
            yield line
            line = ""


def told() -> list[Told]:
    """Each command, without its comment."""
    return [
        Told(page, _COMMENT.sub("", line).strip())
        for page, text in blocks("sh")
        for line in _lines(text)
        if line.strip() and not line.lstrip().startswith("#")
    ]
