from django.db import migrations

# Integer columns and a hash of text are wrapped into one-value ranges, so that the exclusion constraints need
# no extension (btree_gist is not among the embedded server's files).
FORWARD = """
alter table billing_usageinterval add constraint intervals_do_not_overlap exclude using gist (
  int8range(allocation_id, allocation_id, '[]') with &&,
  tstzrange(started_at, ended_at, '[)') with &&
);
alter table billing_priceversion add constraint one_price_for_a_moment exclude using gist (
  int8range(
    hashtextextended(plan || chr(31) || meter_id || chr(31) || sku || chr(31) || currency, 0),
    hashtextextended(plan || chr(31) || meter_id || chr(31) || sku || chr(31) || currency, 0), '[]'
  ) with &&,
  tstzrange(valid_from, valid_to, '[)') with &&
);
alter table billing_invoice add constraint invoice_periods_do_not_overlap exclude using gist (
  int8range(tenant_id, tenant_id, '[]') with &&,
  tstzrange(period_start, period_end, '[)') with &&
);

create trigger usage_is_append_only before update or delete on billing_usageevent
  for each row execute function refuse_change();
create trigger intervals_are_append_only before update or delete on billing_usageinterval
  for each row execute function refuse_change();
create trigger ledger_transactions_are_append_only before update or delete on billing_ledgertransaction
  for each row execute function refuse_change();
create trigger ledger_entries_are_append_only before update or delete on billing_ledgerentry
  for each row execute function refuse_change();
create trigger invoice_parts_are_frozen before update or delete on billing_invoicepart
  for each row execute function refuse_change();
create trigger invoice_lines_are_frozen before update or delete on billing_invoiceline
  for each row execute function refuse_change();

-- a price may only be given its end, once
create function billing_price_is_fixed() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' and old.valid_to is null and new.valid_to is not null
     and to_jsonb(new) - 'valid_to' = to_jsonb(old) - 'valid_to' then
    return new;
  end if;
  raise exception 'a price never changes; the next one takes its place' using errcode = 'restrict_violation';
end $$;
create trigger price_is_fixed before update or delete on billing_priceversion
  for each row execute function billing_price_is_fixed();

-- a frozen invoice keeps every word; only its place in the lifecycle may move on
create function billing_invoice_is_frozen() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' and (old.status = 'draft'
     or to_jsonb(new) - 'status' - 'status_at' = to_jsonb(old) - 'status' - 'status_at') then
    return new;
  end if;
  raise exception 'invoice % is frozen', old.number using errcode = 'restrict_violation';
end $$;
create trigger invoice_is_frozen before update or delete on billing_invoice
  for each row execute function billing_invoice_is_frozen();

-- no line slips into a frozen invoice
create function billing_line_needs_a_draft() returns trigger language plpgsql as $$
begin
  if (select status from billing_invoice where id = new.invoice_id) is distinct from 'draft' then
    raise exception 'the invoice is frozen' using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
create trigger line_needs_a_draft before insert on billing_invoiceline
  for each row execute function billing_line_needs_a_draft();
create function billing_part_needs_a_draft() returns trigger language plpgsql as $$
begin
  if (select i.status from billing_invoice i join billing_invoiceline l on l.invoice_id = i.id
      where l.id = new.line_id) is distinct from 'draft' then
    raise exception 'the invoice is frozen' using errcode = 'restrict_violation';
  end if;
  return new;
end $$;
create trigger part_needs_a_draft before insert on billing_invoicepart
  for each row execute function billing_part_needs_a_draft();

-- double entry: checked when the transaction commits, after all its entries are there
create function billing_entries_sum_to_zero() returns trigger language plpgsql as $$
begin
  if exists (
    select 1 from billing_ledgerentry e join billing_ledgeraccount a on a.id = e.account_id
    where e.transaction_id = new.transaction_id group by a.currency having sum(e.amount) <> 0
  ) then
    raise exception 'ledger transaction % does not sum to zero', new.transaction_id
      using errcode = 'check_violation';
  end if;
  return null;
end $$;
create constraint trigger entries_sum_to_zero after insert on billing_ledgerentry
  deferrable initially deferred for each row execute function billing_entries_sum_to_zero();
"""
BACKWARD = """
drop trigger entries_sum_to_zero on billing_ledgerentry;
drop trigger part_needs_a_draft on billing_invoicepart;
drop trigger line_needs_a_draft on billing_invoiceline;
drop trigger invoice_is_frozen on billing_invoice;
drop trigger price_is_fixed on billing_priceversion;
drop trigger invoice_lines_are_frozen on billing_invoiceline;
drop trigger invoice_parts_are_frozen on billing_invoicepart;
drop trigger ledger_entries_are_append_only on billing_ledgerentry;
drop trigger ledger_transactions_are_append_only on billing_ledgertransaction;
drop trigger intervals_are_append_only on billing_usageinterval;
drop trigger usage_is_append_only on billing_usageevent;
drop function billing_entries_sum_to_zero();
drop function billing_part_needs_a_draft();
drop function billing_line_needs_a_draft();
drop function billing_invoice_is_frozen();
drop function billing_price_is_fixed();
alter table billing_invoice drop constraint invoice_periods_do_not_overlap;
alter table billing_priceversion drop constraint one_price_for_a_moment;
alter table billing_usageinterval drop constraint intervals_do_not_overlap;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0001_meters_usage_prices_invoices_and_ledger"),
        ("tenants", "0002_audit_is_append_only"),
    ]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
