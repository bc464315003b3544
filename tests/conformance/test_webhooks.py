"""Webhooks: the same calls to MLflow's server and to ours, and what a receiver is told by each of them."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.entities.webhook import VALID_ENTITY_ACTIONS, WebhookEvent, WebhookStatus
from mlflow.webhooks.delivery import _generate_hmac_signature

from tests.conformance.compare import Both, Deviation
from tests.webhooks.receiver import Received, Receiver, receiving

BAD = (400, "INVALID_PARAMETER_VALUE")
OF_TIME = ("creation_timestamp", "last_updated_timestamp")
CREATED = {"entity": "REGISTERED_MODEL", "action": "CREATED"}
TAGGED = {"entity": "MODEL_VERSION_TAG", "action": "SET"}
EVENTS = [f"{entity}.{action}" for entity, actions in VALID_ENTITY_ACTIONS.items() for action in sorted(actions)]
SECRET = "knock, knock"


@pytest.fixture(scope="module")
def receiver(conformance_clients: tuple[httpx.Client, httpx.Client]) -> Iterator[Receiver]:
    """Afterwards no webhook is left that other tests would be telling something."""
    with receiving() as made:
        yield made
    for client in conformance_clients:
        for webhook in client.get("/api/2.0/mlflow/webhooks", params={"max_results": 1000}).json()["webhooks"]:
            client.delete(f"/api/2.0/mlflow/webhooks/{webhook['webhook_id']}")


@pytest.fixture
def hook(both: Both, receiver: Receiver) -> Both:
    """Both servers with a webhook {hook} that asks for two events."""
    create(both, receiver, events=[TAGGED, CREATED], description="why", secret=SECRET)
    both.bind("hook", "webhook.webhook_id")
    return both


def create(both: Both, receiver: Receiver, **fields: Any) -> None:
    """Create a webhook, and bind {path} to where it is told, which no other is."""
    for side in both.sides:
        side.bound["path"] = f"/{both.unique()}-{side.name}"
    request = {"name": "a.b-c", "url": f"{receiver.url}{{path}}", "events": [CREATED], **fields}
    both.call("POST", "webhooks", json=request, ignore=("webhook_id",))


def test_a_webhook_is_created_read_changed_and_deleted(hook: Both, receiver: Receiver) -> None:
    hook.call("GET", "webhooks/{hook}")
    hook.call("GET", "/ajax-api/2.0/mlflow/webhooks/{hook}")
    for change in (
        {}, {"name": "other"}, {"url": receiver.url}, {"events": [CREATED]}, {"description": "because"},
        {"status": "DISABLED"}, {"status": 1}, {"secret": "new"}, {"secret": ""}, {"description": ""},
        {"name": "", "url": "", "events": []}, {"name": None, "status": None, "unknown": 1},
        {"name": "x", "url": f"{receiver.url}/y", "events": [TAGGED], "description": "z", "status": "DISABLED"},
    ):  # fmt: skip
        hook.call("PATCH", "webhooks/{hook}", json=change)
        hook.call("GET", "webhooks/{hook}")
    hook.call("DELETE", "webhooks/{hook}")
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test")):
        hook.call(method, f"webhooks/{{hook}}{path}", json={}, message=True)


def test_events_are_shown_by_name_whatever_their_order_was(both: Both, receiver: Receiver) -> None:
    every = [dict(zip(("entity", "action"), event.upper().split("."), strict=True)) for event in reversed(EVENTS)]
    create(both, receiver, events=every, status="DISABLED")
    both.bind("all", "webhook.webhook_id")
    both.call("GET", "webhooks/{all}")
    create(both, receiver, events=[{"entity": 3, "action": 4}], status=2)


@pytest.mark.parametrize("name", ["", " ", "-a", "a-", "a b", "a/b", "é", "x" * 64, "a\n", None, 7, ["a"]])
def test_a_bad_name_is_refused_alike(hook: Both, receiver: Receiver, name: Any) -> None:
    hook.call("POST", "webhooks", json={"name": name, "url": receiver.url, "events": [CREATED]})
    if isinstance(name, str) and name:
        hook.call("PATCH", "webhooks/{hook}", json={"name": name}, message=name != "x" * 64)


@pytest.mark.parametrize("name", ["a", "A9", "x" * 63, "a.b_c-d"])
def test_a_good_name_need_not_be_new(both: Both, receiver: Receiver, name: str) -> None:
    create(both, receiver, name=name)
    create(both, receiver, name=name)


@pytest.mark.parametrize(
    "url", ["", " ", "ftp://127.0.0.1/", "127.0.0.1", "http://", "http:///x", "http://[", None, 7, {}]
)
def test_a_bad_url_is_refused_alike(hook: Both, url: Any) -> None:
    hook.call("POST", "webhooks", json={"name": "a", "url": url, "events": [CREATED]})
    if isinstance(url, str) and url:
        hook.call("PATCH", "webhooks/{hook}", json={"url": url})


@pytest.mark.parametrize("url", ["http://user:pass@127.0.0.1/", "http://a@127.0.0.1", "http://a\\@127.0.0.1/"])
def test_a_url_with_a_user_is_refused(hook: Both, url: str) -> None:
    why = "a user name makes one address look like another; MLflow's own newer rules refuse it elsewhere"
    deviation = Deviation((200, None), BAD, why=why)
    hook.call("POST", "webhooks", json={"name": "a", "url": url, "events": [CREATED]}, deviation=deviation)
    hook.call("PATCH", "webhooks/{hook}", json={"url": url}, deviation=deviation)


def test_fields_longer_than_mlflows_columns_are_refused(both: Both, receiver: Receiver) -> None:
    why = "wider than MLflow's column, which its SQLite does not mind and its Postgres answers with 500"
    for longer in (
        {"url": f"{receiver.url}/{'x' * 500}"}, {"description": "x" * 1001}, {"secret": "x" * 501},
    ):  # fmt: skip
        request = {"name": "a", "url": receiver.url, "events": [CREATED], "status": "DISABLED", **longer}
        both.call("POST", "webhooks", json=request, deviation=Deviation((200, None), BAD, why=why))


@pytest.mark.parametrize(
    "events",
    [
        None,
        [],
        "CREATED",
        {},
        [{"entity": "REGISTERED_MODEL", "action": "DELETED"}],
        [{"entity": "PROMPT", "action": "UPDATED"}],
        [CREATED, {"entity": "BUDGET_POLICY", "action": "CREATED"}],
    ],
)
def test_bad_events_are_refused_alike(both: Both, receiver: Receiver, events: Any) -> None:
    both.call("POST", "webhooks", json={"name": "a", "url": receiver.url, "events": events})


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"entity": "REGISTERED_MODEL"},
        {"entity": "ENTITY_UNSPECIFIED", "action": "CREATED"},
        {"entity": "NOTHING", "action": "CREATED"},
        {"entity": "registered_model", "action": "created"},
        {"entity": 99, "action": 1},
        "registered_model.created",
        None,
    ],
)
def test_an_event_that_cannot_be_read_is_a_mistake_of_the_client(hook: Both, receiver: Receiver, event: Any) -> None:
    deviation = Deviation((500, None), BAD, why="MLflow's handler fails on what it could not parse")
    hook.call("POST", "webhooks", json={"name": "a", "url": receiver.url, "events": [event]}, deviation=deviation)
    hook.call("PATCH", "webhooks/{hook}", json={"events": [event]}, deviation=deviation)


def test_an_event_given_twice_counts_once(both: Both, receiver: Receiver) -> None:
    request = {"name": "a", "url": receiver.url, "events": [CREATED, CREATED], "status": "DISABLED"}
    deviation = Deviation((400, "BAD_REQUEST"), (200, None), why="an exact repeat is absorbed; MLflow tells of its SQL")
    assert both.call("POST", "webhooks", json=request, deviation=deviation).at("webhook.events") == [CREATED]


def test_pages(both: Both, receiver: Receiver) -> None:
    for number in range(5):
        create(both, receiver, name=f"page-{number}")
    first = both.call("GET", "webhooks", params={"max_results": 2}, ignore=("next_page_token", *OF_TIME), body=False)
    assert len(first.at("webhooks")) == 2
    for side in both.sides:
        seen: list[str] = []
        token = ""
        while token is not None and len(seen) < 5:
            page = side.client.get("/api/2.0/mlflow/webhooks", params={"max_results": 2, "page_token": token}).json()
            seen += [webhook["name"] for webhook in page["webhooks"]]
            token = page.get("next_page_token")
        assert seen[:5] == [f"page-{number}" for number in (4, 3, 2, 1, 0)], side.name
    for wrong in ({"max_results": -1}, {"max_results": 1001}, {"max_results": "x"}, {"page_token": "@@"}):
        both.call("GET", "webhooks", params=wrong)
    both.call("GET", "webhooks", params={"max_results": 0}, body=False)


@pytest.mark.parametrize("webhook_id", ["nope", "0", "00000000-0000-0000-0000-000000000000", "%00", "é", "x" * 300])
def test_an_id_of_no_webhook_is_not_found(both: Both, webhook_id: str) -> None:
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test")):
        both.call(method, f"webhooks/{webhook_id}{path}", json={})


def test_every_event_can_be_tested(hook: Both, receiver: Receiver) -> None:
    receiver.received.clear()
    hook.call("POST", "webhooks/{hook}/test", json={})
    for event in EVENTS:
        entity, action = event.upper().split(".")
        hook.call("POST", "webhooks/{hook}/test", json={"event": {"entity": entity, "action": action}})
    theirs, ours = ([told(one) for one in receiver.at(side.bound["path"])] for side in hook.sides)
    assert len(theirs) == 1 + len(EVENTS)
    assert ours == theirs


def test_what_a_test_says_of_the_answer(hook: Both, receiver: Receiver) -> None:
    for status, body in ((204, b""), (400, b"no"), (500, b"oh\xff"), (201, b"x" * 4096)):
        for side in hook.sides:
            receiver.answers[side.bound["path"]] = [(status, {"Content-Type": "text/plain; charset=utf-8"}, body)]
        hook.call("POST", "webhooks/{hook}/test", json={})
    hook.call("PATCH", "webhooks/{hook}", json={"url": "http://127.0.0.1:1/"})
    assert not hook.call("POST", "webhooks/{hook}/test", json={}, ignore=("error_message",)).at("result.success")


def test_the_registry_tells_the_same_in_the_same_words(both: Both, receiver: Receiver) -> None:
    every = [dict(zip(("entity", "action"), event.upper().split("."), strict=True)) for event in EVENTS]
    create(both, receiver, events=every, secret=SECRET)
    both.bind("hook", "webhook.webhook_id")
    receiver.received.clear()
    both.new_experiment()
    both.new_run()
    expected = both.each(lambda url: write_all(url, both))
    seen = []
    for side in both.sides:
        received = receiver.wait_for(side.bound["path"], len(expected))
        run_id = side.bound["run"]
        seen.append(sorted(json.dumps(told(one), sort_keys=True).replace(run_id, "{run}") for one in received))
    theirs, ours = seen
    assert ours == theirs
    assert sorted(f"{one.body['entity']}.{one.body['action']}" for one in received) == sorted(expected)
    assert set(expected) == set(EVENTS) - {"budget_policy.exceeded"}
    both.call("DELETE", "webhooks/{hook}")


def write_all(url: str, both: Both) -> list[str]:
    """Every write of the registry; the events that MLflow's handlers send for them."""
    side = next(side for side in both.sides if side.url == url)
    model, prompt = (both.mlflow.bound.setdefault(name, both.unique(name)) for name in ("model", "prompt"))
    run_id = side.bound["run"]
    first, hello = {"name": model, "version": "1"}, {"name": prompt, "version": "1"}
    is_prompt = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    text = {"key": "mlflow.prompt.text", "value": "Hello {{name}}"}
    kind = {"key": "_mlflow_prompt_type", "value": "text"}
    tags = [{"key": "a", "value": "1"}, {"key": "a", "value": "ü"}]
    writes: list[tuple[str, str, dict[str, Any], str | None]] = [
        ("POST", "registered-models/create", {"name": model, "tags": tags}, "registered_model.created"),
        ("POST", "registered-models/create", {"name": model}, None),
        ("PATCH", "registered-models/update", {"name": model, "description": "d"}, None),
        ("POST", "registered-models/set-tag", {"name": model, "key": "k", "value": "v"}, None),
        ("DELETE", "registered-models/delete-tag", {"name": model, "key": "k"}, None),
        (
            "POST", "model-versions/create",
            {"name": model, "source": f"runs:/{run_id}/m", "run_id": run_id, "tags": tags, "description": ""},
            "model_version.created",
        ),
        ("POST", "model-versions/create", {"name": model, "source": f"models:/{model}/1"}, "model_version.created"),
        ("POST", "model-versions/create", {"name": model, "source": "http://x/"}, None),
        ("POST", "model-versions/set-tag", {**first, "key": "k"}, "model_version_tag.set"),
        ("POST", "model-versions/set-tag", {"name": model, "version": "9", "key": "k"}, None),
        ("DELETE", "model-versions/delete-tag", {**first, "version": "01", "key": "x"}, "model_version_tag.deleted"),
        ("POST", "registered-models/alias", {**first, "alias": "b"}, "model_version_alias.created"),
        ("DELETE", "registered-models/alias", {"name": model, "alias": "none"}, "model_version_alias.deleted"),
        ("POST", "model-versions/transition-stage", {"name": model, "version": "1", "stage": "Staging"}, None),
        ("DELETE", "model-versions/delete", {"name": model, "version": "1"}, None),
        (
            "POST", "registered-models/create",
            {"name": prompt, "tags": [is_prompt, kind, text, *tags], "description": "d"}, "prompt.created",
        ),
        (
            "POST", "model-versions/create",
            {"name": prompt, "source": "dummy-source", "tags": [is_prompt, kind, text, *tags], "description": "d"},
            "prompt_version.created",
        ),
        (
            "POST", "model-versions/create",
            {"name": prompt, "source": "dummy-source", "tags": [is_prompt]}, "prompt_version.created",
        ),
        ("POST", "registered-models/set-tag", {"name": prompt, "key": "k", "value": "v"}, "prompt_tag.set"),
        ("DELETE", "registered-models/delete-tag", {"name": prompt, "key": "k"}, "prompt_tag.deleted"),
        ("POST", "model-versions/set-tag", {**hello, "key": "k"}, "prompt_version_tag.set"),
        ("DELETE", "model-versions/delete-tag", {**hello, "key": "k"}, "prompt_version_tag.deleted"),
        ("POST", "registered-models/alias", {**hello, "alias": "b"}, "prompt_alias.created"),
        ("DELETE", "registered-models/alias", {"name": prompt, "alias": "b"}, "prompt_alias.deleted"),
        ("POST", "registered-models/set-tag", {"name": model, **is_prompt}, "prompt_tag.set"),
        ("DELETE", "registered-models/delete-tag", {"name": model, "key": is_prompt["key"]}, None),
        ("DELETE", "registered-models/delete", {"name": model}, None),
    ]  # fmt: skip
    for method, path, body, _ in writes:
        side.client.request(method, f"/api/2.0/mlflow/{path}", json=body)
    return [event for *_, event in writes if event is not None]


def told(one: Received) -> dict[str, Any]:
    """What a receiver reads, without what differs from call to call; the signature is checked by MLflow's own code."""
    headers = {name.lower(): value for name, value in one.headers.items()}
    delivery_id, timestamp = headers["x-mlflow-delivery-id"], headers["x-mlflow-timestamp"]
    signature = _generate_hmac_signature(SECRET, delivery_id, timestamp, one.content.decode())
    assert headers["x-mlflow-signature"] == signature
    assert len(delivery_id) == 36
    body = one.body
    assert datetime.fromisoformat(body.pop("timestamp")).utcoffset() is not None
    assert abs(int(timestamp) - time.time()) < 60
    return {"content_type": headers["content-type"], "keys": list(body), "body": body}


def test_the_client_of_mlflow_manages_webhooks(both: Both, receiver: Receiver) -> None:
    def manage(url: str) -> list[Any]:
        client = MlflowClient(url, url)
        event = WebhookEvent.from_str("registered_model.created")
        made = client.create_webhook("mine", f"{receiver.url}/client", [event], description="d", secret="s")
        found = client.get_webhook(made.webhook_id)
        listed = made.webhook_id in {one.webhook_id for one in client.list_webhooks(max_results=100)}
        changed = client.update_webhook(
            made.webhook_id, name="yours", events=["prompt.created"], status=WebhookStatus.DISABLED
        )  # fmt: skip
        result = client.test_webhook(made.webhook_id, event="prompt_tag.set")
        client.delete_webhook(made.webhook_id)
        shown = [(one.name, one.url, str(one.events), one.status, one.description) for one in (made, found, changed)]
        gone = made.webhook_id not in {one.webhook_id for one in client.list_webhooks(max_results=100)}
        return [shown, listed, gone, result.success, result.response_status, result.response_body]

    assert both.each(manage)[1:] == [True, True, True, 200, "thanks"]
