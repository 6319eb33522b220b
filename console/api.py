"""DRF defaults: default-deny, problem+json (RFC 9457), cursor paging, one throttle per actor."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import parse_qs, urlparse

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, JsonResponse
from django.utils.translation import gettext as _
from drf_spectacular.authentication import SessionScheme
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import exceptions, pagination, permissions, throttling
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from tenants import http
from tenants.actor import ActorKind
from tenants.api import actor_of
from tenants.error_codes import problem_type
from tenants.errors import Fault, Refused


class BearerToken(BaseAuthentication):
    """`Authorization: Bearer tau_...`."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        token = http.bearer(request.headers.get("Authorization", ""))
        if token is None:
            return None
        actor = http.actor_from_token(
            token,
            request_id=cast(http.Request, request._request).request_id,
            address=request.META.get("REMOTE_ADDR") or "",
        )
        if actor is None:
            raise exceptions.AuthenticationFailed(_("This token is not known, expired or was revoked."))
        cast(http.Request, request._request).actor = actor
        return actor.user, actor.token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="tauon"'


class BearerTokenSchema(OpenApiAuthenticationExtension):
    """How the OpenAPI document names a token."""

    target_class = BearerToken
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "tau_..."}


class Session(SessionAuthentication):
    """A signed-in browser; unsafe calls need the CSRF token."""


class SessionSchema(SessionScheme):
    target_class: Any = Session
    name = "session"


class SignedIn(permissions.BasePermission):
    """Somebody must act; what they may do is decided by the services."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return actor_of(request).kind is not ActorKind.NOBODY


class Cursor(pagination.CursorPagination):
    """`?limit=&cursor=` -> {"data": [...], "has_more": bool, "next_cursor": str | null}, newest first."""

    ordering = ("-created_at", "-id")
    page_size = 50
    max_page_size = 200
    page_size_query_param = "limit"
    cursor_query_param = "cursor"

    def decode_cursor(self, request: Request) -> Any:
        cursor = super().decode_cursor(request)
        if cursor is not None and "\0" in str(cursor.position):  # PostgreSQL takes no NUL
            raise exceptions.NotFound(self.invalid_cursor_message)
        return cursor

    def get_paginated_response(self, data: Any) -> Response:
        link = self.get_next_link()
        cursor = None
        if link:
            cursor = self.encode_cursor_of(link)
        response = Response({"data": data, "has_more": link is not None, "next_cursor": cursor})
        if link:
            response["Link"] = f'<{link}>; rel="next"'
        return response

    def encode_cursor_of(self, link: str) -> str:
        return parse_qs(urlparse(link).query)[self.cursor_query_param][0]

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["data", "has_more", "next_cursor"],
            "properties": {
                "data": schema,
                "has_more": {"type": "boolean"},
                "next_cursor": {"type": ["string", "null"]},
            },
        }


class ActorThrottle(throttling.SimpleRateThrottle):
    """One bucket per token or person."""

    scope = "actor"

    def get_cache_key(self, request: Request, view: Any) -> str | None:
        actor = actor_of(request)
        if actor.token is not None:
            return f"throttle:token:{actor.token.pk}"
        return f"throttle:user:{actor.user.pk}" if actor.user is not None else None


def problem(
    request: HttpRequest,
    status: int,
    code: str,
    detail: str,
    *,
    faults: tuple[Fault, ...] = (),
    title: str = "",
) -> JsonResponse:
    """An application/problem+json answer."""
    body = problem_body(request, status, code, detail, faults=faults, title=title)
    return JsonResponse(body, status=status, content_type="application/problem+json")


def problem_body(
    request: Any, status: int, code: str, detail: str, *, faults: tuple[Fault, ...] = (), title: str = ""
) -> dict[str, Any]:
    return {
        "type": problem_type(code),
        "title": title or code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "instance": request.path,
        "code": code,
        "request_id": getattr(request, "request_id", ""),
        "errors": [
            {"pointer": fault.pointer, "code": fault.code, "detail": fault.detail} for fault in faults
        ],
    }


def problem_handler(exception: Exception, context: dict[str, Any]) -> Response | None:
    """Every error of the API in one shape. Unknown exceptions stay 500s for Django to log."""
    request = context["request"]
    found = _describe(exception)
    if found is None:
        return None
    status, code, detail, faults, headers = found
    response = Response(
        problem_body(request, status, code, detail, faults=faults),
        status=status,
        headers=headers,
        content_type="application/problem+json",
    )
    response.exception = True
    return response


def _describe(error: Exception) -> tuple[int, str, str, tuple[Fault, ...], dict[str, str]] | None:
    if isinstance(error, Refused):
        headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
        return error.status, error.code, error.detail, error.faults, headers
    if isinstance(error, Http404):
        return 404, "not_found", _("There is nothing here, or you may not see it."), (), {}
    if isinstance(error, PermissionDenied):
        return 403, "forbidden", _("You may not do this."), (), {}
    if isinstance(error, ValidationError):
        return 422, "invalid", " ".join(error.messages), (), {}
    if isinstance(error, exceptions.ValidationError):
        faults = tuple(_faults(error.get_full_details()))
        detail = (
            faults[0].detail if len(faults) == 1 else _("%(n)s fields are not valid.") % {"n": len(faults)}
        )
        return 422, "invalid", detail, faults, {}
    if isinstance(error, exceptions.Throttled):
        wait = max(1, int(getattr(error, "wait", None) or 1))
        return (
            429,
            "too_many_requests",
            _("Too many requests. Try again in %(n)s s.") % {"n": wait},
            (),
            {"Retry-After": str(wait)},
        )
    if isinstance(error, exceptions.APIException):
        header = getattr(error, "auth_header", None)
        headers = {"WWW-Authenticate": header} if header else {}
        codes = error.get_codes()
        code = codes if isinstance(codes, str) else "error"
        return error.status_code, code, str(error.detail), (), headers
    return None


def _faults(details: Any, pointer: str = "") -> list[Fault]:
    """DRF's nested error details as a flat list with JSON pointers."""
    if isinstance(details, dict) and set(details) == {"message", "code"}:
        return [Fault(pointer or "/", str(details["code"]), str(details["message"]))]
    found: list[Fault] = []
    if isinstance(details, dict):
        for key, value in details.items():
            found += _faults(value, pointer if key == "non_field_errors" else f"{pointer}/{key}")
    elif isinstance(details, list):
        for index, value in enumerate(details):
            leaf = isinstance(value, dict) and set(value) == {"message", "code"}
            found += _faults(value, pointer if leaf else f"{pointer}/{index}")
    return found
