"""Tracing with the plain `mlflow` client, in a process of its own per server, compared by what the client sees."""

import json
import subprocess
import sys
import textwrap
from typing import Any

from tests.conformance.compare import Both
from tests.server import clean_environment

PROGRAM = """
import asyncio, json, sys, threading
import mlflow
from mlflow.entities import AssessmentSource, Feedback, SpanEvent

mlflow.set_tracking_uri(sys.argv[1])
experiment = mlflow.set_experiment(sys.argv[2])
seen = {}


@mlflow.trace(span_type="CHAIN", attributes={"fixed": [1, 2]})
def outer(question, limit=1.5):
    with mlflow.start_span("inner", span_type="LLM") as span:
        span.set_inputs({"messages": [{"role": "user", "content": question}]})
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})
        span.add_event(SpanEvent("thought", attributes={"n": 1, "f": 0.5, "l": ["x"]}))
        span.set_outputs({"answer": None, "text": "h\\u00e9"})
    tags = {"stage": "test"}
    mlflow.update_current_trace(tags=tags, metadata={"mlflow.trace.session": "s-1"}, client_request_id="c-1")
    return {"said": question}


@mlflow.trace
def broken():
    raise ValueError("no")


def span_of(span):
    return {
        "name": span.name, "type": span.span_type, "inputs": span.inputs, "outputs": span.outputs,
        "status": span.status.status_code.value, "root": span.parent_id is None,
        "events": [[event.name, event.attributes if event.name == "thought" else None] for event in span.events],
        "attributes": sorted(span.attributes),
    }


def trace_of(trace):
    info = trace.info
    return {
        "state": info.state.value, "tags": sorted(info.tags), "metadata": sorted(info.trace_metadata),
        "usage": info.token_usage, "client_request_id": info.client_request_id, "request": info.request_preview,
        "response": info.response_preview, "spans": sorted(map(span_of, trace.data.spans), key=lambda s: s["name"]),
        "assessments": sorted((a.name, a.value, a.valid, a.rationale, a.source.source_type) for a in info.assessments),
        "stage": info.tags.get("stage"), "name": info.tags.get("mlflow.traceName"),
    }


with mlflow.start_run() as run:
    outer("what?")
first = mlflow.get_last_active_trace_id()
try:
    broken()
except ValueError:
    pass
second = mlflow.get_last_active_trace_id()
mlflow.flush_trace_async_logging()
seen["first"] = trace_of(mlflow.get_trace(first))
seen["second"] = trace_of(mlflow.get_trace(second))

mlflow.set_trace_tag(first, "k", "v")
mlflow.set_trace_tag(first, "gone", "v")
mlflow.delete_trace_tag(first, "gone")
human = AssessmentSource("HUMAN", "me")
said = mlflow.log_feedback(trace_id=first, name="good", value=0.5, rationale="because", source=human)
mlflow.log_expectation(trace_id=first, name="expected", value={"x": [1]})
mlflow.log_feedback(trace_id=first, name="failed", error=ValueError("judge broke"))
mlflow.update_assessment(first, said.assessment_id, Feedback(name="good", value=True))
mlflow.override_feedback(trace_id=first, assessment_id=said.assessment_id, value=False)
gone = mlflow.log_feedback(trace_id=first, name="gone", value="x")
mlflow.delete_assessment(first, gone.assessment_id)
seen["assessed"] = trace_of(mlflow.get_trace(first))
seen["got"] = str(mlflow.get_assessment(first, said.assessment_id).value)


def found(**query):
    traces = mlflow.search_traces(locations=[experiment.experiment_id], return_type="list", **query)
    return [[trace.info.tags["mlflow.traceName"], len(trace.data.spans)] for trace in traces]


seen["all"] = sorted(found())
seen["ordered"] = found(order_by=["timestamp ASC"])
for text in ("status = 'ERROR'", "tags.stage = 'test'", "name = 'outer'", "feedback.good = 'false'",
             "span.name = 'inner'", "trace.text LIKE '%what%'", "metadata.`mlflow.trace.session` = 's-1'"):
    seen[text] = found(filter_string=text)
seen["of the run"] = found(run_id=run.info.run_id)
seen["without spans"] = found(include_spans=False)
seen["columns"] = sorted(mlflow.search_traces(locations=[experiment.experiment_id]).columns)
client = mlflow.MlflowClient()
client.link_traces_to_run([second], run.info.run_id)
seen["linked"] = sorted(found(run_id=run.info.run_id))
seen["deleted"] = client.delete_traces(experiment.experiment_id, trace_ids=[second])
seen["left"] = found()
seen["deleted by age"] = client.delete_traces(experiment.experiment_id, max_timestamp_millis=2**52, max_traces=5)
print(json.dumps(seen))
"""


def test_a_program_that_traces_sees_the_same_on_both_servers(both: Both) -> None:
    name = both.unique("traced")

    def program(url: str) -> Any:
        environment = clean_environment({"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"})
        command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(PROGRAM), url, name]
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    seen = both.each(program)
    assert seen["all"] == [["broken", 1], ["outer", 2]]
    assert seen["first"]["usage"] == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert seen["deleted"] == 1
