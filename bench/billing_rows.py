"""Rows for bench.billing, made inside the database: as many as wanted in little time, the same every time."""

from __future__ import annotations

from datetime import date

from django.db import connection, transaction

from billing import clock
from billing.months import Month
from billing.services import accounts
from tenants.models import Tenant

DAYS = 30
_METERS = "('endpoint.requests', 'storage', 'train.gpu', 'train.process')"

_PRICES = f"""
create temporary table bench_price as
select row_number() over (order by meter_id) - 1 as n, id, meter_id, sku from billing_priceversion
where meter_id in {_METERS} and sku = 'standard' and plan = 'standard' and currency = 'USD' and valid_to is null
"""
_EVENTS = """
insert into billing_usageevent (tenant_id, source, key, meter_id, sku, price_id, quantity, event_time, ended_at,
  created_at, subject, subject_title, user_label, dims, payload_hash)
select %(tenant)s, 'bench', 'k' || i, p.meter_id, p.sku, p.id, 1 + i %% 97,
  %(start)s::timestamptz + make_interval(secs => (i::float8 / %(count)s) * 30 * 86400),
  %(start)s::timestamptz + make_interval(secs => (i::float8 / %(count)s) * 30 * 86400),
  now(), 'job_' || (i %% 20), 'Run ' || (i %% 20), 'p' || (i / 20 %% 5) || '@example.org', '{}', repeat('0', 64)
from generate_series(0, %(count)s - 1) i join bench_price p on p.n = i %% 4
"""
_BIG = """
create unlogged table bench_event as
select t.id as tenant_id, %(start)s::timestamptz + make_interval(secs => (i::float8 / %(count)s) * 30 * 86400)
  as event_time, p.id as price_id, (1 + i %% 97)::numeric(38,12) as quantity, 'job_' || (i %% 7) as subject
from generate_series(0, %(count)s - 1) i
join bench_tenant t on t.n = i %% (select count(*) from bench_tenant) join bench_price p on p.n = i / 7 %% 4
"""
_DAYS = """
insert into billing_usageday (tenant_id, day, price_id, subject, subject_title, user_label, quantity, created_at)
select tenant_id, (event_time at time zone 'UTC')::date, price_id, subject, 'Run', '', sum(quantity), now()
from bench_event group by 1, 2, 3, 4
"""


def fill_events(tenant: int, count: int, start: date) -> None:
    """Store so many events of one tenant over 30 days through the table's own triggers."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("drop table if exists bench_price")
        cursor.execute(_PRICES)
        cursor.execute(_EVENTS, {"tenant": tenant, "count": count, "start": f"{start} 00:00+00"})
    _analyze()


def fill_sums(count: int, start: date, tenants: int = 100) -> int:
    """Make so many events of 100 tenants in a table of their own, and the sums of them by day: how many."""
    bounds = {"count": count, "start": f"{start} 00:00+00"}
    with connection.cursor() as cursor:
        cursor.execute("drop table if exists bench_price, bench_tenant, bench_event")
        cursor.execute("truncate billing_usageday, billing_usagehour")  # of other parts of the bench
        cursor.execute(_PRICES)
        _tenants(cursor, "sum", tenants)
        cursor.execute(_BIG, bounds)
        cursor.execute(_DAYS)
        days = cursor.rowcount
    _analyze()
    return days


def fill_small_accounts(count: int) -> None:
    """So many tenants with an account and sixty events each in the month before this one."""
    start = Month.of(clock.now()).previous.start
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("drop table if exists bench_price, bench_tenant")
        cursor.execute(_PRICES)
        _tenants(cursor, "small", count)
        cursor.execute(
            """
            insert into billing_usageevent (tenant_id, source, key, meter_id, sku, price_id, quantity, event_time,
              ended_at, created_at, subject, subject_title, user_label, dims, payload_hash)
            select t.id, 'bench', 'k' || i, p.meter_id, p.sku, p.id, 1000 + i, %(start)s + make_interval(hours => i * 8),
              %(start)s + make_interval(hours => i * 8), now(), 'job_' || (i %% 3), 'Run', '', '{}', repeat('0', 64)
            from bench_tenant t cross join generate_series(0, 59) i join bench_price p on p.n = i %% 4
            """,
            {"start": start},
        )
    _analyze()
    for tenant in Tenant.objects.filter(slug__startswith="small-"):
        accounts.of(tenant)


def _tenants(cursor, prefix: str, count: int) -> None:  # type: ignore[no-untyped-def]
    Tenant.objects.bulk_create(
        [Tenant(name=f"Tenant {n}", slug=f"{prefix}-{n}") for n in range(count)], ignore_conflicts=True
    )
    cursor.execute(
        "create temporary table bench_tenant as select row_number() over (order by id) - 1 as n, id "
        "from tenants_tenant where slug like %s",
        [f"{prefix}-%"],
    )


def _analyze() -> None:
    with connection.cursor() as cursor:
        cursor.execute("analyze")
