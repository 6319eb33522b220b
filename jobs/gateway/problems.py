"""Refusals of the gateway, as problem+json (RFC 9457) in the shape of the console's API."""

from __future__ import annotations

import json

from tenants.error_codes import problem_type

Headers = list[tuple[bytes, bytes]]


class Problem(Exception):
    """This request gets no prediction; `detail` says why and what to do."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        pointer: str | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.pointer = status, code, detail, pointer
        self.headers = headers or []

    def body(self, *, path: str, request_id: str) -> bytes:
        errors = []
        if self.pointer is not None:
            errors = [{"pointer": self.pointer, "code": self.code, "detail": self.detail}]
        error: object = self.detail  # what clients of the v2 protocol show
        if "/v1/" in path:  # and those of the OpenAI API
            kind = "invalid_request_error" if self.status < 500 else "server_error"
            error = {"message": self.detail, "type": kind, "param": self.pointer, "code": self.code}
        return json.dumps(
            {
                "error": error,
                "type": problem_type(self.code),
                "title": self.code.replace("_", " ").capitalize(),
                "status": self.status,
                "detail": self.detail,
                "instance": path,
                "code": self.code,
                "request_id": request_id,
                "errors": errors,
            },
            ensure_ascii=False,
        ).encode()


def not_signed_in(detail: str, *, error: str = "") -> Problem:
    challenge = 'Bearer realm="tauon"' + (f', error="{error}"' if error else "")
    return Problem(401, "not_signed_in", detail, headers=[(b"www-authenticate", challenge.encode())])


def forbidden() -> Problem:
    challenge = b'Bearer realm="tauon", error="insufficient_scope", scope="endpoints:invoke"'
    detail = (
        "This token may not call this endpoint. It needs the scope endpoints:invoke, and its maker's role "
        "must allow calls, or the endpoint must be shared with it."
    )
    return Problem(403, "forbidden", detail, headers=[(b"www-authenticate", challenge)])


def not_found(detail: str = "There is nothing here, or you may not see it.") -> Problem:
    return Problem(404, "not_found", detail)


def wrong_method(allowed: str) -> Problem:
    return Problem(
        405, "method_not_allowed", f"Only {allowed} works here.", headers=[(b"allow", allowed.encode())]
    )


def unavailable(code: str, detail: str, *, retry_after_s: int = 1) -> Problem:
    return Problem(503, code, detail, headers=[(b"retry-after", str(retry_after_s).encode())])


def cannot_count() -> Problem:
    return unavailable(
        "cannot_count", "Usage cannot be written down here (is the disk full?). Nothing was charged."
    )


def too_large(cap: int) -> Problem:
    # the rest of the body is not read, so the connection cannot be used again
    return Problem(
        413,
        "too_large",
        f"A request may hold {cap} bytes. Send fewer rows in one request.",
        headers=[(b"connection", b"close")],
    )
