from django.db import migrations

FORWARD = """
alter table billing_invoice drop constraint invoice_periods_do_not_overlap;
alter table billing_invoice add constraint invoice_periods_do_not_overlap exclude using gist (
  int8range(tenant_id, tenant_id, '[]') with &&,
  tstzrange(period_start, period_end, '[)') with &&
) where (status <> 'void');

create trigger invoice_taxes_are_frozen before update or delete on billing_invoicetax
  for each row execute function refuse_change();
create trigger tax_needs_a_draft before insert on billing_invoicetax
  for each row execute function billing_line_needs_a_draft();
create trigger credit_uses_are_append_only before update or delete on billing_credituse
  for each row execute function refuse_change();
create trigger notes_are_frozen before update or delete on billing_creditnote
  for each row execute function refuse_change();
create trigger note_lines_are_frozen before update or delete on billing_creditnoteline
  for each row execute function refuse_change();
create trigger note_taxes_are_frozen before update or delete on billing_creditnotetax
  for each row execute function refuse_change();
create trigger refunds_are_append_only before update or delete on billing_refund
  for each row execute function refuse_change();
create trigger provider_events_are_append_only before update or delete on billing_providerevent
  for each row execute function refuse_change();
create trigger dunning_steps_are_append_only before update or delete on billing_dunningstep
  for each row execute function refuse_change();

-- a lot of credit keeps its terms; only what is left of it moves
create function billing_credit_keeps_its_terms() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' and to_jsonb(new) - 'remaining' - 'broken' - 'broken_at'
     = to_jsonb(old) - 'remaining' - 'broken' - 'broken_at' then
    return new;
  end if;
  raise exception 'credit keeps its terms' using errcode = 'restrict_violation';
end $$;
create trigger credit_keeps_its_terms before update or delete on billing_creditgrant
  for each row execute function billing_credit_keeps_its_terms();

-- what is left of a lot is what was granted, less what was used and what expired: checked at commit
create function billing_credit_adds_up() returns trigger language plpgsql as $$
declare lot bigint := case when tg_table_name = 'billing_creditgrant' then new.id else
  (to_jsonb(new) ->> 'grant_id')::bigint end;
begin
  if exists (
    select 1 from billing_creditgrant g where g.id = lot and g.remaining <> g.amount - g.broken
      - coalesce((select sum(u.amount) from billing_credituse u where u.grant_id = g.id), 0)
  ) then
    raise exception 'what is left of credit lot % does not follow from its uses', lot
      using errcode = 'check_violation';
  end if;
  return null;
end $$;
create constraint trigger credit_adds_up after insert or update on billing_creditgrant
  deferrable initially deferred for each row execute function billing_credit_adds_up();
create constraint trigger credit_uses_add_up after insert on billing_credituse
  deferrable initially deferred for each row execute function billing_credit_adds_up();

-- a hold is set aside once: what is captured only grows, and what is released stays released
create function billing_hold_moves_forward() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' and old.released_at is null and new.captured >= old.captured
     and to_jsonb(new) - 'captured' - 'released_at' - 'release_reason' - 'expires_at'
     = to_jsonb(old) - 'captured' - 'released_at' - 'release_reason' - 'expires_at' then
    return new;
  end if;
  raise exception 'a hold only moves forward' using errcode = 'restrict_violation';
end $$;
create trigger hold_moves_forward before update or delete on billing_hold
  for each row execute function billing_hold_moves_forward();

-- notes never take back more than a line has; the invoice is locked, so that two notes cannot both fit
create function billing_note_fits_its_line() returns trigger language plpgsql as $$
declare line billing_invoiceline%rowtype;
begin
  select * into line from billing_invoiceline where id = new.line_id;
  perform 1 from billing_invoice where id = line.invoice_id for update;
  if (select coalesce(sum(amount), 0) from billing_creditnoteline where line_id = new.line_id)
     + new.amount > line.amount then
    raise exception 'notes take back more than line % has', new.line_id using errcode = 'check_violation';
  end if;
  return new;
end $$;
create trigger note_fits_its_line before insert on billing_creditnoteline
  for each row execute function billing_note_fits_its_line();

-- a payment keeps what it says; once it succeeded it is final
create function billing_payment_is_final() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' and old.status <> 'succeeded'
     and to_jsonb(new) - 'status' - 'status_at' - 'reference' - 'failure' - 'to_credit'
     = to_jsonb(old) - 'status' - 'status_at' - 'reference' - 'failure' - 'to_credit' then
    return new;
  end if;
  raise exception 'a payment keeps what it says' using errcode = 'restrict_violation';
end $$;
create trigger payment_is_final before update or delete on billing_payment
  for each row execute function billing_payment_is_final();

create function billing_refund_fits_its_payment() returns trigger language plpgsql as $$
declare paid billing_payment%rowtype;
begin
  select * into paid from billing_payment where id = new.payment_id for update;
  if paid.status <> 'succeeded' or paid.amount < new.amount
     + (select coalesce(sum(amount), 0) from billing_refund where payment_id = new.payment_id) then
    raise exception 'payment % has less than is paid back', new.payment_id using errcode = 'check_violation';
  end if;
  return new;
end $$;
create trigger refund_fits_its_payment before insert on billing_refund
  for each row execute function billing_refund_fits_its_payment();

-- a tenant never has less than no credit: on this account credit balances are negative
create function billing_credit_is_never_below_zero() returns trigger language plpgsql as $$
begin
  if exists (select 1 from billing_ledgeraccount where id = new.account_id and kind = 'credit')
     and (select sum(amount) from billing_ledgerentry where account_id = new.account_id) > 0 then
    raise exception 'credit account % is overdrawn', new.account_id using errcode = 'check_violation';
  end if;
  return null;
end $$;
create constraint trigger credit_is_never_below_zero after insert on billing_ledgerentry
  deferrable initially deferred for each row execute function billing_credit_is_never_below_zero();
"""
BACKWARD = """
drop trigger credit_is_never_below_zero on billing_ledgerentry;
drop trigger refund_fits_its_payment on billing_refund;
drop trigger payment_is_final on billing_payment;
drop trigger note_fits_its_line on billing_creditnoteline;
drop trigger hold_moves_forward on billing_hold;
drop trigger credit_uses_add_up on billing_credituse;
drop trigger credit_adds_up on billing_creditgrant;
drop trigger credit_keeps_its_terms on billing_creditgrant;
drop trigger dunning_steps_are_append_only on billing_dunningstep;
drop trigger provider_events_are_append_only on billing_providerevent;
drop trigger refunds_are_append_only on billing_refund;
drop trigger note_taxes_are_frozen on billing_creditnotetax;
drop trigger note_lines_are_frozen on billing_creditnoteline;
drop trigger notes_are_frozen on billing_creditnote;
drop trigger credit_uses_are_append_only on billing_credituse;
drop trigger tax_needs_a_draft on billing_invoicetax;
drop trigger invoice_taxes_are_frozen on billing_invoicetax;
drop function billing_credit_is_never_below_zero();
drop function billing_refund_fits_its_payment();
drop function billing_payment_is_final();
drop function billing_note_fits_its_line();
drop function billing_hold_moves_forward();
drop function billing_credit_adds_up();
drop function billing_credit_keeps_its_terms();
alter table billing_invoice drop constraint invoice_periods_do_not_overlap;
alter table billing_invoice add constraint invoice_periods_do_not_overlap exclude using gist (
  int8range(tenant_id, tenant_id, '[]') with &&,
  tstzrange(period_start, period_end, '[)') with &&
);
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_credits_notes_payments_and_scopes")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
