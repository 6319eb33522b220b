"""Sums of usage that can always be made again from the events: rebuilt, and compared."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection, transaction
from django.utils.translation import gettext as _

from billing.models import UsageDay, UsageHour
from billing.services import locks
from tenants.errors import Invalid
from tenants.models import Tenant

_SUM_HOURS = """
select tenant_id, date_trunc('hour', event_time, 'UTC') as hour, price_id, subject, user_label,
  coalesce(dims -> 'labels', '{}') as labels, (array_agg(subject_title order by id desc))[1] as subject_title,
  sum(quantity) as quantity, count(*) as events, max(id) as through_id
from billing_usageevent where tenant_id = %(tenant)s and event_time >= %(start)s and event_time < %(end)s
group by 1, 2, 3, 4, 5, 6
"""
_SUM_DAYS = """
select tenant_id, (event_time at time zone 'UTC')::date as day, price_id, subject, user_label,
  (array_agg(subject_title order by id desc))[1] as subject_title, sum(quantity) as quantity
from billing_usageevent where tenant_id = %(tenant)s and event_time >= %(start)s and event_time < %(end)s
group by 1, 2, 3, 4, 5
"""
_HOURS = f"""
insert into billing_usagehour (tenant_id, hour, price_id, subject, user_label, labels, subject_title, quantity,
  events, through_id, created_at)
select raw.*, clock_timestamp() from ({_SUM_HOURS}) raw
"""
_DAYS = f"""
insert into billing_usageday (tenant_id, day, price_id, subject, user_label, subject_title, quantity, created_at)
select raw.*, clock_timestamp() from ({_SUM_DAYS}) raw
"""
_DIFFERENT = f"""
select coalesce(raw.hour, kept.hour), coalesce(raw.subject, kept.subject), raw.quantity, kept.quantity
from ({_SUM_HOURS}) raw
full join (
  select * from billing_usagehour where tenant_id = %(tenant)s and hour >= %(start)s and hour < %(end)s
) kept using (price_id, hour, subject, user_label, labels)
where (raw.quantity, raw.events, raw.through_id) is distinct from (kept.quantity, kept.events, kept.through_id)
order by 1, 2
"""


def rebuild(tenant: Tenant, start: datetime, end: datetime) -> int:
    """Make the sums of whole UTC days in [start, end) again from the events; returns how many hours there are."""
    _whole_days(start, end)
    with transaction.atomic():
        # alone: an event stored meanwhile would be summed twice or not at all
        locks.close_for_invoice(tenant.pk)
        UsageHour.objects.between(start, end).filter(tenant=tenant).delete()
        UsageDay.objects.between(start.date(), end.date()).filter(tenant=tenant).delete()
        bounds: dict[str, int | datetime] = {"tenant": tenant.pk, "start": start, "end": end}
        with connection.cursor() as cursor:
            cursor.execute(_DAYS, bounds)
            cursor.execute(_HOURS, bounds)
            return cursor.rowcount


def differences(tenant: Tenant, start: datetime, end: datetime) -> list[str]:
    """Hours of [start, end) whose sum is not what the events say, in words; an empty list is what we want."""
    with connection.cursor() as cursor:
        cursor.execute(_DIFFERENT, {"tenant": tenant.pk, "start": start, "end": end})
        return [
            f"{hour:%Y-%m-%d %H:00} {subject}: events {raw}, hour {kept}"
            for hour, subject, raw, kept in cursor.fetchall()
        ]


def _whole_days(start: datetime, end: datetime) -> None:
    for name, moment in (("/start", start), ("/end", end)):
        if (
            moment.tzinfo is None
            or moment.utcoffset() != timedelta(0)
            or moment.time().isoformat() != "00:00:00"
        ):
            raise Invalid.at(name, "not_midnight", _("Sums are rebuilt by whole UTC days."))
