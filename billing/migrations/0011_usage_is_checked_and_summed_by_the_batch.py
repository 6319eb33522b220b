import django.db.models.deletion
from django.db import migrations, models

# Three foreign keys of an event were looked up row by row when a batch committed. The sums that every batch writes
# have two of them, tenant and price, so a price that does not exist, or that goes while there is usage of it, is
# refused as before; the price says what meter and SKU there may be. Prices are never deleted, nor are their meters.
#
# Events are grouped once, by the hour, and days are made of hours. The newest title is the greatest text with the
# event's id in front: an ordered aggregate would sort the batch by all of its groups.
FORWARD = """
create or replace function billing_sum_usage() returns trigger language plpgsql as $$
begin
  if exists (
    select 1 from (select distinct price_id, meter_id, sku from added) one
    where not exists (
      select 1 from billing_priceversion p
      where p.id = one.price_id and p.meter_id = one.meter_id and p.sku = one.sku
    )
  ) then
    raise exception 'usage is of another meter or SKU than its price' using errcode = 'foreign_key_violation';
  end if;
  with hours as materialized (
    select tenant_id, date_trunc('hour', event_time, 'UTC') as hour, price_id, subject, user_label,
      coalesce(dims -> 'labels', '{}') as labels, max(lpad(id::text, 19, '0') || subject_title) as titled,
      sum(quantity) as quantity, count(*) as events, max(id) as through_id
    from added group by 1, 2, 3, 4, 5, 6
  ), days as (
    insert into billing_usageday as d (tenant_id, day, price_id, subject, user_label, subject_title, quantity,
      created_at)
    select tenant_id, (hour at time zone 'UTC')::date as day, price_id, subject, user_label,
      substr(max(titled), 20), sum(quantity), clock_timestamp()
    from hours group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5
    on conflict (tenant_id, day, price_id, subject, user_label) do update set
      quantity = d.quantity + excluded.quantity, subject_title = excluded.subject_title
  )
  insert into billing_usagehour as h (tenant_id, hour, price_id, subject, user_label, labels, subject_title,
    quantity, events, through_id, created_at)
  select tenant_id, hour, price_id, subject, user_label, labels, substr(titled, 20), quantity, events, through_id,
    clock_timestamp()
  from hours order by 1, 2, 3, 4, 5, 6
  on conflict (tenant_id, hour, price_id, subject, user_label, labels) do update set
    quantity = h.quantity + excluded.quantity, events = h.events + excluded.events,
    through_id = greatest(h.through_id, excluded.through_id), subject_title = excluded.subject_title;
  return null;
end $$;
"""
BACKWARD = """
create or replace function billing_sum_usage() returns trigger language plpgsql as $$
begin
  insert into billing_usagehour as h (tenant_id, hour, price_id, subject, user_label, labels, subject_title,
    quantity, events, through_id, created_at)
  select tenant_id, date_trunc('hour', event_time, 'UTC') as hour, price_id, subject, user_label,
    coalesce(dims -> 'labels', '{}') as labels, (array_agg(subject_title order by id desc))[1], sum(quantity),
    count(*), max(id), clock_timestamp()
  from added group by 1, 2, 3, 4, 5, 6 order by 1, 2, 3, 4, 5, 6
  on conflict (tenant_id, hour, price_id, subject, user_label, labels) do update set
    quantity = h.quantity + excluded.quantity, events = h.events + excluded.events,
    through_id = greatest(h.through_id, excluded.through_id), subject_title = excluded.subject_title;
  insert into billing_usageday as d (tenant_id, day, price_id, subject, user_label, subject_title, quantity,
    created_at)
  select tenant_id, (event_time at time zone 'UTC')::date as day, price_id, subject, user_label,
    (array_agg(subject_title order by id desc))[1], sum(quantity), clock_timestamp()
  from added group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5
  on conflict (tenant_id, day, price_id, subject, user_label) do update set
    quantity = d.quantity + excluded.quantity, subject_title = excluded.subject_title;
  return null;
end $$;
"""


def by_the_sums(to: str) -> models.ForeignKey:
    """A key of usage events that the database sees to through their sums."""
    return models.ForeignKey(
        db_constraint=False,
        db_index=False,
        on_delete=django.db.models.deletion.PROTECT,
        related_name="+",
        to=to,
    )


class Migration(migrations.Migration):
    dependencies = [("billing", "0010_usage_has_the_indexes_that_are_asked")]

    operations = [
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.AlterField("usageevent", "meter", by_the_sums("billing.meter")),
        migrations.AlterField("usageevent", "price", by_the_sums("billing.priceversion")),
        migrations.AlterField("usageevent", "tenant", by_the_sums("tenants.tenant")),
    ]
