"""Alert rules of endpoints: looked at every ten seconds, told by e-mail and signed webhook.

A webhook follows Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature` (HMAC-SHA256).
It is tried again, ever more slowly, for a day; a receiver that hears one twice knows it by its id.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Count
from django.utils import timezone
from django.utils.translation import gettext as _
from standardwebhooks import Webhook

from jobs import drift
from jobs.models import AlertEvent, AlertMetric, AlertRule, Endpoint, Replica
from jobs.services import inputs, traffic, webhooks
from jobs.specs_alerts import AlertSpec
from jobs.states import ReplicaStatus
from tenants import audit, crypto, outbox
from tenants.actor import Actor
from tenants.errors import Conflict, Invalid
from tenants.permissions import require
from tenants.services.secrets import data_key

log = logging.getLogger(__name__)

MOST_RULES = 50
RETRY_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800)  # about a day in all


def create_rule(actor: Actor, endpoint: Endpoint, spec: AlertSpec) -> tuple[AlertRule, str]:
    """Make a rule; the second is the secret of its webhook, shown once, or nothing without a webhook."""
    require(actor, "endpoints.publish", endpoint)
    secret = ""
    _check_input(endpoint, spec)
    with transaction.atomic():
        if AlertRule.objects.filter(endpoint=endpoint).count() >= MOST_RULES:
            raise Conflict(_("An endpoint has at most %(n)s alerts. Remove one first.") % {"n": MOST_RULES})
        rule = AlertRule(tenant=endpoint.tenant, endpoint=endpoint, created_by=actor.user, **spec.fields())
        if spec.webhook_url:
            webhooks.addresses_of(spec.webhook_url)
            secret = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
            key = data_key(endpoint.tenant)
            rule.webhook_secret = crypto.seal(key, secret.encode(), context=_context(rule))
        rule.save()
        audit.record(actor, "endpoint.alert_made", endpoint, rule=rule.public_id, metric=rule.metric)
    return rule, secret


def delete_rule(actor: Actor, rule: AlertRule) -> None:
    """Remove a rule and what it told."""
    require(actor, "endpoints.publish", rule.endpoint)
    with transaction.atomic():
        audit.record(actor, "endpoint.alert_removed", rule.endpoint, rule=rule.public_id, metric=rule.metric)
        rule.delete()


def look_at_alerts() -> int:
    """Compare every rule with its window; returns how many began or ended. Safe to run side by side."""
    changed = 0
    for pk in list(AlertRule.objects.values_list("pk", flat=True)):
        with transaction.atomic():
            rows = AlertRule.objects.select_for_update(of=("self",), skip_locked=True)
            rule = rows.select_related("endpoint__tenant", "endpoint__current__version").filter(pk=pk).first()
            if rule is not None:
                changed += _look(rule)
    return changed


def send_webhooks() -> int:
    """Send what is due; returns how many arrived."""
    arrived = 0
    due = AlertEvent.objects.filter(webhook_due__lte=timezone.now()).values_list("pk", flat=True)[:100]
    for pk in list(due):
        with transaction.atomic():
            # moved on before it is sent: nobody else sends it, and no row is held while we wait for others
            rows = AlertEvent.objects.select_for_update(of=("self",), skip_locked=True)
            rows = rows.filter(pk=pk, webhook_due__lte=timezone.now())
            event = rows.select_related("rule__endpoint__tenant").first()
            if event is None:
                continue
            event.webhook_tries += 1
            wait_s = RETRY_S[min(event.webhook_tries, len(RETRY_S)) - 1]
            over = event.webhook_tries > len(RETRY_S)
            event.webhook_due = None if over else timezone.now() + timedelta(seconds=wait_s)
            event.save(update_fields=["webhook_tries", "webhook_due"])
        said, fine = _send(event)
        changes = {"webhook_said": said[:200]} | ({"webhook_due": None} if fine else {})
        AlertEvent.objects.filter(pk=event.pk).update(**changes)
        arrived += fine
    return arrived


def value_of(rule: AlertRule) -> float | None:
    """The number a rule watches, over its window; None where too little is known."""
    endpoint = rule.endpoint
    window = timedelta(seconds=rule.window_s)
    if rule.metric == AlertMetric.INPUT_DRIFT:
        return inputs.highest_psi(
            endpoint, window=window, fewest=rule.min_requests, input_name=rule.class_name
        )
    if rule.metric == AlertMetric.REPLICAS:
        ready = Replica.objects.filter(revision__endpoint=endpoint, status=ReplicaStatus.READY)
        return float(ready.aggregate(n=Count("pk"))["n"])
    last = traffic.lately(endpoint, window=window)
    if rule.metric == AlertMetric.REQUEST_RATE:
        return last.rate
    if rule.metric == AlertMetric.WAITING:
        return last.waiting
    if last.requests < rule.min_requests:
        return None
    if rule.metric == AlertMetric.ERROR_SHARE:
        return 100 * (last.error_share or 0.0)
    if rule.metric == AlertMetric.P95_MS:
        return last.p95_ms
    if rule.metric == AlertMetric.P99_MS:
        return last.p99_ms
    counted = sum(last.classes.values())
    if counted < rule.min_requests:
        return None
    if rule.metric == AlertMetric.CLASS_SHARE:
        return 100 * last.classes.get(rule.class_name, 0) / counted
    return drift.psi(trained_on(endpoint), last.classes)


def trained_on(endpoint: Endpoint) -> dict[str, int]:
    """Rows by class of the data the current version was trained with; empty if that is not known."""
    if endpoint.current is None:
        return {}
    version = endpoint.current.version
    profile = version.dataset_version.profile or {}
    if profile.get("classes"):
        return {str(name): int(count) for name, count in profile["classes"].items()}
    names = set(version.interface.get("classes", ()))
    for column in profile.get("columns", ()):
        top = {str(name): int(count) for name, count in column.get("top") or ()}
        if names and names <= top.keys():
            return {name: top[name] for name in names}
    return {}


def _check_input(endpoint: Endpoint, spec: AlertSpec) -> None:
    """Refuse to watch an input that the model does not have: the alert would never be told."""
    if spec.metric != AlertMetric.INPUT_DRIFT or not spec.class_name or endpoint.current is None:
        return
    known = [str(one.get("name")) for one in endpoint.current.version.interface.get("inputs", ())]
    if spec.class_name not in known:
        text = _("The model has no input %(name)s. It takes: %(known)s.")
        words = {"name": spec.class_name, "known": ", ".join(known[:20])}
        raise Invalid.at("/class_name", "unknown", text % words)


def _look(rule: AlertRule) -> int:
    value = value_of(rule)
    rule.value = value
    firing = rule.firing_since is not None
    # nothing known: as it was. Silence neither begins an alert nor ends one
    crossed = firing if value is None else (value > rule.threshold if rule.above else value < rule.threshold)
    changed = crossed != firing
    if changed:
        rule.firing_since = timezone.now() if crossed else None
    rule.save(update_fields=["value", "firing_since"])
    if not changed:
        return 0
    event = AlertEvent.objects.create(
        rule=rule,
        firing=crossed,
        value=value,
        text=_sentence(rule, crossed, value),
        webhook_due=timezone.now() if rule.webhook_url else None,
    )
    for address in rule.emails:
        word = "ALERT" if crossed else "OK"
        outbox.mail(
            address, f"[{word}] {rule.endpoint.name}: {rule.name}", f"{event.text}\n\n{_page(rule)}\n"
        )
    if rule.webhook_url:
        outbox.enqueue("jobs.send_webhooks")
    return 1


def _sentence(rule: AlertRule, firing: bool, value: float | None) -> str:
    what = str(AlertMetric(rule.metric).label)
    if rule.class_name and rule.metric in (AlertMetric.CLASS_SHARE, AlertMetric.INPUT_DRIFT):
        what = f"{what} “{rule.class_name}”"
    side = "above" if rule.above else "below"
    state = f"is {side} its bound" if firing else "is back within its bound"
    number = "unknown" if value is None else f"{value:.4g}"
    return (
        f"{rule.endpoint.name}: {what} {state} {rule.threshold:g}: {number} over the last {rule.window_s} s."
    )


def _page(rule: AlertRule) -> str:
    return f"{settings.BASE_URL}{rule.endpoint.get_absolute_url()}/alerts"


def _send(event: AlertEvent) -> tuple[str, bool]:
    """What the receiver said, and whether it took it."""
    rule = event.rule
    now = timezone.now()
    body = json.dumps(
        {
            "type": "endpoint.alert.firing" if event.firing else "endpoint.alert.resolved",
            "timestamp": event.at.isoformat(),
            "data": {
                "alert": rule.public_id,
                "name": rule.name,
                "endpoint": rule.endpoint.public_id,
                "metric": rule.metric,
                "class": rule.class_name or None,
                "value": event.value,
                "threshold": rule.threshold,
                "window_s": rule.window_s,
                "text": event.text,
            },
        }
    )
    key = data_key(rule.endpoint.tenant)
    secret = crypto.unseal(key, bytes(rule.webhook_secret), context=_context(rule)).decode()
    headers = {
        "content-type": "application/json",
        "webhook-id": event.public_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(event.public_id, now, body),
    }
    try:
        return webhooks.post(rule.webhook_url, body, headers)
    except Invalid as refusal:
        return refusal.detail, False


def _context(rule: AlertRule) -> str:
    return f"alert_rule.webhook_secret.{rule.public_id}"
