"""Refusals: errors that speak to the person who can fix them.

The docstring of a class is its message when none is given. `console` turns a refusal into problem+json for
the API and into the same words on a page.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the input. `pointer` is a JSON pointer such as `/resources/gpus`."""

    pointer: str
    code: str
    detail: str


class Refused(Exception):
    """This cannot be done."""

    status = 400
    code = "refused"

    def __init__(
        self, detail: object = "", *, faults: Iterable[Fault] = (), retry_after_s: int | None = None
    ) -> None:
        self.detail = str(detail) or gettext((type(self).__doc__ or "").strip().splitlines()[0])
        self.faults = tuple(faults)
        self.retry_after_s = retry_after_s
        super().__init__(self.detail)


class Invalid(Refused):
    """The request is not valid."""

    status = 422
    code = "invalid"

    @classmethod
    def at(cls, pointer: str, code: str, detail: object) -> Invalid:
        """One fault at one place."""
        return cls(detail, faults=[Fault(pointer, code, str(detail))])


class NotSignedIn(Refused):
    """Sign in, or send a valid bearer token."""

    status = 401
    code = "not_signed_in"


class Forbidden(Refused):
    """Your role does not allow this. Ask an owner or admin of the tenant."""

    status = 403
    code = "forbidden"


class Hidden(Refused):
    """There is nothing here, or you may not see it."""

    status = 404
    code = "not_found"


class Conflict(Refused):
    """Somebody else changed this in the meantime. Reload and try again."""

    status = 409
    code = "conflict"


class IllegalMove(Conflict):
    """This is no longer possible in the present state."""

    code = "illegal_move"


class QuotaExceeded(Refused):
    """The tenant's quota does not leave room for this."""

    status = 409
    code = "quota_exceeded"


class TooLarge(Refused):
    """The upload is larger than allowed."""

    status = 413
    code = "too_large"


class TooMany(Refused):
    """Too many requests. Wait a moment and try again."""

    status = 429
    code = "too_many_requests"


class Unavailable(Refused):
    """This part of Tauon is not available right now. Try again shortly."""

    status = 503
    code = "unavailable"


class DiskFull(Unavailable):
    """The disk of this installation is full. Nothing was kept; free some space and try again."""

    status = 507
    code = "disk_full"


# the messages above once more, where makemessages finds them
_MESSAGES = (
    _("This cannot be done."),
    _("The request is not valid."),
    _("Sign in, or send a valid bearer token."),
    _("Your role does not allow this. Ask an owner or admin of the tenant."),
    _("There is nothing here, or you may not see it."),
    _("Somebody else changed this in the meantime. Reload and try again."),
    _("This is no longer possible in the present state."),
    _("The tenant's quota does not leave room for this."),
    _("The upload is larger than allowed."),
    _("Too many requests. Wait a moment and try again."),
    _("This part of Tauon is not available right now. Try again shortly."),
    _("The disk of this installation is full. Nothing was kept; free some space and try again."),
    # in services
    _("This sign-in link was used before or has expired. Sign in another way, or have a new link made."),
    _("This invitation was used, withdrawn or has expired. Ask for a new one."),
    _("A tenant keeps at least one owner. Make somebody else an owner first."),
)
