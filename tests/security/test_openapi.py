"""schemathesis calls every operation of our OpenAPI document on a server as users start it, each by itself and in turn.

`RUNMIRROR_FUZZ_EXAMPLES` makes it longer, `RUNMIRROR_FUZZ_SEED` repeats a run.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

from tests.server import clean_environment, serving

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = os.environ.get("RUNMIRROR_FUZZ_EXAMPLES")
# The phase "coverage" makes thousands of cases of the schema's every bound.
HOW_LONG = ["--max-examples", EXAMPLES] if EXAMPLES else ["--max-examples", "1", "--phases", "fuzzing,stateful"]
# Two things the document cannot say, and one that MLflow's clients need otherwise:
NOT_ASKED = (
    "positive_data_acceptance",  # a filter, an id, a path have rules of their own
    "unsupported_method",  # 404 with ENDPOINT_NOT_FOUND, by which a client knows a server that lacks a call
    "allow_header_conformance",
)


def test_no_call_of_the_openapi_document_is_answered_with_500_or_otherwise_than_it_says(open_folder: Path) -> None:
    seed = os.environ.get("RUNMIRROR_FUZZ_SEED") or str(random.randrange(10**9))
    print(f"RUNMIRROR_FUZZ_SEED={seed}")
    with serving(open_folder, "--no-mirror") as server:
        document = f"{server.url}/api/runmirror/v1/openapi.json"
        command = [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", document, "--no-color",
            "--checks", "all", "--exclude-checks", ",".join(NOT_ASKED), *HOW_LONG, "--seed", seed,
            "--suppress-health-check", "all", "--warnings", "off", "--continue-on-failure",
        ]  # fmt: skip
        environment = clean_environment({})
        told = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=open_folder, check=False)
        log = server.log.read_text()
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
    assert "✅ Stateful" in told.stdout
    assert "unforeseen" not in log
