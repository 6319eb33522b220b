"""Alerts of endpoints: when they fire, whom they tell, and that a webhook is signed, retried and kept outside."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.core import mail
from django.urls import reverse
from django.utils import timezone
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from jobs import drift
from jobs.gateway.pulse import BOUNDS_MS
from jobs.models import AlertEvent, AlertRule, Endpoint, Sample
from jobs.services import alerts
from jobs.specs_alerts import AlertSpec
from tenants.actor import Actor
from tenants.errors import Forbidden, Hidden, Invalid
from tenants.http import actor_from_user
from tenants.models import Tenant, User
from tests import factories
from tests.factories import ApiOf, BrowserOf
from tests.jobs.factories_endpoints import make_endpoint, make_model_version

pytestmark = pytest.mark.django_db

INTERFACE = {"inputs": [], "outputs": [], "classes": ["good", "bad"], "sample": {}}


@pytest.fixture
def endpoint(as_ana: Actor, tenant: Tenant) -> Endpoint:
    return make_endpoint(as_ana, make_model_version(tenant, interface=INTERFACE), slug="digits")


def spec(**more: Any) -> AlertSpec:
    usual = {"name": "Too many errors", "metric": "error_share", "threshold": 5, "window_s": 60,
             "min_requests": 10, "emails": ["ana@example.org"]}  # fmt: skip
    return AlertSpec.parse({**usual, **more})


def sample(
    endpoint: Endpoint, *, requests: int = 100, errors: int = 0, ago_s: float = 5, **more: Any
) -> None:
    latency = [0] * (len(BOUNDS_MS) + 1)
    latency[5] = requests
    Sample.objects.create(
        endpoint=endpoint, revision=endpoint.current, at=timezone.now() - timedelta(seconds=ago_s), seconds=5,
        requests=requests, errors=errors, latency=latency, **more,
    )  # fmt: skip


def told() -> list[str]:
    return [one.subject for one in mail.outbox]


def test_an_alert_tells_once_when_it_begins_and_once_when_it_is_over(
    as_ana: Actor, endpoint: Endpoint, django_capture_on_commit_callbacks: Any
) -> None:
    rule, secret = alerts.create_rule(as_ana, endpoint, spec())
    assert secret == ""
    with django_capture_on_commit_callbacks(execute=True):
        assert alerts.look_at_alerts() == 0
        sample(endpoint, errors=10)
        assert alerts.look_at_alerts() == 1
        assert alerts.look_at_alerts() == 0, "it told twice of one thing"
    assert rule.reload().value == 10 and rule.reload().firing_since is not None
    assert told() == ["[ALERT] Digits: Too many errors"]
    assert "above its bound 5: 10 over the last 60 s" in mail.outbox[0].body
    Sample.objects.update(errors=0)
    with django_capture_on_commit_callbacks(execute=True):
        assert alerts.look_at_alerts() == 1
    assert told()[1:] == ["[OK] Digits: Too many errors"]


def test_too_few_requests_say_nothing_and_end_nothing(as_ana: Actor, endpoint: Endpoint) -> None:
    rule, _ = alerts.create_rule(as_ana, endpoint, spec())
    sample(endpoint, requests=9, errors=9)
    assert alerts.look_at_alerts() == 0
    sample(endpoint, requests=9, errors=9)
    assert alerts.look_at_alerts() == 1
    Sample.objects.all().delete()
    assert alerts.look_at_alerts() == 0
    assert rule.reload().firing_since is not None


def test_a_class_that_takes_over_is_told(as_ana: Actor, endpoint: Endpoint) -> None:
    alerts.create_rule(as_ana, endpoint, spec(metric="class_share", class_name="bad", threshold=40))
    sample(endpoint, classes={"good": 90, "bad": 10})
    assert alerts.look_at_alerts() == 0
    sample(endpoint, classes={"good": 10, "bad": 190})
    assert alerts.look_at_alerts() == 1
    assert "“bad”" in AlertEvent.objects.get().text


def test_predictions_far_from_the_training_rows_are_told(as_ana: Actor, endpoint: Endpoint) -> None:
    data = endpoint.current.version.dataset_version
    data.profile = {"columns": [{"name": "label", "top": [["good", 800], ["bad", 200]]}]}
    data.save()
    alerts.create_rule(as_ana, endpoint, spec(metric="drift", threshold=0.25))
    sample(endpoint, classes={"good": 79, "bad": 21})
    assert alerts.look_at_alerts() == 0
    sample(endpoint, classes={"good": 5, "bad": 195})
    assert alerts.look_at_alerts() == 1


def test_the_index_of_drift_is_right() -> None:
    # by hand: (0.5-0.8) ln(0.5/0.8) + (0.5-0.2) ln(0.5/0.2)
    assert drift.psi({"a": 80, "b": 20}, {"a": 50, "b": 50}) == pytest.approx(0.4159, abs=1e-4)
    assert drift.psi({"a": 80, "b": 20}, {"a": 800, "b": 200}) == pytest.approx(0)
    assert drift.psi({"a": 80}, {}) is None
    found = drift.chi_square({"a": 50, "b": 50}, {"a": 60, "b": 40})
    assert found is not None
    assert found[0] == pytest.approx(4.0)
    assert found[1] == pytest.approx(0.0455, abs=0.005)


def test_every_fault_of_a_rule_is_named_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        AlertSpec.parse({"metric": "mood", "threshold": "high", "window_s": 1, "emails": ["nobody"], "x": 1})
    pointers = {one.pointer for one in refused.value.faults}
    assert pointers == {"/metric", "/name", "/threshold", "/window_s", "/emails", "/x"}
    with pytest.raises(Invalid, match="who is told"):
        spec(emails=[])
    with pytest.raises(Invalid, match="which class"):
        spec(metric="class_share")


def test_only_who_may_publish_makes_alerts(as_cy: Actor, endpoint: Endpoint, tenant: Tenant) -> None:
    viewer = actor_from_user(factories.make_user("vera@example.org", tenant=tenant, role="viewer"))
    with pytest.raises(Hidden):
        alerts.create_rule(as_cy, endpoint, spec())
    with pytest.raises(Forbidden):
        alerts.create_rule(viewer, endpoint, spec())


# -- webhooks ------------------------------------------------------------------------------------------------


class Receiver:
    """A server that keeps what it is sent; `status` is what it answers."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append((dict(self.headers.items()), body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.WEBHOOK_HOSTS = ["127.0.0.1"]
    one = Receiver()
    yield one
    one.server.shutdown()
    one.server.server_close()


def fire(as_ana: Actor, endpoint: Endpoint, url: str) -> str:
    _rule, secret = alerts.create_rule(as_ana, endpoint, spec(emails=[], webhook_url=url))
    sample(endpoint, errors=50)
    assert alerts.look_at_alerts() == 1
    return secret


def test_a_webhook_is_signed_so_that_the_standard_library_accepts_it(
    as_ana: Actor, endpoint: Endpoint, receiver: Receiver
) -> None:
    secret = fire(as_ana, endpoint, receiver.url)
    assert alerts.send_webhooks() == 1
    assert alerts.send_webhooks() == 0
    ((headers, body),) = receiver.got
    said = Webhook(secret).verify(body, headers)
    assert said["type"] == "endpoint.alert.firing"
    assert (said["data"]["metric"], said["data"]["value"]) == ("error_share", 50)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.replace(b"50", b"51"), headers)
    assert secret.encode() not in bytes(AlertRule.objects.get().webhook_secret), "kept in clear"


def test_a_receiver_that_is_down_is_asked_again_with_the_same_id(
    as_ana: Actor, endpoint: Endpoint, receiver: Receiver
) -> None:
    receiver.status = 503
    fire(as_ana, endpoint, receiver.url)
    assert alerts.send_webhooks() == 0
    event = AlertEvent.objects.get()
    assert event.webhook_said == "HTTP 503" and event.webhook_due is not None
    assert alerts.send_webhooks() == 0 and len(receiver.got) == 1, "it did not wait"
    receiver.status = 200
    AlertEvent.objects.update(webhook_due=timezone.now())
    assert alerts.send_webhooks() == 1
    assert len({headers["webhook-id"] for headers, _body in receiver.got}) == 1
    assert AlertEvent.objects.get().webhook_due is None


def test_a_webhook_into_the_private_network_is_refused(as_ana: Actor, endpoint: Endpoint) -> None:
    for url in (
        "http://127.0.0.1:9/x",
        "http://[::1]/x",
        "http://169.254.169.254/latest",
        "http://10.0.0.1/",
    ):
        with pytest.raises(Invalid, match="private network"):
            alerts.create_rule(as_ana, endpoint, spec(webhook_url=url))


# -- page and API --------------------------------------------------------------------------------------------


def test_an_alert_is_made_and_removed_on_its_page(
    browser_of: BrowserOf, ana: User, endpoint: Endpoint, receiver: Receiver
) -> None:
    browser = browser_of(ana)
    url = reverse("jobs:endpoint_alerts", args=[endpoint.public_id])
    page = browser.get(url).content.decode()
    assert "No alert yet" in page
    assert '<option value="1" selected>' in page, "an alert is for what is above, unless somebody says below"
    sent = {
        "name": "Bad mood", "metric": "class_share", "class_name": "bad", "above": "1", "threshold": "40",
        "window_s": "300", "min_requests": "20", "emails": "ana@example.org, ben@example.org",
        "webhook_url": receiver.url,
    }  # fmt: skip
    made = browser.post(url, sent)
    assert made.status_code == 201 and "whsec_" in made.content.decode()
    rule = AlertRule.objects.get()
    assert rule.emails == ["ana@example.org", "ben@example.org"]
    page = browser.get(url).content.decode()
    assert "Bad mood" in page and "whsec_" not in page
    refused = browser.post(url, {**sent, "emails": "", "webhook_url": ""})
    assert refused.status_code == 422 and "who is told" in refused.content.decode()
    browser.post(reverse("jobs:endpoint_alert_remove", args=[endpoint.public_id, rule.public_id]))
    assert not AlertRule.objects.exists()


def test_the_same_over_the_api(api_of: ApiOf, ana: User, endpoint: Endpoint) -> None:
    api = api_of(ana)
    base = f"/api/v1/endpoints/{endpoint.public_id}/alerts"
    body = {"name": "Slow", "metric": "p95_ms", "threshold": 100, "emails": ["ana@example.org"]}
    made = api.post(base, body, format="json")
    assert made.status_code == 201, made.content
    assert [one["name"] for one in api.get(base).json()["data"]] == ["Slow"]
    assert "webhook_secret" not in json.dumps(api.get(base).json())
    assert api.delete(f"{base}/{made.json()['id']}").status_code == 204
    assert api.get(base).json()["data"] == []
