"""Numbers of endpoints for Prometheus: the last minute of every endpoint that was called, and its workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from jobs.models import Endpoint, Replica, Sample
from jobs.services import traffic
from jobs.states import EndpointStatus, ReplicaStatus

WINDOW = timedelta(minutes=1)
_NAMES = (
    ("requests_per_second", "Answered requests a second", lambda one: one.rate),
    ("error_share", "Share of requests answered 5xx, 0 to 1", lambda one: one.error_share),
    ("latency_p50_ms", "Half of the requests took at most this", lambda one: one.p50_ms),
    ("latency_p95_ms", "95 % of the requests took at most this", lambda one: one.p95_ms),
    ("latency_p99_ms", "99 % of the requests took at most this", lambda one: one.p99_ms),
    ("rows_per_batch", "Rows a model run took at once", lambda one: one.batch),
    ("waiting", "Requests no worker had taken, at most", lambda one: one.waiting),
    ("refused", "Requests refused for limits or want of workers", lambda one: float(one.refused)),
)


class _Endpoints:
    """What prometheus_client asks at every scrape."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["tenant", "endpoint", "revision", "shadow"]
        families = [
            GaugeMetricFamily(f"tauon_endpoint_{name}", f"{text}, last minute", labels=labels)
            for name, text, _ in _NAMES
        ]
        by_leg: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
        rows = Sample.objects.filter(at__gte=timezone.now() - WINDOW)
        for one in rows.select_related("endpoint__tenant", "revision"):
            tenant, endpoint = one.endpoint.tenant.public_id, one.endpoint.public_id
            by_leg[tenant, endpoint, str(one.revision.number), str(one.is_shadow).lower()].append(one)
        for key, samples in by_leg.items():
            numbers = traffic.numbers(samples, seconds=WINDOW.total_seconds())
            for family, (_name, _text, read) in zip(families, _NAMES, strict=True):
                value = read(numbers)
                if value is not None:
                    family.add_metric(key, value)
        yield from families
        yield from _workers()


def _workers() -> Iterator[GaugeMetricFamily]:
    ready = GaugeMetricFamily(
        "tauon_endpoint_replicas_ready", "Workers that answer", labels=["tenant", "endpoint"]
    )
    rows = Replica.objects.filter(status=ReplicaStatus.READY).values_list(
        "tenant__public_id", "revision__endpoint__public_id"
    )
    for tenant, endpoint, count in rows.annotate(n=Count("pk")).order_by():
        ready.add_metric([tenant, endpoint], count)
    yield ready
    status = GaugeMetricFamily("tauon_endpoints", "Endpoints by status", labels=["status"])
    counts = dict(Endpoint.objects.values_list("status").annotate(n=Count("pk")).order_by())
    for one in EndpointStatus.values:
        status.add_metric([one], counts.get(one, 0))
    yield status


def exposition() -> bytes:
    """All of it in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Endpoints())  # type: ignore[arg-type]
    return generate_latest(registry)
