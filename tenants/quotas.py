"""What a tenant may use at once; None means as much as the machines have."""

from __future__ import annotations

from typing import Literal

from django.utils.translation import gettext as _

from tenants.errors import QuotaExceeded
from tenants.models import Tenant

What = Literal["processes", "gpus", "storage_bytes", "endpoints"]


def limit_of(tenant: Tenant, what: What) -> int | None:
    """The tenant's limit, or None when there is none."""
    limit: int | None = getattr(tenant, f"max_{what}")
    return limit


def ensure_within(tenant: Tenant, *, what: What, used: int, wanted: int) -> None:
    """Let `wanted` more pass, or raise QuotaExceeded and say what would help.

    The caller holds a lock that keeps `used` true until its own rows are written.
    """
    limit = limit_of(tenant, what)
    if limit is None or used + wanted <= limit:
        return
    words = {
        "tenant": tenant.name,
        "limit": _amount(what, limit),
        "used": _amount(what, used),
        "wanted": _amount(what, wanted),
    }
    if wanted > limit:
        text = _(
            "%(tenant)s may use %(limit)s at once, and this asks for %(wanted)s. "
            "Ask for less, or have staff of this installation raise the quota."
        )
    else:
        text = _(
            "%(tenant)s may use %(limit)s at once; %(used)s in use, so %(wanted)s more do not fit. "
            "Free some first, or have staff of this installation raise the quota."
        )
    raise QuotaExceeded(text % words)


def _amount(what: What, number: int) -> str:
    if what == "storage_bytes":
        return f"{number / 1024**3:.1f} GiB" if number >= 1024**3 else f"{number / 1024**2:.1f} MiB"
    units = {"processes": _("processes"), "gpus": _("GPUs"), "endpoints": _("endpoints")}
    return f"{number} {units[what]}"
