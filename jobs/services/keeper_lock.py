"""One keeper of replicas at a time: an advisory lock of its database session decides which."""

from __future__ import annotations

from django.db import connection

_LOCK = (0x7A03, 1)


def try_lock() -> bool:
    """Take the keeper's lock for this database session, or find that another session has it."""
    with connection.cursor() as cursor:
        # held already: an advisory lock of a session would otherwise be counted twice
        cursor.execute(
            "select count(*) from pg_locks where locktype = 'advisory' and classid = %s and objid = %s "
            "and pid = pg_backend_pid() and granted",
            _LOCK,
        )
        if cursor.fetchone()[0]:
            return True
        cursor.execute("select pg_try_advisory_lock(%s, %s)", _LOCK)
        return bool(cursor.fetchone()[0])


def unlock() -> None:
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_unlock(%s, %s)", _LOCK)
