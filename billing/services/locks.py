"""One gate per tenant: usage passes in crowds, an invoice alone.

While an invoice is made nobody stores usage of that tenant, so the highest event id it sees is a true line:
every id below is there, and every later event gets a higher one. Taken before ids are drawn and clocks read.
"""

from __future__ import annotations

from django.db import connection

_GATE = 0x7A01  # first key of the two-key advisory locks, our own


def pass_with_usage(tenant_id: int) -> None:
    """Shared, until the transaction ends."""
    _lock("pg_advisory_xact_lock_shared", tenant_id)


def close_for_invoice(tenant_id: int) -> None:
    """Alone, until the transaction ends."""
    _lock("pg_advisory_xact_lock", tenant_id)


def _lock(function: str, tenant_id: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"select {function}(%s, %s)", [_GATE, tenant_id % 2**31])
