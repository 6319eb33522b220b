"""Try an endpoint from its page: one request straight to a ready worker, counted like any other."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from jobs import routes
from jobs.gateway import frames
from jobs.models import Endpoint, Replica, Revision
from jobs.services import usage
from jobs.services.endpoints import wake_endpoint
from jobs.states import EndpointStatus, ReplicaStatus
from tenants.actor import Actor
from tenants.errors import Invalid, Refused, Unavailable
from tenants.permissions import require

LIMIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What the model said to one row."""

    label: str
    ranking: tuple[tuple[str, float], ...]  # (class, probability), the likeliest first
    took_ms: float
    revision: int
    detail: str = ""  # a ready answer, in full


def try_endpoint(actor: Actor, endpoint: Endpoint, body: Mapping[str, Any], *, request_id: str) -> Tried:
    """Ask a ready worker, count the request, and return the answer to its first row."""
    require(actor, "endpoints.invoke", endpoint)
    serving, ready = _answering(endpoint)
    if not ready and endpoint.status == EndpointStatus.ASLEEP:
        wake_endpoint(endpoint, reason="somebody tried it")
        until = time.monotonic() + LIMIT_S
        while not ready and time.monotonic() < until:
            time.sleep(0.05)  # between looks: the keeper is starting a worker
            serving, ready = _answering(endpoint)
    if not ready or serving is None:
        raise Unavailable(_("No worker of this endpoint is ready right now. Try again in a moment."))
    payload = json.dumps(body).encode()
    began = time.perf_counter()
    answer = _ask(ready, payload)
    took_ms = (time.perf_counter() - began) * 1000
    said = json.loads(answer.body)
    if answer.status != 200:
        raise _refusal(answer.status, said)
    with transaction.atomic():
        usage.record_try(endpoint, request_id=request_id, rows=answer.rows)
    outputs = {one["name"]: one["data"] for one in said["outputs"]}
    label, ranking = _shown(outputs, serving.version.interface["classes"])
    detail = str(outputs["answers"][0]) if "answers" in outputs else ""
    return Tried(label=label, ranking=tuple(ranking), took_ms=took_ms, revision=serving.number, detail=detail)


def _shown(outputs: dict[str, list[Any]], classes: list[str]) -> tuple[str, list[tuple[str, float]]]:
    """What to show large, and what to rank below it. Every kind of model has its own outputs."""
    if "prediction" in outputs:
        return f"{outputs['prediction'][0]:,.6g}", []
    if "text" in outputs:
        return str(outputs["text"][0]), _ranked(outputs.get("next", []), outputs.get("next_scores", []))
    if "items" in outputs:
        return str(outputs["items"][0]), _ranked(outputs["items"], outputs["scores"])
    if "answers" in outputs:
        return str(outputs["label"][0]), _ranked(outputs["answers"], outputs["answer_scores"])
    label = " · ".join(str(outputs[name][0]) for name in ("label", "topic") if name in outputs)
    return label, sorted(
        _ranked(classes, outputs["probabilities"][: len(classes)]), key=lambda pair: -pair[1]
    )


def _ranked(names: list[str], scores: list[float]) -> list[tuple[str, float]]:
    return list(zip(names, scores, strict=True))


def _answering(endpoint: Endpoint) -> tuple[Revision | None, list[Replica]]:
    """The stable revision, and its workers that are ready."""
    rows = Replica.objects.filter(revision__endpoint=endpoint, status=ReplicaStatus.READY)
    ready = list(rows.select_related("revision__version"))
    serving = routes.serving(endpoint, ready)
    return serving, [one for one in ready if serving is not None and one.revision_id == serving.pk]


def _ask(ready: list[Replica], payload: bytes) -> frames.Answer:
    """The first that answers; one that has just died is passed over."""
    for replica in ready:
        try:
            return frames.ask(replica.address, payload, timeout_s=LIMIT_S)
        except frames.WorkerLost:
            continue
        except TimeoutError:
            text = _("The model did not answer within %(seconds)s s.")
            raise Unavailable(text % {"seconds": f"{LIMIT_S:g}"}) from None
    raise Unavailable(_("The worker of this endpoint has just gone; another is on its way. Try again."))


def _refusal(status: int, said: Mapping[str, Any]) -> Refused:
    text = str(said.get("error") or _("The model could not answer."))
    if status in (400, 422):
        return Invalid.at(str(said.get("pointer", "")), "invalid", text)
    return Unavailable(text)
