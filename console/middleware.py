"""Request id, actor, sign-in, idempotency, and refusals as pages."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from typing import cast

from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.db import IntegrityError, transaction
from django.http import HttpResponse
from django.shortcuts import render
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext as _

from console import api
from tenants import crypto, http
from tenants.actor import Actor, ActorKind
from tenants.errors import NotSignedIn, Refused
from tenants.http import Request
from tenants.models import IdempotencyRecord

Respond = Callable[[Request], HttpResponse]
_REQUEST_ID = re.compile(r"^[0-9A-Za-z._-]{8,64}$")


class RequestIdMiddleware:
    """Take or make a request id; it is in every problem, audit entry and answer."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def __call__(self, request: Request) -> HttpResponse:
        given = request.headers.get("X-Request-Id", "")
        request.request_id = given if _REQUEST_ID.match(given) else f"req_{secrets.token_hex(12)}"
        response = self.respond(request)
        response["X-Request-Id"] = request.request_id
        return response


class AddressMiddleware:
    """Refuse NUL in an address: nothing of ours has one, and PostgreSQL fails over it."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def __call__(self, request: Request) -> HttpResponse:
        if "\0" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            text = _("The request is not valid.")
            if request.path.startswith("/api/"):
                return api.problem(request, 400, "bad_address", text)
            return HttpResponse(text, status=400, content_type="text/plain; charset=utf-8")
        return self.respond(request)


class ActorMiddleware:
    """Put who acts on the request. DRF's authentication replaces it where a bearer token is sent."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def __call__(self, request: Request) -> HttpResponse:
        request.actor = cast(Actor, SimpleLazyObject(lambda: actor_of(request)))
        return self.respond(request)


def actor_of(request: Request) -> Actor:
    """The actor of a page or of an API call: a bearer token wins over a session."""
    options: dict[str, str] = {
        "request_id": request.request_id,
        "address": request.META.get("REMOTE_ADDR") or "",
    }
    if token := http.bearer(request.headers.get("Authorization", "")):
        return http.actor_from_token(token, **options) or http.NOBODY
    return http.actor_from_user(request.user, tenant=None, **options)


class SignedInMiddleware(LoginRequiredMiddleware):
    """Every page needs a signed-in person, but for those marked `login_not_required`; the API has its own door."""

    OPEN = ("/api/", "/health/", "/metrics", "/accounts/", "/static/", "/i18n/", "/admin/")

    def process_view(self, request, view_func, view_args, view_kwargs):
        if request.path.startswith(self.OPEN):
            return None
        return super().process_view(request, view_func, view_args, view_kwargs)


class IdempotencyMiddleware:
    """`Idempotency-Key` on an unsafe API call: the first answer is kept for 24 hours and replayed.

    Same key with another body: 422. Same key while the first is still running: 409. A refusal (4xx) or a crash
    (5xx) is not kept, since nothing was done: the caller may mend and try again with the same key.
    """

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def __call__(self, request: Request) -> HttpResponse:
        key = request.headers.get("Idempotency-Key")
        if not key or request.method in {"GET", "HEAD", "OPTIONS"} or not request.path.startswith("/api/"):
            return self.respond(request)
        if request.actor.kind is ActorKind.NOBODY:
            return self.respond(request)  # a kept answer is not for a token that was revoked since
        if len(key) > 255:
            return api.problem(
                request, 400, "bad_idempotency_key", _("Idempotency-Key is longer than 255 characters.")
            )
        scope = self._scope(request)
        if (request.content_type or "").startswith("multipart/"):
            body = (
                f"multipart {request.headers.get('Content-Length')}".encode()
            )  # streamed: never held in memory
        else:
            body = request.body
        digest = hashlib.sha256(body).hexdigest()
        try:
            with transaction.atomic():
                record = IdempotencyRecord.objects.create(scope=scope, key=key, body_digest=digest)
        except IntegrityError:
            return self._replay(request, scope, key, digest)
        try:
            response = self.respond(request)
        except BaseException:
            record.delete()
            raise
        if response.status_code >= 400 or response.streaming:
            record.delete()
            return response
        IdempotencyRecord.objects.filter(pk=record.pk).update(
            status=response.status_code,
            body=crypto.seal(_answer_key(scope), response.content, context=key),
            content_type=response.get("Content-Type", ""),
        )
        return response

    def _scope(self, request: Request) -> str:
        token = http.bearer(request.headers.get("Authorization", ""))
        who = http.digest(token)[:40] if token else f"user:{request.user.pk}"
        # what a person may see is their tenant's: an answer kept in one is not replayed in another
        where = request.actor.tenant.pk if request.actor.tenant else 0
        return f"{who} {where} {request.method} {hashlib.sha256(request.path.encode()).hexdigest()[:40]}"

    def _replay(self, request: Request, scope: str, key: str, digest: str) -> HttpResponse:
        record = IdempotencyRecord.objects.filter(scope=scope, key=key).first()
        if record is None or record.status is None:
            return api.problem(
                request,
                409,
                "still_running",
                _("A request with this Idempotency-Key is still running. Try again shortly."),
            )
        if record.body_digest != digest:
            return api.problem(
                request,
                422,
                "key_reused",
                _("This Idempotency-Key was used with another body. Use a new key."),
            )
        body = crypto.unseal(_answer_key(scope), bytes(record.body), context=key)
        response = HttpResponse(body, status=record.status, content_type=record.content_type)
        response["Idempotency-Replayed"] = "true"
        return response


def _answer_key(scope: str) -> bytes:
    """Kept answers are sealed: one of them may show a new token, which must exist nowhere in clear."""
    return hashlib.sha256(f"{settings.MASTER_KEY} {scope}".encode()).digest()


class RefusalMiddleware:
    """A refusal that no view caught becomes a page with the same words the API would use."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def __call__(self, request: Request) -> HttpResponse:
        return self.respond(request)

    def process_exception(self, request: Request, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, Refused) or request.path.startswith("/api/"):
            return None
        if isinstance(exception, NotSignedIn):
            return HttpResponse(status=302, headers={"Location": f"/accounts/login/?next={request.path}"})
        names = {404: "404.html", 403: "403.html", 429: "429.html"}
        template = names.get(exception.status, "400.html")
        context = {"refusal": exception, "request_id": request.request_id, "debug": settings.DEBUG}
        return render(request, template, context, status=exception.status)
